"""How a server of Istio's Gateway ends TLS, or that it does not.

Modes and fields are Istio's (`ServerTLSSettings`). Certificates come from Secrets of the proxies' namespace.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from controller.kinds.meta import StrictModel, check_subdomain
from controller.kinds.refusals import Unsupported

TLS_PROTOCOLS = ("HTTPS", "TLS")
Mode = Literal["PASSTHROUGH", "SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL"]
_WITHOUT_US = {
    "AUTO_PASSTHROUGH": "it leads to any service of the mesh, by names of Istio's: write PASSTHROUGH, and tls rules",
    "ISTIO_MUTUAL": "Envoys have no certificates of the mesh: write MUTUAL, with a credentialName",
}
TlsVersion = Literal["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"]
_VERSIONS: tuple[TlsVersion, ...] = get_args(TlsVersion)
# Those that Istio takes and the Envoy of today has (BoringSSL); TLS 1.3 has its own, which nobody chooses.
CIPHER_SUITES = (
    *("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
    *("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384"),
    *("ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"),
    *("ECDHE-ECDSA-AES128-SHA", "ECDHE-RSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA", "ECDHE-RSA-AES256-SHA"),
    *("AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-SHA", "AES256-SHA"),
)
# An RSA certificate and an ECDSA one (Istio's bound).
_MOST_CREDENTIALS = 2


def _check_mode(value: object) -> object:
    if isinstance(value, str) and (reason := _WITHOUT_US.get(value)):
        raise PydanticCustomError("unsupported", "is not carried out: {reason}", {"reason": reason})
    return value


def _check_cipher(value: str) -> str:
    if value not in CIPHER_SUITES:
        known = ", ".join(CIPHER_SUITES)
        raise PydanticCustomError("cipher_suite", "is none of {known}", {"known": known})
    return value


def _check_credential(value: str) -> str:
    if ":" in value or "/" in value:
        raise PydanticCustomError("invalid_name", "is the name of a Secret in the namespace of the proxies, alone")
    return check_subdomain(value)


CredentialName = Annotated[str, AfterValidator(_check_credential)]
"""The name of a Secret in the namespace of the proxies."""


class ServerTls(StrictModel):
    """What a server does with TLS; of one without TLS, whether it sends its clients to https."""

    https_redirect: bool | None = None
    mode: Annotated[Mode, BeforeValidator(_check_mode)] = "PASSTHROUGH"
    credential_name: CredentialName | None = None
    credential_names: Annotated[Sequence[CredentialName], Field(max_length=_MOST_CREDENTIALS)] | None = None
    subject_alt_names: Sequence[Annotated[str, Field(min_length=1)]] | None = None
    min_protocol_version: TlsVersion = "TLS_AUTO"
    max_protocol_version: TlsVersion = "TLS_AUTO"
    cipher_suites: Sequence[Annotated[str, AfterValidator(_check_cipher)]] | None = None
    server_certificate: Unsupported = None
    private_key: Unsupported = None
    ca_certificates: Unsupported = None
    ca_crl: Unsupported = None
    ca_cert_credential_name: Unsupported = None
    tls_certificates: Unsupported = None
    verify_certificate_spki: Unsupported = None
    verify_certificate_hash: Unsupported = None

    @property
    def credentials(self) -> tuple[str, ...]:
        """The Secrets with its certificates."""
        return (self.credential_name,) if self.credential_name else tuple(self.credential_names or ())

    @property
    def passes_through(self) -> bool:
        """Whether TLS is left to the backends."""
        return self.mode == "PASSTHROUGH"

    @property
    def asks_clients(self) -> bool:
        """Whether clients are asked for a certificate."""
        return self.mode in ("MUTUAL", "OPTIONAL_MUTUAL")

    @property
    def says_how_it_ends(self) -> bool:
        """Whether it says with what TLS ends, or how."""
        versions = {self.min_protocol_version, self.max_protocol_version}
        return bool(self.credentials or self.subject_alt_names or self.cipher_suites or versions != {"TLS_AUTO"})

    def check_mode(self) -> None:
        """Raise PydanticCustomError where its fields are not for its mode."""
        if self.passes_through:
            if self.says_how_it_ends:
                message = "mode PASSTHROUGH, which goes without saying, leaves TLS to the backends: write another mode"
                raise PydanticCustomError("combination", f"{message}, or take the rest of tls out")
            return
        if bool(self.credential_name) == bool(self.credential_names):
            message = f"mode {self.mode} needs credentialName, or else credentialNames"
            raise PydanticCustomError("combination", message)
        if self.subject_alt_names and not self.asks_clients:
            raise PydanticCustomError("combination", "subjectAltNames are of clients: modes MUTUAL and OPTIONAL_MUTUAL")
        least, greatest = (_VERSIONS.index(each) for each in (self.min_protocol_version, self.max_protocol_version))
        if greatest and least > greatest:
            raise PydanticCustomError("combination", "minProtocolVersion is above maxProtocolVersion")
