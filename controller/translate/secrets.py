"""Certificates to Envoy's Secret, and TLS to its contexts, of who accepts and of who connects."""

from collections.abc import Iterable

from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2

from controller.kinds.secrets import Secret
from controller.registry.backend_tls import BackendTls
from controller.translate.envoy import build_ads_source

# RFC 8996: the versions before are not to be used. Envoy's own maximum for clients is 1.2 (facts of L7, 2.11).
TLS_PARAMETERS = common_pb2.TlsParameters(
    tls_minimum_protocol_version=common_pb2.TlsParameters.TLSv1_2,
    tls_maximum_protocol_version=common_pb2.TlsParameters.TLSv1_3,
)
TLS_SOCKET = "envoy.transport_sockets.tls"
# No certificate has this digest: who would be verified by it is not believed.
_NOBODYS_DIGEST = "00" * 32
REQUESTS_ALPN = ("h2", "http/1.1")


def translate_secret(name: str, secret: Secret) -> secret_pb2.Secret:
    """A certificate with its key. Only for who may have it: see decision 0012."""
    pair = common_pb2.TlsCertificate(
        certificate_chain={"inline_string": secret.certificate}, private_key={"inline_string": secret.private_key}
    )
    return secret_pb2.Secret(name=name, tls_certificate=pair)


SYSTEM_ROOTS = "/etc/ssl/certs/ca-certificates.crt"
"""Where Debian's ca-certificates puts the roots that a machine believes."""


def build_server_context(secrets: Iterable[str], alpn: Iterable[str]) -> tls_pb2.DownstreamTlsContext:
    """TLS that ends here, with the certificate of these that the client's server name asks for."""
    return tls_pb2.DownstreamTlsContext(
        common_tls_context={
            "tls_params": TLS_PARAMETERS,
            "tls_certificate_sds_secret_configs": [
                {"name": name, "sds_config": build_ads_source()} for name in secrets
            ],
            "alpn_protocols": alpn,
        }
    )


def build_client_context(tls: BackendTls, alpn: str) -> tls_pb2.UpstreamTlsContext:
    """TLS that is spoken to a backend, with whoever one of its authorities vouches for by one of its names."""
    common = tls_pb2.CommonTlsContext(tls_params=TLS_PARAMETERS, alpn_protocols=[alpn])
    validation = common.validation_context
    believes = bool(tls.authorities or tls.trusts_system)
    if tls.trusts_system:
        validation.trusted_ca.filename = SYSTEM_ROOTS
    elif tls.authorities:
        validation.trusted_ca.inline_string = tls.authorities
    else:
        validation.verify_certificate_hash.append(_NOBODYS_DIGEST)
    kind = common_pb2.SubjectAltNameMatcher
    for san_type, values in ((kind.DNS, tls.hosts), (kind.URI, tls.uris)) if believes else ():
        for value in values:
            validation.match_typed_subject_alt_names.add(san_type=san_type, matcher={"exact": value})
    return tls_pb2.UpstreamTlsContext(sni=tls.server_name, common_tls_context=common)
