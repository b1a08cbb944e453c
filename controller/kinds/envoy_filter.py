"""Istio's EnvoyFilter: changes to what Envoys are told, in the words of Envoy's own API.

The values are read as Envoy's messages here already, so that an unknown type, an unknown field or a value that Envoy
would not take is refused with the object, and not by proxies later. What is not carried out is refused by name.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from controller.kinds.meta import PortNumber, StrictModel
from controller.kinds.networking import NetworkingObject
from controller.kinds.proxies import ProxyTarget
from controller.kinds.refusals import Unsupported

if TYPE_CHECKING:
    from google.protobuf.message import Message

_HCM = "envoy.extensions.filters.network.http_connection_manager.v3"
MESSAGES: Mapping[str, str] = {
    "CLUSTER": "envoy.config.cluster.v3.Cluster",
    "FILTER_CHAIN": "envoy.config.listener.v3.FilterChain",
    "HTTP_FILTER": f"{_HCM}.HttpFilter",
    "HTTP_ROUTE": "envoy.config.route.v3.Route",
    "LISTENER": "envoy.config.listener.v3.Listener",
    "NETWORK_FILTER": "envoy.config.listener.v3.Filter",
    "ROUTE_CONFIGURATION": "envoy.config.route.v3.RouteConfiguration",
    "VIRTUAL_HOST": "envoy.config.route.v3.VirtualHost",
}
"""By `applyTo`, the message that is patched."""
_INSERTIONS = ("INSERT_AFTER", "INSERT_BEFORE", "INSERT_FIRST")
# What is added to a chain of filters at its end would stand behind the one that must be the last.
_OPERATIONS: Mapping[str, tuple[str, ...]] = {
    "CLUSTER": ("ADD", "MERGE", "REMOVE"),
    "FILTER_CHAIN": ("ADD", "MERGE", "REMOVE"),
    "HTTP_FILTER": (*_INSERTIONS, "MERGE", "REMOVE", "REPLACE"),
    "HTTP_ROUTE": ("ADD", *_INSERTIONS, "MERGE", "REMOVE"),
    "LISTENER": ("ADD", "MERGE", "REMOVE"),
    "NETWORK_FILTER": (*_INSERTIONS, "MERGE", "REMOVE", "REPLACE"),
    "ROUTE_CONFIGURATION": ("MERGE",),
    "VIRTUAL_HOST": ("ADD", "MERGE", "REMOVE"),
}
_ABOUT: Mapping[str, tuple[str, ...]] = {
    "cluster": ("CLUSTER",),
    "listener": ("FILTER_CHAIN", "HTTP_FILTER", "LISTENER", "NETWORK_FILTER"),
    "route_configuration": ("HTTP_ROUTE", "ROUTE_CONFIGURATION", "VIRTUAL_HOST"),
}
_FILTERS = ("HTTP_FILTER", "NETWORK_FILTER")
ROUTER = "envoy.filters.http.router"
"""The last of a listener's HTTP filters, without which Envoy takes none."""


def _refuse_target(value: object) -> object:
    if value in ("BOOTSTRAP", "EXTENSION_CONFIG", "LISTENER_FILTER"):
        raise PydanticCustomError("unsupported", "is not carried out: patch the listener, or its filters")
    return value


def _refuse_operation(value: object) -> object:
    if value == "MERGE_AND_REPLACE_LIST":
        raise PydanticCustomError("unsupported", "is not carried out: write REPLACE, or MERGE, which adds to lists")
    return value


def _refuse_context(value: object) -> object:
    if value == "WAYPOINT":
        raise PydanticCustomError("unsupported", "is not carried out: waypoints are not patched")
    return value


ApplyTo = Annotated[
    Literal[
        "CLUSTER",
        "FILTER_CHAIN",
        "HTTP_FILTER",
        "HTTP_ROUTE",
        "LISTENER",
        "NETWORK_FILTER",
        "ROUTE_CONFIGURATION",
        "VIRTUAL_HOST",
    ],
    BeforeValidator(_refuse_target),
]
Operation = Annotated[
    Literal["ADD", "INSERT_AFTER", "INSERT_BEFORE", "INSERT_FIRST", "MERGE", "REMOVE", "REPLACE"],
    BeforeValidator(_refuse_operation),
]
Context = Annotated[Literal["ANY", "GATEWAY", "SIDECAR_INBOUND", "SIDECAR_OUTBOUND"], BeforeValidator(_refuse_context)]


class SubFilterMatch(StrictModel):
    """An HTTP filter by its name."""

    name: str | None = None


class FilterMatch(StrictModel):
    """A network filter by its name, and in it an HTTP filter."""

    name: str | None = None
    sub_filter: SubFilterMatch | None = None


class FilterChainMatch(StrictModel):
    """A filter chain by its name, and a filter in it."""

    name: str | None = None
    filter: FilterMatch | None = None
    sni: Unsupported = None
    transport_protocol: Unsupported = None
    application_protocols: Unsupported = None
    destination_port: Unsupported = None


class ListenerMatch(StrictModel):
    """A listener by its port or its name."""

    port_number: PortNumber | None = None
    name: str | None = None
    filter_chain: FilterChainMatch | None = None
    port_name: Unsupported = None
    listener_filter: Unsupported = None


class RouteMatch(StrictModel):
    """A route by its name, or by what it does."""

    name: str | None = None
    action: Literal["ANY", "ROUTE", "REDIRECT", "DIRECT_RESPONSE"] = "ANY"


class VirtualHostMatch(StrictModel):
    """A virtual host by its name or one of its domains, and a route in it."""

    name: str | None = None
    domain_name: str | None = None
    route: RouteMatch | None = None


class RouteConfigurationMatch(StrictModel):
    """A route configuration by its port or its name. `gateway` is an Istio Gateway's."""

    port_number: PortNumber | None = None
    name: str | None = None
    vhost: VirtualHostMatch | None = None
    port_name: Unsupported = None
    gateway: Unsupported = None


class ClusterMatch(StrictModel):
    """A cluster by its name, or by the service, port and subset that it is of."""

    name: str | None = None
    service: str | None = None
    port_number: PortNumber | None = None
    subset: str | None = None


class PatchMatch(StrictModel):
    """What is patched; what is not said matches all."""

    context: Context = "ANY"
    listener: ListenerMatch | None = None
    route_configuration: RouteConfigurationMatch | None = None
    cluster: ClusterMatch | None = None
    proxy: Unsupported = None


class Patch(StrictModel):
    """What is done to it. `value` is of the message that `applyTo` names, in JSON."""

    operation: Operation
    value: object = None
    filter_class: Unsupported = None


class ConfigPatch(StrictModel):
    """One change."""

    apply_to: ApplyTo
    match: PatchMatch = PatchMatch()
    patch: Patch

    @property
    def adds_resource(self) -> bool:
        """Whether it is a listener or a cluster beside those that there are."""
        return self.patch.operation == "ADD" and self.apply_to in ("CLUSTER", "LISTENER")

    @property
    def names_subject(self) -> bool:
        """Whether it is about one filter or route by name, and not about all."""
        chain = self.match.listener.filter_chain if self.match.listener else None
        if self.apply_to == "NETWORK_FILTER":
            return bool(chain and chain.filter and chain.filter.name)
        if self.apply_to == "HTTP_FILTER":
            return bool(chain and chain.filter and chain.filter.sub_filter and chain.filter.sub_filter.name)
        host = self.match.route_configuration.vhost if self.match.route_configuration else None
        return bool(host and host.route)

    @model_validator(mode="after")
    def _check_match(self) -> "ConfigPatch":
        for about, targets in _ABOUT.items():
            if getattr(self.match, about) is not None and self.apply_to not in targets:
                raise PydanticCustomError(
                    "patch_match",
                    "match.{about} is nothing that chooses a {target}",
                    {"about": about.replace("route_configuration", "routeConfiguration"), "target": self.apply_to},
                )
        if self.patch.operation not in _OPERATIONS[self.apply_to]:
            raise PydanticCustomError(
                "patch_operation",
                "{operation} is nothing to do to a {target}: write one of {known}",
                {
                    "operation": self.patch.operation,
                    "target": self.apply_to,
                    "known": ", ".join(_OPERATIONS[self.apply_to]),
                },
            )
        needs_name = self.apply_to in _FILTERS and self.patch.operation not in ("INSERT_BEFORE", "INSERT_FIRST")
        if needs_name and not self.names_subject:
            field = "filter.name" if self.apply_to == "NETWORK_FILTER" else "filter.subFilter.name"
            raise PydanticCustomError(
                "patch_match",
                "{operation} needs a filter by name: match.listener.filterChain.{field}",
                {"operation": self.patch.operation, "field": field},
            )
        if self.patch.operation in ("REMOVE", "INSERT_AFTER") and self.apply_to == "HTTP_FILTER" and self._is_of_router:
            raise PydanticCustomError("patch_operation", "the router must be the last filter: write INSERT_BEFORE")
        return self

    @property
    def _is_of_router(self) -> bool:
        chain = self.match.listener.filter_chain if self.match.listener else None
        return bool(chain and chain.filter and chain.filter.sub_filter and chain.filter.sub_filter.name == ROUTER)

    @model_validator(mode="after")
    def _check_value(self) -> "ConfigPatch":
        if self.patch.operation == "REMOVE":
            if self.patch.value is not None:
                raise PydanticCustomError("combination", "REMOVE has no patch.value")
            return self
        from controller.envoy_api.constraints import find_violation  # Envoy's API alone is 20 MiB

        message = self.build_message()
        # What is merged is a part of a message; what it makes of the whole is known only there.
        violation = find_violation(message) if self.patch.operation != "MERGE" else ""
        if not violation and self.adds_resource:
            violation = _check_name(getattr(message, "name", ""))
        if violation:
            raise PydanticCustomError("envoy_value", "patch.value: {why}", {"why": violation})
        return self

    def build_message(self) -> "Message":
        """The value as Envoy's message, empty where there is none. Validated objects raise nothing here."""
        from controller.envoy_api.types import find_message_class
        from controller.envoy_api.values import UnknownTypeError, UnreadableValueError, parse_message

        name = MESSAGES[self.apply_to]
        found = find_message_class(name)
        assert found is not None, f"Envoy's API has {name}"
        message = found()
        if self.patch.operation == "REMOVE":
            return message
        if not isinstance(self.patch.value, Mapping):
            raise PydanticCustomError(
                "combination", "{operation} needs patch.value, a mapping", {"operation": self.patch.operation}
            )
        try:
            parse_message(self.patch.value, message)
        except UnknownTypeError as error:
            raise PydanticCustomError("envoy_type", "patch.value: {why}", {"why": str(error)}) from error
        except UnreadableValueError as error:
            raise PydanticCustomError("envoy_value", "patch.value: {why}", {"why": str(error)}) from error
        return message


def _check_name(name: str) -> str:
    """What is wrong with the name of a listener or cluster; those that we make have one of these characters."""
    if not name:
        return "name: must not be empty"
    if any(each in name for each in "|/:") or name in ("nowhere", "passthrough"):
        return f"name: {name} may be one of the mesh's own: write one without '|', '/' and ':'"
    return ""


class ProxySelector(StrictModel):
    """Proxies by their labels; no labels are those of all."""

    labels: dict[str, str] | None = None


class EnvoyFilterSpec(StrictModel):
    """Which proxies, and what is changed for them, in this order."""

    workload_selector: ProxySelector | None = None
    target_refs: Annotated[Sequence[ProxyTarget] | None, Field(max_length=16)] = None
    config_patches: Annotated[Sequence[ConfigPatch], Field(min_length=1)]
    priority: Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)] = 0

    @model_validator(mode="after")
    def _check_scope(self) -> "EnvoyFilterSpec":
        if self.workload_selector and self.target_refs:
            raise PydanticCustomError("combination", "workloadSelector and targetRefs exclude each other")
        for patch in self.config_patches:
            changes_shared = patch.apply_to == "CLUSTER" and patch.patch.operation != "ADD"
            if changes_shared and (self.workload_selector or self.target_refs or patch.match.context != "ANY"):
                raise PydanticCustomError(
                    "patch_of_all",
                    "all proxies share a service's cluster: {operation} it for all of them, with context ANY, without "
                    "workloadSelector and targetRefs, in the root namespace",
                    {"operation": patch.patch.operation},
                )
        return self


class EnvoyFilter(NetworkingObject):
    """Patches for some proxies."""

    VERSIONS: ClassVar[tuple[str, ...]] = ("v1alpha3",)

    spec: EnvoyFilterSpec
