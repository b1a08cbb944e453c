"""Where a waypoint takes connections, to Envoy's Listener.

The ztunnel before it has ended the tunnel, and says in a PROXY header who the client is and which service it asked for.
So there is one listener, on loopback, and a filter chain for each port of each service.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import address_pb2, base_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.common.set_filter_state.v3 import value_pb2
from envoy.extensions.filters.listener.http_inspector.v3 import http_inspector_pb2
from envoy.extensions.filters.listener.proxy_protocol.v3 import proxy_protocol_pb2
from envoy.extensions.filters.network.set_filter_state.v3 import set_filter_state_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from controller.registry.http import Destination
from controller.registry.request_policies import RequestPolicies
from controller.registry.services import AppProtocol
from controller.translate.clusters import CONNECT_MILLISECONDS, HTTP_OPTIONS
from controller.translate.envoy import build_address, milliseconds, pack
from controller.translate.listeners import (
    HTTP_PROTOCOLS,
    INSPECT_MILLISECONDS,
    build_manager,
    build_stream,
    build_tcp,
    name_manager,
)
from controller.translate.policy_filters import build_byte_filters, build_policy_filters
from controller.translate.rbac import ClientIdentity
from mesh import ports

CLIENT_TLV = 0xD0
"""The type under which ztunnel's PROXY header has the client's identity (facts of ztunnel)."""
CLIENT_METADATA = "ambit.client"
CLIENT_KEY = "identity"
"""Where Envoy's listener filter puts it: dynamic metadata."""
CLIENT_STATE = "ambit.client.identity"
"""Where policies find it: filter state, which a connection's requests share."""
_CLIENT = ClientIdentity(filter_state=CLIENT_STATE)
_LOOPBACK = ("127.0.0.1", "::1")
_REQUESTS = (AppProtocol.HTTP11, AppProtocol.HTTP2, AppProtocol.GRPC)
_PROXY_PROTOCOL = "envoy.filters.listener.proxy_protocol"
_HTTP_INSPECTOR = "envoy.filters.listener.http_inspector"


@dataclass(frozen=True, slots=True)
class WaypointPort:
    """A port of a service that is reached through a waypoint, on these addresses, and the cluster that it leads to.

    Where there are no routes, all requests go there; and all other bytes, where there are no destinations for them.
    """

    name: str
    ranges: Sequence[IPv4Network | IPv6Network]
    number: int
    protocol: AppProtocol
    cluster: str
    policies: RequestPolicies
    routes: str = ""
    destinations: Sequence[Destination] = ()


@dataclass(frozen=True, slots=True)
class Others:
    """What is addressed to no service of the waypoint's: the cluster that it goes to."""

    cluster: str
    policies: RequestPolicies


def translate_waypoint(
    name: str, served: Sequence[WaypointPort], others: Others | None = None
) -> listener_pb2.Listener:
    """All that a waypoint serves. Without `others`, what is addressed to anything else ends here."""
    first, *more = (build_address(each, ports.WAYPOINT_PORT) for each in _LOOPBACK)
    listener = listener_pb2.Listener(
        name=name,
        address=first,
        additional_addresses=[{"address": each} for each in more],
        listener_filters=[{"name": _PROXY_PROTOCOL, "typed_config": pack(_build_header())}],
        filter_chains=[chain for each in sorted(served, key=_name_of) for chain in _build_chains(each)],
        traffic_direction=base_pb2.INBOUND,
    )
    inspected = {each.number for each in served if each.protocol is AppProtocol.UNKNOWN}
    if others:
        # A chain for a port that is some service's is all that Envoy looks at of connections to this port.
        for number in (0, *sorted({each.number for each in served})):
            listener.filter_chains.extend(_build_others(others, number))
    if inspected or others:
        listener.listener_filters.append(_build_inspector(() if others else sorted(inspected)))
        listener.listener_filters_timeout.CopyFrom(milliseconds(INSPECT_MILLISECONDS))
        listener.continue_on_listener_filters_timeout = True
    return listener


def build_direct(name: str) -> cluster_pb2.Cluster:
    """Wherever a connection was addressed to, by the protocol that its client speaks."""
    built = cluster_pb2.Cluster(
        name=name,
        type=cluster_pb2.Cluster.ORIGINAL_DST,
        lb_policy=cluster_pb2.Cluster.CLUSTER_PROVIDED,
        connect_timeout=milliseconds(CONNECT_MILLISECONDS),
    )
    options = http_protocol_options_pb2.HttpProtocolOptions()
    options.use_downstream_protocol_config.http2_protocol_options.SetInParent()
    built.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(pack(options))
    return built


def _name_of(served: WaypointPort) -> str:
    return served.name


def _build_chains(served: WaypointPort) -> Iterator[listener_components_pb2.FilterChain]:
    if served.protocol in _REQUESTS or served.protocol is AppProtocol.UNKNOWN:
        match = _build_match(served)
        if served.protocol is AppProtocol.UNKNOWN:
            match.application_protocols.extend(HTTP_PROTOCOLS)
        yield _build_requests(served, served.name, match, served.routes)
    if served.protocol not in _REQUESTS:
        yield _build_bytes(served, served.name, _build_match(served), served.destinations)


def _build_others(others: Others, number: int) -> Iterator[listener_components_pb2.FilterChain]:
    """For what is addressed to no service, on a port that is some service's, or on all others (0)."""
    name = f"others:{number}" if number else "others"
    port = {"value": number} if number else None
    requests = listener_components_pb2.FilterChainMatch(
        destination_port=port, application_protocols=list(HTTP_PROTOCOLS)
    )
    yield _build_requests(others, name, requests)
    yield _build_bytes(others, name, listener_components_pb2.FilterChainMatch(destination_port=port))


def _build_requests(
    served: WaypointPort | Others, name: str, match: listener_components_pb2.FilterChainMatch, routes: str = ""
) -> listener_components_pb2.FilterChain:
    manager = build_manager(name, routes, build_policy_filters(served.policies, _CLIENT))
    if not routes:
        host = {
            "name": "all",
            "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": served.cluster, "timeout": {}}}],
        }
        manager.route_config.CopyFrom(route_pb2.RouteConfiguration(name=name, virtual_hosts=[host]))
    return listener_components_pb2.FilterChain(
        name=f"{name}/requests",
        filter_chain_match=match,
        filters=[*_name_client(served.policies), name_manager(manager)],
    )


def _build_bytes(
    served: WaypointPort | Others,
    name: str,
    match: listener_components_pb2.FilterChainMatch,
    destinations: Sequence[Destination] = (),
) -> listener_components_pb2.FilterChain:
    checks = build_byte_filters(served.policies, _CLIENT)
    proxy = build_stream(name, destinations) if destinations else build_tcp(name, [(served.cluster, 1)])
    filters = [*_name_client(served.policies), *checks, proxy]
    return listener_components_pb2.FilterChain(name=f"{name}/bytes", filter_chain_match=match, filters=filters)


def _name_client(policies: RequestPolicies) -> Iterator[listener_components_pb2.Filter]:
    """Puts the client's identity where policies find it. One that has none has no such entry."""
    if policies.authorizations:
        text = {"inline_string": f"%DYNAMIC_METADATA({CLIENT_METADATA}:{CLIENT_KEY})%"}
        value = value_pb2.FilterStateValue(
            object_key=CLIENT_STATE,
            factory_key="envoy.string",
            format_string={"text_format_source": text, "omit_empty_values": True},
            skip_if_empty=True,
        )
        config = set_filter_state_pb2.Config(on_new_connection=[value])
        yield listener_components_pb2.Filter(name="envoy.filters.network.set_filter_state", typed_config=pack(config))


def _build_match(served: WaypointPort) -> listener_components_pb2.FilterChainMatch:
    return listener_components_pb2.FilterChainMatch(
        destination_port={"value": served.number},
        prefix_ranges=[
            address_pb2.CidrRange(address_prefix=str(each.network_address), prefix_len={"value": each.prefixlen})
            for each in served.ranges
        ],
    )


def _build_header() -> proxy_protocol_pb2.ProxyProtocol:
    rule = proxy_protocol_pb2.ProxyProtocol.Rule(
        tlv_type=CLIENT_TLV, on_tlv_present={"metadata_namespace": CLIENT_METADATA, "key": CLIENT_KEY}
    )
    return proxy_protocol_pb2.ProxyProtocol(rules=[rule])


def _build_inspector(inspected: Sequence[int]) -> listener_components_pb2.ListenerFilter:
    """For these ports only, where there are any: elsewhere a client may wait for the server's first bytes."""
    inspector = listener_components_pb2.ListenerFilter(
        name=_HTTP_INSPECTOR, typed_config=pack(http_inspector_pb2.HttpInspector())
    )
    if not inspected:
        return inspector
    ranges = [{"destination_port_range": {"start": port, "end": port + 1}} for port in inspected]
    one_of = ranges[0] if len(ranges) == 1 else {"or_match": {"rules": ranges}}
    inspector.filter_disabled.CopyFrom(listener_components_pb2.ListenerFilterChainMatchPredicate(not_match=one_of))
    return inspector
