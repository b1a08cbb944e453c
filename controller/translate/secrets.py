"""Certificates to Envoy's Secret, and TLS to its contexts, of who accepts and of who connects."""

from collections.abc import Iterable

from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2

from controller.kinds.secrets import Secret
from controller.registry.backend_tls import BackendTls
from controller.registry.names import name_authority
from controller.registry.server_tls import DEFAULT_TERMS, TlsTerms
from controller.translate.envoy import build_ads_source

# RFC 8996: the versions before are not to be used. Envoy's own maximum for clients is 1.2 (facts of L7, 2.11).
TLS_PARAMETERS = common_pb2.TlsParameters(
    tls_minimum_protocol_version=common_pb2.TlsParameters.TLSv1_2,
    tls_maximum_protocol_version=common_pb2.TlsParameters.TLSv1_3,
)
TLS_SOCKET = "envoy.transport_sockets.tls"
SYSTEM_ROOTS = "/etc/ssl/certs/ca-certificates.crt"
"""Where Debian's ca-certificates puts the roots that a machine believes."""
# No certificate has this digest: who would be verified by it is not believed.
_NOBODYS_DIGEST = "00" * 32
REQUESTS_ALPN = ("h2", "http/1.1")
_VERSIONS = {
    "TLS_AUTO": common_pb2.TlsParameters.TLS_AUTO,
    "TLSV1_0": common_pb2.TlsParameters.TLSv1_0,
    "TLSV1_1": common_pb2.TlsParameters.TLSv1_1,
    "TLSV1_2": common_pb2.TlsParameters.TLSv1_2,
    "TLSV1_3": common_pb2.TlsParameters.TLSv1_3,
}
_SAN_TYPES = (
    common_pb2.SubjectAltNameMatcher.DNS,
    common_pb2.SubjectAltNameMatcher.URI,
    common_pb2.SubjectAltNameMatcher.EMAIL,
    common_pb2.SubjectAltNameMatcher.IP_ADDRESS,
)


def translate_secret(name: str, secret: Secret) -> secret_pb2.Secret:
    """A certificate with its key. Only for who may have it: see decision 0012."""
    pair = common_pb2.TlsCertificate(
        certificate_chain={"inline_string": secret.certificate}, private_key={"inline_string": secret.private_key}
    )
    return secret_pb2.Secret(name=name, tls_certificate=pair)


def translate_authority(name: str, secret: Secret) -> secret_pb2.Secret:
    """Whose certificates of clients are believed."""
    context = common_pb2.CertificateValidationContext(trusted_ca={"inline_string": secret.authorities})
    if secret.revocations:
        context.crl.inline_string = secret.revocations
    return secret_pb2.Secret(name=name, validation_context=context)


def build_server_context(
    secrets: Iterable[str], alpn: Iterable[str], terms: TlsTerms = DEFAULT_TERMS
) -> tls_pb2.DownstreamTlsContext:
    """TLS that ends here, with the certificate of these that the client's server name asks for."""
    context = tls_pb2.DownstreamTlsContext(
        common_tls_context={
            "tls_params": _build_parameters(terms),
            "tls_certificate_sds_secret_configs": [
                {"name": name, "sds_config": build_ads_source()} for name in secrets
            ],
            "alpn_protocols": alpn,
        }
    )
    if terms.clients:
        context.require_client_certificate.value = terms.clients.is_required
        combined = context.common_tls_context.combined_validation_context
        combined.validation_context_sds_secret_config.name = name_authority(*terms.clients.authority)
        combined.validation_context_sds_secret_config.sds_config.CopyFrom(build_ads_source())
        combined.default_validation_context.SetInParent()
        for name in terms.clients.names:
            for san_type in _SAN_TYPES:
                matcher = combined.default_validation_context.match_typed_subject_alt_names
                matcher.add(san_type=san_type, matcher={"exact": name})
    return context


def _build_parameters(terms: TlsTerms) -> common_pb2.TlsParameters:
    """What goes without saying is as for everybody; a server may ask for an older version, as Istio's may."""
    built = common_pb2.TlsParameters(cipher_suites=terms.ciphers)
    least, greatest = (_VERSIONS[each] for each in (terms.least, terms.greatest))
    built.tls_maximum_protocol_version = greatest or TLS_PARAMETERS.tls_maximum_protocol_version
    default = min(TLS_PARAMETERS.tls_minimum_protocol_version, built.tls_maximum_protocol_version)
    built.tls_minimum_protocol_version = least or default
    return built


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
