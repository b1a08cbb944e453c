"""Gateway API's kinds that say where requests come in, and who may point where.

What is not carried out is refused here by name, rather than ignored.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from controller.kinds.hosts import check_route_host
from controller.kinds.meta import LabelName, ObjectMeta, PortNumber, StrictModel, StrictObject, SubdomainName
from controller.kinds.refusals import NOT_CARRIED_OUT, Unsupported

GROUP = "gateway.networking.k8s.io"
GATEWAY_LABEL = "gateway.networking.k8s.io/gateway-name"
"""On the pods of a Gateway (GEP-1762)."""
CONTROLLER = "ambit.dev/gateway-controller"
"""What a GatewayClass names to have its Gateways served by us. Istio's own name counts too."""
CONTROLLERS = (CONTROLLER, "istio.io/gateway-controller", "istio.io/mesh-controller")
CLASSES = ("ambit", "istio", "istio-waypoint")
"""Classes that are ours without an object that says so."""


HBONE = "HBONE"
"""The protocol of a waypoint's listener (Istio's)."""
FOR_LABEL = "istio.io/waypoint-for"
"""On a Gateway or its class: which connections its waypoints take."""
INBOUND_BINDING_ANNOTATION = "ambient.istio.io/waypoint-inbound-binding"
"""On a Gateway or its class: the port of a waypoint that has a ztunnel before it."""

RouteHost = Annotated[str, AfterValidator(check_route_host)]


class GatewayApiObject(StrictObject):
    """A gateway.networking.k8s.io object."""

    GROUP: ClassVar[str] = GROUP
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1", "v1beta1")


_INBOUND_BINDING = re.compile(r"(PROXY|NONE)(/([1-9][0-9]{0,4}))?")


class WaypointMeta(ObjectMeta):
    """Metadata that says what a waypoint is for: a misspelt value is refused, for it would lead round policies."""

    @field_validator("labels")
    @classmethod
    def _check_labels(cls, labels: Mapping[str, str] | None) -> Mapping[str, str] | None:
        if (labels or {}).get(FOR_LABEL, "none") not in ("service", "workload", "all", "none"):
            raise PydanticCustomError(
                "label_value", "the label {label} must be service, workload, all or none", {"label": FOR_LABEL}
            )
        return labels

    @field_validator("annotations")
    @classmethod
    def _check_annotations(cls, annotations: Mapping[str, str] | None) -> Mapping[str, str] | None:
        text = (annotations or {}).get(INBOUND_BINDING_ANNOTATION, "NONE")
        match = _INBOUND_BINDING.fullmatch(text)
        if match is None or int(match[3] or 1) > 65535:
            raise PydanticCustomError(
                "annotation_value",
                "the annotation {name} must be PROXY or NONE, or one of them with a port, as in PROXY/15088",
                {"name": INBOUND_BINDING_ANNOTATION},
            )
        return annotations


class ParametersReference(StrictModel):
    """An object with settings of an implementation."""

    group: str
    kind: str
    name: str
    namespace: str | None = None


class GatewayClassSpec(StrictModel):
    """Who serves the Gateways of a class."""

    controller_name: str
    parameters_ref: ParametersReference | None = None
    description: str | None = None


class GatewayClass(GatewayApiObject):
    """A kind of Gateway."""

    IS_NAMESPACED: ClassVar[bool] = False

    metadata: WaypointMeta
    spec: GatewayClassSpec


class SelectorRequirement(StrictModel):
    """One condition on labels."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: Sequence[str] | None = None

    def matches(self, labels: "dict[str, str]") -> bool:
        """Whether `labels` meet it."""
        match self.operator:
            case "In":
                return labels.get(self.key) in (self.values or ())
            case "NotIn":
                return labels.get(self.key) not in (self.values or ())
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels


class LabelSelector(StrictModel):
    """Which objects: those whose labels meet all of it. An empty one is met by all."""

    match_labels: dict[str, str] | None = None
    match_expressions: Sequence[SelectorRequirement] | None = None

    def matches(self, labels: "dict[str, str]") -> bool:
        """Whether `labels` meet all of it."""
        has_labels = all(labels.get(key) == value for key, value in (self.match_labels or {}).items())
        return has_labels and all(each.matches(labels) for each in self.match_expressions or ())


class RouteNamespaces(StrictModel):
    """From which namespaces routes may attach."""

    from_: Annotated[Literal["All", "Same", "Selector", "None"], Field(alias="from")] = "Same"
    selector: LabelSelector | None = None


class RouteKind(StrictModel):
    """A kind of route."""

    group: str = GROUP
    kind: str


class AllowedRoutes(StrictModel):
    """Which routes may attach to a listener."""

    namespaces: RouteNamespaces = RouteNamespaces()
    kinds: Sequence[RouteKind] | None = None


class SecretReference(StrictModel):
    """A Secret with a certificate."""

    group: str = ""
    kind: str = "Secret"
    name: str
    namespace: str | None = None


class ListenerTls(StrictModel):
    """How a listener ends TLS."""

    mode: Literal["Terminate", "Passthrough"] = "Terminate"
    certificate_refs: Annotated[Sequence[SecretReference] | None, Field(max_length=64)] = None
    options: Unsupported = None
    frontend_validation: Unsupported = None


_WITHOUT = {"HTTP": ("tls",), "TCP": ("tls", "hostname"), "UDP": ("tls", "hostname")}


class Listener(StrictModel):
    """A port, and for which hosts requests are taken there."""

    name: SubdomainName
    port: PortNumber
    protocol: str
    hostname: RouteHost | None = None
    tls: ListenerTls | None = None
    allowed_routes: AllowedRoutes = AllowedRoutes()

    @model_validator(mode="after")
    def _check_protocol(self) -> "Listener":
        """Gateway API's own rules for it."""
        given: dict[str, object] = {"tls": self.tls, "hostname": self.hostname}
        for field in _WITHOUT.get(self.protocol, ()):
            if given[field] is not None:
                values = {"protocol": self.protocol, "field": field}
                raise PydanticCustomError("combination", "a listener of protocol {protocol} has no {field}", values)
        return self

    @property
    def passes_through(self) -> bool:
        """Whether TLS is left to the backends."""
        return self.tls is not None and self.tls.mode == "Passthrough"


class GatewayAddress(StrictModel):
    """An address that is asked for."""

    type: str = "IPAddress"
    value: str | None = None


class GatewayInfrastructure(StrictModel):
    """What the objects that are made for a Gateway carry."""

    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    parameters_ref: ParametersReference | None = None


class GatewaySpec(StrictModel):
    """Where requests come in."""

    gateway_class_name: str
    listeners: Annotated[Sequence[Listener], Field(min_length=1, max_length=64)]
    addresses: Sequence[GatewayAddress] | None = None
    infrastructure: GatewayInfrastructure | None = None
    allowed_listeners: Unsupported = None
    backend_tls: Annotated[None, NOT_CARRIED_OUT, Field(alias="backendTLS")] = None
    tls: Unsupported = None
    default_scope: Unsupported = None

    @model_validator(mode="after")
    def _check_listeners(self) -> "GatewaySpec":
        names = [listener.name for listener in self.listeners]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise PydanticCustomError("listener_twice", "two listeners are called {name}", {"name": twice})
        return self


class Gateway(GatewayApiObject):
    """A place where requests come in, carried out by proxies that carry its name."""

    metadata: WaypointMeta
    spec: GatewaySpec


class ParentReference(StrictModel):
    """What a route attaches to: a Gateway's listeners, or a Service."""

    group: str = GROUP
    kind: str = "Gateway"
    namespace: LabelName | None = None
    name: SubdomainName
    section_name: str | None = None
    port: PortNumber | None = None


class BackendReference(StrictModel):
    """Where requests go: a port of a Service, or of a host that a ServiceEntry names (`Hostname`)."""

    group: str = ""
    kind: str = "Service"
    name: str
    namespace: LabelName | None = None
    port: PortNumber | None = None


class GrantFrom(StrictModel):
    """Who may point at something here."""

    group: str
    kind: str
    namespace: LabelName


class GrantTo(StrictModel):
    """At what: all of a kind, or one by name."""

    group: str
    kind: str
    name: str | None = None


class ReferenceGrantSpec(StrictModel):
    """Each of `from` may point at each of `to`, in the grant's namespace."""

    from_: Annotated[Sequence[GrantFrom], Field(alias="from", min_length=1)]
    to: Annotated[Sequence[GrantTo], Field(min_length=1)]


class ReferenceGrant(GatewayApiObject):
    """Permission for other namespaces to point at objects of this one."""

    spec: ReferenceGrantSpec
