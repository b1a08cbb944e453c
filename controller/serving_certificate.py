"""The certificate of the controller's own listener: short-lived, key only in memory, renewed while the server runs."""

import time
from collections.abc import Iterable
from datetime import timedelta

import grpc
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from controller.authority.certificate_authority import CertificateAuthority, read_clock

# As long as a workload's, and renewed at half of it, as those are.
LIFETIME = timedelta(hours=24)


class ServingCertificate:
    """Makes the listener's credentials; gRPC asks for them again at every handshake."""

    def __init__(self, authority: CertificateAuthority, names: Iterable[str]) -> None:
        self._authority = authority
        self._names = tuple(names)
        self._renew_at = 0.0

    def build_credentials(self) -> grpc.ServerCredentials:
        """Credentials that renew themselves."""
        return grpc.dynamic_ssl_server_credentials(self._issue(), self._fetch)  # type: ignore[arg-type]  # stubs forget that None is allowed

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC on a thread of its own, for each handshake; None keeps what there is."""
        return self._issue() if time.monotonic() >= self._renew_at else None

    def _issue(self) -> grpc.ServerCertificateConfiguration:
        key = ec.generate_private_key(ec.SECP256R1())
        chain = self._authority.sign_server(key.public_key(), self._names, LIFETIME, read_clock())
        self._renew_at = time.monotonic() + LIFETIME.total_seconds() / 2
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return grpc.ssl_server_certificate_configuration([(pem, chain.encode())])
