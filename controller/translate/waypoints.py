"""Where a waypoint takes connections, to Envoy's Listener.

The ztunnel before it has ended the tunnel, and says in a PROXY header who the client is and which service it asked for.
So there is one listener, on loopback, and a filter chain for each port of each service.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from envoy.config.core.v3 import address_pb2, base_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.listener.http_inspector.v3 import http_inspector_pb2
from envoy.extensions.filters.listener.proxy_protocol.v3 import proxy_protocol_pb2

from controller.kinds.core import IpAddress
from controller.registry.http import Target
from controller.registry.services import AppProtocol, ServicePort
from controller.translate.envoy import build_address, milliseconds, pack
from controller.translate.listeners import (
    HTTP_PROTOCOLS,
    INSPECT_MILLISECONDS,
    build_manager,
    build_tcp,
    name_manager,
)
from mesh import ports

CLIENT_TLV = 0xD0
"""The type under which ztunnel's PROXY header has the client's identity (facts of ztunnel)."""
CLIENT_METADATA = "ambit.client"
CLIENT_KEY = "identity"
"""Where filters find it: Envoy's dynamic metadata."""
_LOOPBACK = ("127.0.0.1", "::1")
_REQUESTS = (AppProtocol.HTTP11, AppProtocol.HTTP2, AppProtocol.GRPC)
_PROXY_PROTOCOL = "envoy.filters.listener.proxy_protocol"
_HTTP_INSPECTOR = "envoy.filters.listener.http_inspector"


@dataclass(frozen=True, slots=True)
class WaypointPort:
    """A port of a service that is reached through a waypoint, where it leads, and the name of its routes."""

    addresses: Sequence[IpAddress]
    port: ServicePort
    target: Target
    routes: str


def translate_waypoint(name: str, served: Sequence[WaypointPort]) -> listener_pb2.Listener:
    """All that a waypoint serves. What is addressed to anything else ends here."""
    first, *others = (build_address(each, ports.WAYPOINT_PORT) for each in _LOOPBACK)
    listener = listener_pb2.Listener(
        name=name,
        address=first,
        additional_addresses=[{"address": each} for each in others],
        listener_filters=[{"name": _PROXY_PROTOCOL, "typed_config": pack(_build_header())}],
        filter_chains=[chain for each in _in_order(served) for chain in _build_chains(each)],
        traffic_direction=base_pb2.INBOUND,
    )
    if inspected := sorted({each.port.number for each in served if each.port.protocol is AppProtocol.UNKNOWN}):
        listener.listener_filters.append(_build_inspector(inspected))
        listener.listener_filters_timeout.CopyFrom(milliseconds(INSPECT_MILLISECONDS))
        listener.continue_on_listener_filters_timeout = True
    return listener


def _in_order(served: Sequence[WaypointPort]) -> list[WaypointPort]:
    return sorted(served, key=lambda each: each.target)


def _build_chains(served: WaypointPort) -> Iterator[listener_components_pb2.FilterChain]:
    name = f"{served.target.host}:{served.target.port}"
    protocol = served.port.protocol
    if protocol in _REQUESTS or protocol is AppProtocol.UNKNOWN:
        match = _build_match(served)
        if protocol is AppProtocol.UNKNOWN:
            match.application_protocols.extend(HTTP_PROTOCOLS)
        filters = [name_manager(build_manager(name, served.routes))]
        yield listener_components_pb2.FilterChain(name=f"{name}/requests", filter_chain_match=match, filters=filters)
    if protocol not in _REQUESTS:
        filters = [build_tcp(name, served.target.cluster)]
        yield listener_components_pb2.FilterChain(
            name=f"{name}/bytes", filter_chain_match=_build_match(served), filters=filters
        )


def _build_match(served: WaypointPort) -> listener_components_pb2.FilterChainMatch:
    return listener_components_pb2.FilterChainMatch(
        destination_port={"value": served.port.number},
        prefix_ranges=[
            address_pb2.CidrRange(address_prefix=str(each), prefix_len={"value": each.max_prefixlen})
            for each in served.addresses
        ],
    )


def _build_header() -> proxy_protocol_pb2.ProxyProtocol:
    rule = proxy_protocol_pb2.ProxyProtocol.Rule(
        tlv_type=CLIENT_TLV, on_tlv_present={"metadata_namespace": CLIENT_METADATA, "key": CLIENT_KEY}
    )
    return proxy_protocol_pb2.ProxyProtocol(rules=[rule])


def _build_inspector(inspected: Sequence[int]) -> listener_components_pb2.ListenerFilter:
    """For these ports only: elsewhere a client may wait for the server's first bytes."""
    ranges = [{"destination_port_range": {"start": port, "end": port + 1}} for port in inspected]
    one_of = ranges[0] if len(ranges) == 1 else {"or_match": {"rules": ranges}}
    return listener_components_pb2.ListenerFilter(
        name=_HTTP_INSPECTOR,
        typed_config=pack(http_inspector_pb2.HttpInspector()),
        filter_disabled={"not_match": one_of},
    )
