"""Where requests come in, to Envoy's Listener: the ports of Gateways, and the names that gRPC's client asks for."""

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.listener.v3 import api_listener_pb2, listener_components_pb2, listener_pb2
from envoy.extensions.access_loggers.stream.v3 import stream_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from google.protobuf.message import Message

from controller.translate.envoy import build_address, build_ads_source, milliseconds, pack
from controller.translate.routes import CORS_FILTER, FAULT_FILTER

# Envoy has no bound of its own on how long the headers of a request may take to come (facts of L7, 6.3).
HEADERS_MILLISECONDS = 10_000


def translate_gateway_port(name: str, port: int) -> listener_pb2.Listener:
    """A port of a Gateway, on all addresses; its routes are told apart, under the same name."""
    manager = _build_manager(name)
    # Clients are strangers: nothing that they say of themselves is believed.
    manager.use_remote_address.value = True
    manager.internal_address_config.SetInParent()
    manager.request_headers_timeout.CopyFrom(milliseconds(HEADERS_MILLISECONDS))
    return listener_pb2.Listener(
        name=name, address=build_address("::", port), filter_chains=[{"filters": [_name_manager(manager)]}]
    )


def translate_api_listener(name: str, routes: str) -> listener_pb2.Listener:
    """What gRPC's client reads of `name`: where its routes are."""
    manager = hcm_pb2.HttpConnectionManager(
        rds={"config_source": build_ads_source(), "route_config_name": routes},
        http_filters=[_filter(FAULT_FILTER, fault_pb2.HTTPFault()), _ROUTER],
    )
    return listener_pb2.Listener(name=name, api_listener=api_listener_pb2.ApiListener(api_listener=pack(manager)))


def _build_manager(name: str) -> hcm_pb2.HttpConnectionManager:
    return hcm_pb2.HttpConnectionManager(
        stat_prefix=name,
        rds={"config_source": build_ads_source(), "route_config_name": name},
        http_filters=[
            _filter(CORS_FILTER, cors_pb2.Cors()),
            _filter(FAULT_FILTER, fault_pb2.HTTPFault()),
            _ROUTER,
        ],
        # Routes and policies see the path that the application will.
        normalize_path={"value": True},
        upgrade_configs=[{"upgrade_type": "websocket"}],
        access_log=[_ACCESS_LOG],
    )


def _name_manager(manager: hcm_pb2.HttpConnectionManager) -> listener_components_pb2.Filter:
    name = "envoy.filters.network.http_connection_manager"
    return listener_components_pb2.Filter(name=name, typed_config=pack(manager))


def _filter(name: str, message: Message) -> hcm_pb2.HttpFilter:
    return hcm_pb2.HttpFilter(name=name, typed_config=pack(message))


_ROUTER = _filter("envoy.filters.http.router", router_pb2.Router())
_ACCESS_LOG = accesslog_pb2.AccessLog(
    name="envoy.access_loggers.stdout", typed_config=pack(stream_pb2.StdoutAccessLog())
)
