"""Kubernetes' EndpointSlice: who serves a Service, where no selector says it."""

from collections.abc import Sequence
from ipaddress import ip_address
from typing import ClassVar, Literal

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from controller.kinds.core import IpAddress, Protocol
from controller.kinds.meta import KubernetesObject, Model, PortNumber

SERVICE_LABEL = "kubernetes.io/service-name"
"""Names the Service, of the same namespace."""

_VERSIONS = {"IPv4": 4, "IPv6": 6}


class EndpointConditions(Model):
    """Whether connections should be given to it: yes, where nothing is said."""

    ready: bool | None = None


class TargetReference(Model):
    """The object that the endpoint stands for."""

    kind: str | None = None
    name: str | None = None


class SliceEndpoint(Model):
    """One server. Several addresses are the same one's, and the first counts (Kubernetes' own rule)."""

    addresses: Sequence[str]
    conditions: EndpointConditions | None = None
    target_ref: TargetReference | None = None

    @property
    def is_ready(self) -> bool:
        return self.conditions is None or self.conditions.ready is not False

    @property
    def pod(self) -> str:
        """The name of the pod that it is; empty when it is none."""
        target = self.target_ref
        return (target.name or "") if target is not None and target.kind == "Pod" else ""


class SlicePort(Model):
    """Where all of its endpoints serve the Service's port of this name."""

    name: str | None = None
    port: PortNumber | None = None
    protocol: Protocol = "TCP"


class EndpointSlice(KubernetesObject):
    """A part of a Service's endpoints."""

    GROUP: ClassVar[str] = "discovery.k8s.io"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1",)

    address_type: Literal["IPv4", "IPv6", "FQDN"]
    endpoints: Sequence[SliceEndpoint] | None = None
    ports: Sequence[SlicePort] | None = None

    @model_validator(mode="after")
    def _check_addresses(self) -> "EndpointSlice":
        version = _VERSIONS.get(self.address_type)
        for endpoint in self.endpoints or () if version else ():
            for address in endpoint.addresses:
                if _find_version(address) != version:
                    raise PydanticCustomError(
                        "ip_value",
                        "endpoint {address} is no {family} address",
                        {"address": address, "family": self.address_type},
                    )
        return self

    @property
    def service(self) -> str:
        """The name of the Service; empty where the label is missing."""
        return self.labels.get(SERVICE_LABEL, "")

    @property
    def servers(self) -> tuple[tuple[IpAddress, SliceEndpoint], ...]:
        """The endpoints that have an address, with it; none where they have names."""
        if self.address_type == "FQDN":
            return ()
        return tuple((ip_address(each.addresses[0]), each) for each in self.endpoints or () if each.addresses)


def _find_version(address: str) -> int | None:
    try:
        return ip_address(address).version
    except ValueError:
        return None
