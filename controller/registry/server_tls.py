"""How TLS ends at a port, beside the certificates: what clients must show, and which versions are spoken."""

from dataclasses import dataclass

from controller.kinds.server_tls import ServerTls
from controller.registry.names import Place


@dataclass(frozen=True, slots=True)
class ClientCertificates:
    """Clients are asked for a certificate that an authority of the Secret `authority` vouches for.

    Who has none is refused where it `is_required`. With `names`, one of them must be a subject alternative name.
    """

    authority: Place
    is_required: bool
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TlsTerms:
    """`least` and `greatest` are Istio's words; TLS_AUTO is what goes without saying, as are no `ciphers`."""

    least: str = "TLS_AUTO"
    greatest: str = "TLS_AUTO"
    ciphers: tuple[str, ...] = ()
    clients: ClientCertificates | None = None


DEFAULT_TERMS = TlsTerms()


def build_terms(tls: ServerTls, authority: Place | None) -> TlsTerms:
    """Those of a server; `authority` is the Secret with whom it believes, where clients are asked."""
    clients = None
    if tls.asks_clients and authority:
        clients = ClientCertificates(authority, tls.mode == "MUTUAL", tuple(tls.subject_alt_names or ()))
    ciphers = tuple(dict.fromkeys(tls.cipher_suites or ()))
    return TlsTerms(tls.min_protocol_version, tls.max_protocol_version, ciphers, clients)
