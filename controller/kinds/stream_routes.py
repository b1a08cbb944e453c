"""Gateway API's routes of connections, whose bytes nobody looks into: TLSRoute, by SNI, and TCPRoute."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from controller.kinds.gateway_api import BackendReference, GatewayApiObject, ParentReference, RouteHost
from controller.kinds.meta import StrictModel
from controller.kinds.refusals import Unsupported


class StreamBackend(BackendReference):
    """A share of the connections, by weight."""

    weight: Annotated[int, Field(ge=0, le=1_000_000)] = 1


class StreamRule(StrictModel):
    """Where connections go."""

    name: str | None = None
    backend_refs: Annotated[Sequence[StreamBackend], Field(min_length=1, max_length=16)]


class StreamRouteSpec(StrictModel):
    """Attached to what, which rule. There is one: nothing tells two apart."""

    parent_refs: Sequence[ParentReference] | None = None
    rules: Annotated[Sequence[StreamRule], Field(min_length=1, max_length=1)]
    use_default_gateways: Unsupported = None


class TlsRouteSpec(StreamRouteSpec):
    """For which server names, too."""

    hostnames: Annotated[Sequence[RouteHost] | None, Field(max_length=16)] = None


class TLSRoute(GatewayApiObject):
    """Where connections go that name a server (SNI)."""

    VERSIONS: ClassVar[tuple[str, ...]] = ("v1", "v1alpha3", "v1alpha2")

    spec: TlsRouteSpec

    @property
    def rules(self) -> Sequence[StreamRule]:
        """Its one rule."""
        return self.spec.rules

    @property
    def hostnames(self) -> Sequence[str]:
        """Its server names; any where it has none."""
        return self.spec.hostnames or ()


class TCPRoute(GatewayApiObject):
    """Where connections to a port go."""

    VERSIONS: ClassVar[tuple[str, ...]] = ("v1", "v1alpha2")

    spec: StreamRouteSpec

    @property
    def rules(self) -> Sequence[StreamRule]:
        """Its one rule."""
        return self.spec.rules

    @property
    def hostnames(self) -> Sequence[str]:
        """None: TCP knows no names."""
        return ()
