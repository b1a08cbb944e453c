"""Istio's Sidecar, as far as it is carried out here: which services the sidecars of a namespace are told of."""

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from controller.kinds.hosts import check_route_host
from controller.kinds.meta import StrictModel
from controller.kinds.networking import NetworkingObject
from controller.kinds.refusals import Unsupported

_NAMESPACE = re.compile(r"[.*~]|[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def _check_pattern(value: str) -> str:
    namespace, slash, host = value.partition("/")
    if not slash or not _NAMESPACE.fullmatch(namespace) or (namespace == "~" and host != "*"):
        raise PydanticCustomError(
            "egress_host", "must be NAMESPACE/HOST, where NAMESPACE may be '.' or '*' and HOST '*'; '~/*' is nothing"
        )
    return value if host == "*" else f"{namespace}/{check_route_host(host)}"


def _refuse_mode(value: object) -> object:
    if value == "REGISTRY_ONLY":
        raise PydanticCustomError("unsupported", "is not carried out: what is of no known service passes as it was")
    return value


EgressHost = Annotated[str, AfterValidator(_check_pattern)]


class Egress(StrictModel):
    """Hosts that are told of, each as NAMESPACE/HOST."""

    hosts: Annotated[Sequence[EgressHost], Field(min_length=1)]
    port: Unsupported = None
    bind: Unsupported = None
    capture_mode: Unsupported = None


class OutboundPolicy(StrictModel):
    """What becomes of connections to what is not told of: they pass."""

    mode: Annotated[Literal["ALLOW_ANY"], BeforeValidator(_refuse_mode)] = "ALLOW_ANY"
    egress_proxy: Unsupported = None


class SidecarSpec(StrictModel):
    """Without egress, everything is told of."""

    egress: Sequence[Egress] | None = None
    outbound_traffic_policy: OutboundPolicy | None = None
    workload_selector: Unsupported = None
    ingress: Unsupported = None
    inbound_connection_pool: Unsupported = None


class Sidecar(NetworkingObject):
    """What the sidecars of its namespace know of."""

    spec: SidecarSpec

    @property
    def patterns(self) -> Sequence[tuple[str, str]]:
        """The namespace and host of each pattern; everything where nothing is said."""
        if self.spec.egress is None:
            return [("*", "*")]
        given = (one.partition("/") for each in self.spec.egress for one in each.hosts)
        return [(namespace, host) for namespace, _, host in given]
