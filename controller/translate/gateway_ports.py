"""A Gateway's ports to Envoy's Listener: plaintext requests, TLS by the server's name, or connections as they are."""

from collections.abc import Callable, Sequence

from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2

from controller.registry.gateways import ANY_HOST, Chain, RequestChain, StreamChain
from controller.registry.names import name_secret
from controller.registry.request_policies import NO_POLICIES, RequestPolicies
from controller.translate.envoy import build_address, pack
from controller.translate.listeners import build_gateway_requests, build_stream, build_tcp, translate_gateway_port
from controller.translate.policy_filters import build_byte_filters, build_policy_filters
from controller.translate.routes import NOWHERE
from controller.translate.secrets import REQUESTS_ALPN, TLS_SOCKET, build_server_context

_TLS = "tls"

NameRoutes = Callable[[RequestChain], str]
"""The resource name of a chain's routes."""


def translate_chains(
    name: str, port: int, chains: Sequence[Chain], name_routes: NameRoutes, policies: RequestPolicies = NO_POLICIES
) -> listener_pb2.Listener:
    """A port of a Gateway, on all addresses. What none of its chains is for is closed."""
    first = chains[0]
    if isinstance(first, RequestChain) and first.secrets is None:
        return translate_gateway_port(name, port, build_policy_filters(policies))
    built = listener_pb2.Listener(
        name=name,
        address=build_address("::", port),
        filter_chains=[_translate_chain(name, each, name_routes, policies) for each in chains],
    )
    if any(_names_server(each) for each in chains):
        inspector = tls_inspector_pb2.TlsInspector()
        built.listener_filters.add(name="envoy.filters.listener.tls_inspector", typed_config=pack(inspector))
    return built


def _names_server(chain: Chain) -> bool:
    return isinstance(chain, RequestChain) or chain.names_server


def _translate_chain(
    name: str, chain: Chain, name_routes: NameRoutes, policies: RequestPolicies
) -> listener_components_pb2.FilterChain:
    built = listener_components_pb2.FilterChain()
    if _names_server(chain):
        built.filter_chain_match.transport_protocol = _TLS
        built.filter_chain_match.server_names.extend(each for each in chain.names if each != ANY_HOST)
    if chain.secrets == ():
        # Without a certificate: left out, such clients would fall to a chain for more hosts, and be served there.
        built.filters.append(build_tcp(name, [(NOWHERE, 1)]))
        return built
    if isinstance(chain, StreamChain):
        built.filters.extend([*build_byte_filters(policies), build_stream(name, chain.destinations)])
    else:
        filters = build_policy_filters(policies)
        tells_client = chain.terms.clients is not None
        built.filters.append(build_gateway_requests(name, name_routes(chain), filters, tells_client))
    if chain.secrets:
        alpn = REQUESTS_ALPN if isinstance(chain, RequestChain) else ()
        context = build_server_context([name_secret(*place) for place in chain.secrets], alpn, chain.terms)
        built.transport_socket.name = TLS_SOCKET
        built.transport_socket.typed_config.CopyFrom(pack(context))
    return built
