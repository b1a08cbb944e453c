"""How bytes go out to a cluster's endpoints: in TLS of the proxy's own, behind a PROXY header, or as they are."""

from collections.abc import Iterator, Sequence

from envoy.config.core.v3 import base_pb2, proxy_protocol_pb2
from envoy.extensions.transport_sockets.proxy_protocol.v3 import upstream_proxy_protocol_pb2
from envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2

from controller.kinds.hosts import is_ip
from controller.registry.backend_tls import BackendTls
from controller.registry.destinations import ClientTls, ClusterPolicy
from controller.translate.envoy import pack
from controller.translate.secrets import SYSTEM_ROOTS, TLS_PARAMETERS, TLS_SOCKET, build_client_context

_PROXY_HEADER = "envoy.transport_sockets.upstream_proxy_protocol"
_RAW = "envoy.transport_sockets.raw_buffer"
_HEADERS = {1: proxy_protocol_pb2.ProxyProtocolConfig.V1, 2: proxy_protocol_pb2.ProxyProtocolConfig.V2}


def translate_socket(
    policy: ClusterPolicy, host: str, names: Sequence[str], backend: BackendTls | None = None, *, speaks_http2: bool
) -> base_pb2.TransportSocket | None:
    """To a service called `host`, whose certificates may be for `names`; None where nothing is done to bytes.

    What a BackendTLSPolicy says goes before what DestinationRules say of TLS.
    """
    inner = None
    if backend:
        context = build_client_context(backend, "h2" if speaks_http2 else "http/1.1")
        inner = base_pb2.TransportSocket(name=TLS_SOCKET, typed_config=pack(context))
    elif policy.tls:
        context = _translate_tls(policy.tls, host, names, speaks_http2=speaks_http2)
        inner = base_pb2.TransportSocket(name=TLS_SOCKET, typed_config=pack(context))
    if not policy.proxy_header:
        return inner
    inner = inner or base_pb2.TransportSocket(name=_RAW, typed_config=pack(raw_buffer_pb2.RawBuffer()))
    header = upstream_proxy_protocol_pb2.ProxyProtocolUpstreamTransport(
        config={"version": _HEADERS[policy.proxy_header]}, transport_socket=inner
    )
    return base_pb2.TransportSocket(name=_PROXY_HEADER, typed_config=pack(header))


def _translate_tls(
    tls: ClientTls, host: str, names: Sequence[str], *, speaks_http2: bool
) -> tls_pb2.UpstreamTlsContext:
    """TLS 1.3 where the server has it: Envoy's own bound is 1.2."""
    sni = tls.sni or host
    context = tls_pb2.UpstreamTlsContext(sni=sni)
    common = context.common_tls_context
    common.tls_params.CopyFrom(TLS_PARAMETERS)
    if speaks_http2:
        common.alpn_protocols.append("h2")
    if tls.certificate:
        certificate = common.tls_certificates.add()
        certificate.certificate_chain.filename = tls.certificate
        certificate.private_key.filename = tls.key
    if tls.verifies:
        validation = common.validation_context
        validation.trusted_ca.filename = tls.roots or SYSTEM_ROOTS
        if tls.revoked:
            validation.crl.filename = tls.revoked
        validation.match_typed_subject_alt_names.extend(_translate_names(tls.names or names or (sni,)))
    return context


def _translate_names(names: Sequence[str]) -> Iterator[common_pb2.SubjectAltNameMatcher]:
    for name in names:
        kind = common_pb2.SubjectAltNameMatcher.DNS
        if "://" in name:
            kind = common_pb2.SubjectAltNameMatcher.URI
        elif is_ip(name):
            kind = common_pb2.SubjectAltNameMatcher.IP_ADDRESS
        yield common_pb2.SubjectAltNameMatcher(san_type=kind, matcher=string_pb2.StringMatcher(exact=name))
