"""Gateway API's GRPCRoute: which calls go where."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from controller.kinds.gateway_api import GatewayApiObject, ParentReference, RouteHost
from controller.kinds.http_route import NamedMatch, RouteRule
from controller.kinds.meta import StrictModel
from controller.kinds.patterns import check_regex
from controller.kinds.refusals import Unsupported

_FILTERS = ("RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror")


class MethodMatch(StrictModel):
    """Which calls, by service, method, or both; exactly or by regular expressions."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    service: Annotated[str | None, Field(min_length=1, max_length=1024)] = None
    method: Annotated[str | None, Field(min_length=1, max_length=1024)] = None

    @model_validator(mode="after")
    def _check_names(self) -> "MethodMatch":
        names = [each for each in (self.service, self.method) if each]
        if not names:
            raise PydanticCustomError("empty_match", "must name a service or a method")
        for name in names:
            if self.type == "RegularExpression":
                check_regex(name)
            elif "/" in name:
                raise PydanticCustomError(
                    "path_value", "{name} has a '/': service and method stand apart", {"name": name}
                )
        return self


class GrpcMatch(StrictModel):
    """Calls that meet all of it."""

    method: MethodMatch | None = None
    headers: Sequence[NamedMatch] | None = None


class GrpcRule(RouteRule):
    """What is done with the calls that any of its matches meets."""

    matches: Sequence[GrpcMatch] | None = None

    @model_validator(mode="after")
    def _check_filters(self) -> "GrpcRule":
        for each in self.filters or ():
            if each.type not in _FILTERS:
                raise PydanticCustomError("unsupported", "a GRPCRoute has no filter {kind}", {"kind": each.type})
        return self


class GrpcRouteSpec(StrictModel):
    """For which hosts, attached to what, which rules."""

    parent_refs: Sequence[ParentReference] | None = None
    hostnames: Sequence[RouteHost] | None = None
    rules: Sequence[GrpcRule] | None = None
    use_default_gateways: Unsupported = None


class GRPCRoute(GatewayApiObject):
    """Where calls of gRPC go that come to a Gateway, or to a Service."""

    VERSIONS = ("v1",)

    spec: GrpcRouteSpec = GrpcRouteSpec()

    @property
    def rules(self) -> Sequence[GrpcRule]:
        """Its rules; one that sends everything nowhere where it has none."""
        return self.spec.rules if self.spec.rules is not None else (GrpcRule(),)

    @property
    def hostnames(self) -> Sequence[str]:
        """The hosts that it is for; any where it has none."""
        return self.spec.hostnames or ()
