"""Istio's networking.istio.io kinds that ztunnel carries out: what is outside of the cluster, by name and by address.

What only a waypoint or another network could carry out is refused here, by name: a host that is in the mesh's DNS and
whose connections fail is worse than none.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from controller.kinds.core import Ip, IpAddress
from controller.kinds.hosts import check_host, is_ip
from controller.kinds.meta import Model, PortNumber, StrictModel, StrictObject
from controller.kinds.policy_values import IpBlockText

_PROTOCOLS = ("HTTP", "HTTPS", "HTTP2", "GRPC", "GRPC-WEB", "MONGO", "MYSQL", "REDIS", "TCP", "TLS")


def _check_host(value: str) -> str:
    if value.startswith("*"):
        raise PydanticCustomError("needs_waypoint", "a wildcard host needs a waypoint; write each host")
    return check_host(value)


def _check_endpoint_address(value: str) -> str:
    if value.startswith("unix:"):
        raise PydanticCustomError("unsupported", "a unix socket is nothing that ztunnel could connect to")
    return value if is_ip(value) else _check_host(value)


def _check_protocol(value: str) -> str:
    if value.upper() not in _PROTOCOLS:
        raise PydanticCustomError("protocol_value", "is not one of {known}", {"known": ", ".join(_PROTOCOLS)})
    return value.upper()


def _refuse_network(value: object) -> object:
    if value in (None, ""):
        return None
    raise PydanticCustomError("unsupported", "other networks are not supported: leave it out")


def _check_scope(value: str) -> str:
    if value not in (".", "*"):
        raise PydanticCustomError("unsupported", "must be '.' (this namespace) or '*' (all namespaces)")
    return value


Host = Annotated[str, AfterValidator(_check_host)]
EndpointAddress = Annotated[str, AfterValidator(_check_endpoint_address)]
Block = IpBlockText
ProtocolName = Annotated[str, AfterValidator(_check_protocol)]
NoNetwork = Annotated[None, BeforeValidator(_refuse_network)]
ExportScope = Annotated[str, AfterValidator(_check_scope)]


class WorkloadEntrySpec(StrictModel):
    """A machine, VM or external server: its address, and by name the ports that it serves."""

    address: EndpointAddress | None = None
    ports: dict[str, PortNumber] | None = None
    labels: dict[str, str] | None = None
    network: NoNetwork = None
    locality: str | None = None
    weight: Annotated[int | None, Field(ge=0, le=(1 << 32) - 1)] = None
    service_account: str | None = None


class NetworkingObject(StrictObject):
    """A networking.istio.io object."""

    GROUP: ClassVar[str] = "networking.istio.io"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1", "v1beta1", "v1alpha3")


class WorkloadEntry(NetworkingObject):
    """A workload that is no pod."""

    spec: WorkloadEntrySpec

    @model_validator(mode="after")
    def _check_address(self) -> "WorkloadEntry":
        if self.spec.address is None:
            raise PydanticCustomError("combination", "spec.address is missing: an IP address or a DNS name")
        return self

    @property
    def all_labels(self) -> dict[str, str]:
        """Those of its metadata and its spec, by which it is selected."""
        return {**self.labels, **(self.spec.labels or {})}


class ServiceEntryPort(StrictModel):
    """A port of all hosts. `target_port` is the endpoints', where it is another."""

    number: PortNumber
    name: str
    protocol: ProtocolName = "TCP"
    target_port: Annotated[PortNumber | None, Field(alias="targetPort")] = None


class EntrySelector(StrictModel):
    """Which pods and WorkloadEntries of the namespace serve the hosts."""

    labels: dict[str, str] | None = None


def _parse_resolution(value: object) -> object:
    if value == "DYNAMIC_DNS":
        raise PydanticCustomError("needs_waypoint", "DYNAMIC_DNS needs a waypoint")
    return value


class ServiceEntrySpec(StrictModel):
    """Hosts that are to be known in the mesh, and what serves them."""

    hosts: Annotated[Sequence[Host], Field(min_length=1)]
    addresses: Sequence[Block] | None = None
    ports: Sequence[ServiceEntryPort] | None = None
    location: Literal["MESH_EXTERNAL", "MESH_INTERNAL"] = "MESH_EXTERNAL"
    resolution: Annotated[Literal["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN"], BeforeValidator(_parse_resolution)] = (
        "NONE"
    )
    endpoints: Sequence[WorkloadEntrySpec] | None = None
    workload_selector: EntrySelector | None = None
    export_to: Sequence[ExportScope] | None = None
    subject_alt_names: Sequence[str] | None = None

    @model_validator(mode="after")
    def _check_combination(self) -> "ServiceEntrySpec":
        endpoints = [each.address for each in self.endpoints or ()]
        if self.endpoints and self.workload_selector:
            raise PydanticCustomError("combination", "endpoints and workloadSelector exclude each other")
        if None in endpoints:
            raise PydanticCustomError("combination", "each of endpoints needs an address")
        if len(set(endpoints)) < len(endpoints):
            raise PydanticCustomError(
                "duplicate_endpoint", "an address stands twice among endpoints; give it one weight"
            )
        self._check_resolution([each for each in endpoints if each is not None])
        return self

    def _check_resolution(self, endpoints: Sequence[str]) -> None:
        if self.resolution == "NONE":
            if endpoints or self.workload_selector:
                raise PydanticCustomError("combination", "resolution NONE has no endpoints; write STATIC or DNS")
            if not self.addresses:
                raise PydanticCustomError("combination", "resolution NONE needs addresses: only by these it is known")
        elif self.resolution == "STATIC":
            if not endpoints and not self.workload_selector:
                raise PydanticCustomError("combination", "resolution STATIC needs endpoints or a workloadSelector")
            if names := [each for each in endpoints if not is_ip(each)]:
                raise PydanticCustomError(
                    "combination", "endpoint {name} is a name; resolution STATIC needs addresses", {"name": names[0]}
                )


class AllocatedAddress(Model):
    """An address that was given to a host."""

    value: Ip
    host: str | None = None


class ServiceEntryStatus(Model):
    """What Istio writes."""

    addresses: Sequence[AllocatedAddress] | None = None


class ServiceEntry(NetworkingObject):
    """Names and addresses outside of the cluster, or beside its Services."""

    spec: ServiceEntrySpec
    status: ServiceEntryStatus | None = None

    @property
    def hosts(self) -> tuple[str, ...]:
        """Its hosts, each once."""
        return tuple(dict.fromkeys(self.spec.hosts))

    @property
    def selector(self) -> dict[str, str]:
        """The labels of those that serve it; empty when it selects nobody."""
        return (self.spec.workload_selector.labels if self.spec.workload_selector else None) or {}

    @property
    def is_private(self) -> bool:
        """Whether only its namespace is to see it."""
        return bool(self.spec.export_to) and "*" not in (self.spec.export_to or ())

    @property
    def wants_addresses(self) -> bool:
        """Whether each host gets an address of its own, so that connections tell which of them was meant."""
        given = self.labels.get("networking.istio.io/enable-autoallocate-ip")
        return not self.spec.addresses and self.spec.resolution != "NONE" and given != "false"

    def allocated(self, host: str) -> tuple[IpAddress, ...]:
        """The addresses that its status has for a host."""
        found = (self.status.addresses if self.status else None) or ()
        return tuple(each.value for each in found if each.host == host)
