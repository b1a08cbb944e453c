"""Where requests come in, to Envoy's Listener.

That is the ports of Gateways, what a sidecar captures of its application, and the names that gRPC's client asks for.
"""

from collections.abc import Sequence

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import api_listener_pb2, listener_components_pb2, listener_pb2
from envoy.extensions.access_loggers.stream.v3 import stream_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.listener.http_inspector.v3 import http_inspector_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from google.protobuf.message import Message

from controller.kinds.core import IpAddress
from controller.registry.http import Destination
from controller.registry.services import AppProtocol, ServicePort
from controller.translate.clusters import PASSTHROUGH
from controller.translate.envoy import build_address, build_ads_source, milliseconds, pack
from controller.translate.routes import CORS_FILTER, FAULT_FILTER, NOWHERE
from mesh import ports

# Envoy has no bound of its own on how long the headers of a request may take to come (facts of L7, 6.3).
HEADERS_MILLISECONDS = 10_000
# What the first bytes of a connection may turn out to be.
HTTP_PROTOCOLS = ("http/1.0", "http/1.1", "h2c")
# How long a client may say nothing before it is taken for one that waits for the server (Istio's older default).
INSPECT_MILLISECONDS = 5_000


def translate_gateway_port(
    name: str, port: int, policy_filters: Sequence[hcm_pb2.HttpFilter] = ()
) -> listener_pb2.Listener:
    """A port of a Gateway, on all addresses; its routes are told apart, under the same name."""
    filters = [build_gateway_requests(name, name, policy_filters)]
    return listener_pb2.Listener(name=name, address=build_address("::", port), filter_chains=[{"filters": filters}])


def build_gateway_requests(
    name: str, routes: str, policy_filters: Sequence[hcm_pb2.HttpFilter] = (), tells_client: bool = False
) -> listener_components_pb2.Filter:
    """What takes requests from outside; its routes are told apart, as `routes`.

    With `tells_client`, applications are told of the client's certificate (`x-forwarded-client-cert`, as by Istio).
    """
    manager = build_manager(name, routes, policy_filters)
    # Clients are strangers: nothing that they say of themselves is believed.
    manager.use_remote_address.value = True
    manager.internal_address_config.SetInParent()
    manager.request_headers_timeout.CopyFrom(milliseconds(HEADERS_MILLISECONDS))
    if tells_client:
        manager.forward_client_cert_details = hcm_pb2.HttpConnectionManager.SANITIZE_SET
        details = manager.set_current_client_cert_details
        details.subject.value, details.cert, details.uri, details.dns = True, True, True, True
    return name_manager(manager)


def translate_service_port(
    name: str, addresses: Sequence[IpAddress], port: ServicePort, destinations: Sequence[Destination], routes: str
) -> listener_pb2.Listener:
    """Connections to a service's port that a sidecar has captured: requests by their routes, others to `destinations`.

    Where nobody said what the port speaks, the first bytes do; a client that waits for the server's is TCP, in the end.
    """
    first, *others = (build_address(str(address), port.number) for address in addresses)
    requests = listener_components_pb2.FilterChain(filters=[name_manager(build_manager(name, routes))])
    bytes_ = listener_components_pb2.FilterChain(filters=[build_stream(name, destinations)])
    listener = listener_pb2.Listener(
        name=name,
        address=first,
        additional_addresses=[{"address": each} for each in others],
        bind_to_port={"value": False},
        traffic_direction=base_pb2.OUTBOUND,
    )
    match port.protocol:
        case AppProtocol.HTTP11 | AppProtocol.HTTP2 | AppProtocol.GRPC:
            listener.filter_chains.append(requests)
        case AppProtocol.TCP | AppProtocol.TLS:
            listener.filter_chains.append(bytes_)
        case AppProtocol.UNKNOWN:
            requests.filter_chain_match.application_protocols.extend(HTTP_PROTOCOLS)
            listener.filter_chains.append(requests)
            listener.default_filter_chain.CopyFrom(bytes_)
            inspector = "envoy.filters.listener.http_inspector"
            listener.listener_filters.add(name=inspector, typed_config=pack(http_inspector_pb2.HttpInspector()))
            listener.listener_filters_timeout.CopyFrom(milliseconds(INSPECT_MILLISECONDS))
            listener.continue_on_listener_filters_timeout = True
    return listener


def translate_outbound(name: str) -> listener_pb2.Listener:
    """Where a sidecar's redirect rules lead: each connection goes on to the listener of its destination, or through.

    Who connects to this port itself is going nowhere: passed through, such a connection would come back for ever.
    """
    port = ports.OUTBOUND_CAPTURE_PORT
    trap = {"filter_chain_match": {"destination_port": {"value": port}}, "filters": [build_tcp("trap", [(NOWHERE, 1)])]}
    return listener_pb2.Listener(
        name=name,
        address=build_address("::", port),
        use_original_dst={"value": True},
        filter_chains=[trap, {"filters": [build_tcp(name, [(PASSTHROUGH, 1)])]}],
        traffic_direction=base_pb2.OUTBOUND,
    )


def build_tcp(name: str, shares: Sequence[tuple[str, int]]) -> listener_components_pb2.Filter:
    """What sends connections on, to clusters by weight. One that leads nowhere closes them."""
    proxy = tcp_proxy_pb2.TcpProxy(stat_prefix=name, access_log=[_ACCESS_LOG])
    if len(shares) == 1:
        proxy.cluster = shares[0][0]
    for cluster, weight in shares if len(shares) > 1 else ():
        proxy.weighted_clusters.clusters.add(name=cluster, weight=weight)
    return listener_components_pb2.Filter(name="envoy.filters.network.tcp_proxy", typed_config=pack(proxy))


def build_stream(name: str, destinations: Sequence[Destination]) -> listener_components_pb2.Filter:
    """What sends connections on, to destinations by weight. The share of what leads nowhere is closed."""
    shares = [(each.target.cluster if each.target else NOWHERE, each.weight) for each in destinations]
    return build_tcp(name, [each for each in shares if each[1]] or [(NOWHERE, 1)])


def translate_api_listener(name: str, routes: str) -> listener_pb2.Listener:
    """What gRPC's client reads of `name`: where its routes are."""
    manager = hcm_pb2.HttpConnectionManager(
        rds={"config_source": build_ads_source(), "route_config_name": routes},
        http_filters=[_filter(FAULT_FILTER, fault_pb2.HTTPFault()), _ROUTER],
    )
    return listener_pb2.Listener(name=name, api_listener=api_listener_pb2.ApiListener(api_listener=pack(manager)))


def build_manager(
    name: str, routes: str, policy_filters: Sequence[hcm_pb2.HttpFilter] = ()
) -> hcm_pb2.HttpConnectionManager:
    """Requests, by the routes of that name, which are told apart; where it is empty, the caller adds them."""
    manager = hcm_pb2.HttpConnectionManager(
        stat_prefix=name,
        http_filters=[*policy_filters, *_FILTERS],
        # Routes and policies see the path that the application will.
        normalize_path={"value": True},
        upgrade_configs=[{"upgrade_type": "websocket"}],
        access_log=[_ACCESS_LOG],
    )
    if routes:
        manager.rds.config_source.CopyFrom(build_ads_source())
        manager.rds.route_config_name = routes
    return manager


def name_manager(manager: hcm_pb2.HttpConnectionManager) -> listener_components_pb2.Filter:
    """As a filter of a chain."""
    name = "envoy.filters.network.http_connection_manager"
    return listener_components_pb2.Filter(name=name, typed_config=pack(manager))


def _filter(name: str, message: Message) -> hcm_pb2.HttpFilter:
    return hcm_pb2.HttpFilter(name=name, typed_config=pack(message))


_ROUTER = _filter("envoy.filters.http.router", router_pb2.Router())
_FILTERS = (_filter(CORS_FILTER, cors_pb2.Cors()), _filter(FAULT_FILTER, fault_pb2.HTTPFault()), _ROUTER)
_ACCESS_LOG = accesslog_pb2.AccessLog(
    name="envoy.access_loggers.stdout", typed_config=pack(stream_pb2.StdoutAccessLog())
)
