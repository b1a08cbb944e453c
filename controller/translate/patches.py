"""Patches of EnvoyFilters to what was translated: to one message in place, by one patch.

What no patch matches stays as it is. A patch of a list of filters or routes is about the one that it names, or about
their beginning or end where it names none (Istio's reading).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from google.protobuf.message import Message

from controller.envoy_api.merging import merge
from controller.kinds.envoy_filter import ConfigPatch, FilterChainMatch, RouteMatch, VirtualHostMatch
from controller.registry.http import Target
from controller.translate.envoy import pack

_ACTIONS = {"ROUTE": "route", "REDIRECT": "redirect", "DIRECT_RESPONSE": "direct_response"}


class Outcome(Enum):
    """What a patch did to a message."""

    UNTOUCHED = "untouched"
    CHANGED = "changed"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A patch with its value, which is empty where it has none."""

    patch: ConfigPatch
    value: Message


def _tell(is_changed: bool) -> Outcome:
    return Outcome.CHANGED if is_changed else Outcome.UNTOUCHED


def patch_listener(listener: listener_pb2.Listener, port: int, prepared: Prepared) -> Outcome:
    """Patch a listener of a port, its filter chains and their filters."""
    patch, match = prepared.patch, prepared.patch.match.listener
    if match is not None and not _is_named(listener.name, port, match.name, match.port_number):
        return Outcome.UNTOUCHED
    wanted = match.filter_chain if match is not None else None
    match patch.apply_to:
        case "LISTENER" if patch.patch.operation != "ADD" and any(_find_chains(listener, wanted)):
            return _change(listener, prepared)
        case "FILTER_CHAIN":
            return _tell(_patch_chains(listener, wanted, prepared))
        case "NETWORK_FILTER":
            chains = list(_find_chains(listener, FilterChainMatch(name=wanted.name) if wanted else None))
            chosen = wanted.filter.name if wanted and wanted.filter else None
            return _tell(_any(_change_list(each.filters, _by_name(chosen), prepared) for each in chains))
        case "HTTP_FILTER":
            return _tell(_any(_patch_http(each, wanted, prepared) for each in _find_chains(listener, wanted)))
        case _:
            return Outcome.UNTOUCHED


def _is_named(name: str, port: int, wanted_name: str | None, wanted_port: int | None) -> bool:
    return wanted_name in (None, name) and wanted_port in (None, port)


def _any(changes: Iterable[bool]) -> bool:
    """Whether one of the changes happened; all are made."""
    return any(list(changes))


def _change(message: Message, prepared: Prepared) -> Outcome:
    if prepared.patch.patch.operation == "REMOVE":
        return Outcome.REMOVED
    merge(prepared.value, message)
    return Outcome.CHANGED


def _find_chains(
    listener: listener_pb2.Listener, wanted: FilterChainMatch | None
) -> Iterator[listener_components_pb2.FilterChain]:
    for chain in listener.filter_chains:
        if _is_chain(chain, wanted):
            yield chain
    if listener.HasField("default_filter_chain") and _is_chain(listener.default_filter_chain, wanted):
        yield listener.default_filter_chain


def _is_chain(chain: listener_components_pb2.FilterChain, wanted: FilterChainMatch | None) -> bool:
    if wanted is None:
        return True
    has_filter = not (wanted.filter and wanted.filter.name) or any(
        each.name == wanted.filter.name for each in chain.filters
    )
    return wanted.name in (None, chain.name) and has_filter


def _patch_chains(listener: listener_pb2.Listener, wanted: FilterChainMatch | None, prepared: Prepared) -> bool:
    is_changed = _change_list(listener.filter_chains, lambda chain: _is_chain(chain, wanted), prepared)
    has_default = listener.HasField("default_filter_chain") and prepared.patch.patch.operation != "ADD"
    if has_default and _is_chain(listener.default_filter_chain, wanted):
        if _change(listener.default_filter_chain, prepared) is Outcome.REMOVED:
            listener.ClearField("default_filter_chain")
        return True
    return is_changed


def _patch_http(
    chain: listener_components_pb2.FilterChain, wanted: FilterChainMatch | None, prepared: Prepared
) -> bool:
    found = wanted.filter if wanted is not None else None
    chosen = found.sub_filter.name if found and found.sub_filter else None
    is_changed = False
    for each in chain.filters:
        manager = hcm_pb2.HttpConnectionManager()
        is_meant = (found is None or found.name in (None, each.name)) and each.typed_config.Unpack(manager)
        if is_meant and _change_list(manager.http_filters, _by_name(chosen), prepared):
            each.typed_config.CopyFrom(pack(manager))
            is_changed = True
    return is_changed


def _by_name(name: str | None) -> "Callable[[listener_components_pb2.Filter], bool]":
    return lambda each: name in (None, each.name)


def find_disorder(listener: listener_pb2.Listener) -> str:
    """What is wrong with the order of a listener's HTTP filters, which Envoy would refuse; empty if nothing is."""
    for chain in _find_chains(listener, None):
        for each in chain.filters:
            manager = hcm_pb2.HttpConnectionManager()
            if each.typed_config.Unpack(manager):
                routers = [one.typed_config.Is(router_pb2.Router.DESCRIPTOR) for one in manager.http_filters]
                if routers.count(True) != 1 or not routers[-1]:
                    return "the last of the HTTP filters, and no other, must be the router"
    return ""


def patch_routes(table: route_pb2.RouteConfiguration, port: int, prepared: Prepared) -> Outcome:
    """Patch the routes of a port, their virtual hosts, and the table itself."""
    patch, match = prepared.patch, prepared.patch.match.route_configuration
    if match is not None and not _is_named(table.name, port, match.name, match.port_number):
        return Outcome.UNTOUCHED
    wanted = match.vhost if match is not None else None
    match patch.apply_to:
        case "ROUTE_CONFIGURATION" if any(_is_host(each, wanted) for each in table.virtual_hosts):
            return _change(table, prepared)
        case "VIRTUAL_HOST":
            return _tell(_change_list(table.virtual_hosts, lambda each: _is_host(each, wanted), prepared))
        case "HTTP_ROUTE":
            route = wanted.route if wanted else None
            hosts = [each for each in table.virtual_hosts if _is_host(each, wanted)]
            return _tell(_any(_change_list(each.routes, lambda one: _is_route(one, route), prepared) for each in hosts))
        case _:
            return Outcome.UNTOUCHED


def find_twice(table: route_pb2.RouteConfiguration) -> str:
    """Which domain or name stands twice, which Envoy would refuse; empty if none does."""
    names = [each.name for each in table.virtual_hosts]
    domains = [domain.lower() for each in table.virtual_hosts for domain in each.domains]
    twice = next((each for values in (names, domains) for each in values if values.count(each) > 1), "")
    return f"two virtual hosts are for {twice}" if twice else ""


def _is_host(host: route_components_pb2.VirtualHost, wanted: VirtualHostMatch | None) -> bool:
    if wanted is None:
        return True
    return wanted.name in (None, host.name) and (wanted.domain_name is None or wanted.domain_name in host.domains)


def _is_route(route: route_components_pb2.Route, wanted: RouteMatch | None) -> bool:
    if wanted is None:
        return True
    is_action = wanted.action == "ANY" or route.HasField(_ACTIONS[wanted.action])
    return wanted.name in (None, route.name) and is_action


def patch_cluster(cluster: cluster_pb2.Cluster, target: Target, prepared: Prepared) -> Outcome:
    """Patch the cluster of a target."""
    match = prepared.patch.match.cluster
    if prepared.patch.apply_to != "CLUSTER" or prepared.patch.patch.operation == "ADD":
        return Outcome.UNTOUCHED
    if match is not None:
        is_meant = match.name in (None, cluster.name) and match.service in (None, target.host)
        is_meant &= match.port_number in (None, target.port) and match.subset in (None, target.subset)
        if not is_meant:
            return Outcome.UNTOUCHED
    return _change(cluster, prepared)


def _change_list(items: "list[Message]", is_chosen: "Callable[[Message], bool]", prepared: Prepared) -> bool:
    """Do an operation to a list of named messages; gives whether anything changed."""
    patch, value = prepared.patch, prepared.value
    chosen = [index for index, each in enumerate(items) if is_chosen(each)]
    operation = patch.patch.operation
    if operation == "ADD":
        items.append(value)
        return True
    if operation == "INSERT_FIRST" and (chosen or not patch.names_subject):
        items.insert(0, value)
        return True
    if operation in ("INSERT_BEFORE", "INSERT_AFTER"):
        if patch.names_subject and not chosen:
            return False
        after = operation == "INSERT_AFTER"
        place = chosen[0] + after if patch.names_subject else len(items) * after
        items.insert(place, value)
        return True
    for index in reversed(chosen):
        if operation == "REMOVE":
            del items[index]
        elif operation == "REPLACE":
            items[index].CopyFrom(value)
        else:
            merge(value, items[index])
    return bool(chosen) and operation != "INSERT_FIRST"
