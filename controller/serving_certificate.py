"""The certificate of the controller's own listener: short-lived, key only in memory, renewed while the server runs."""

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from controller.authority.certificate_authority import CertificateAuthority, read_clock
from mesh.kit.errors import AmbitError

log = logging.getLogger(__name__)

# As long as a workload's, and renewed at half of it, as those are.
LIFETIME = timedelta(hours=24)
# So often it is looked at whether that is over: a clock that stood still while the machine slept makes it no later.
CHECK_SECONDS = 60.0


class ServingCertificate:
    """Makes what the listeners show."""

    def __init__(
        self, authority: CertificateAuthority, names: Iterable[str], note_expiry: Callable[[datetime], None]
    ) -> None:
        self._authority = authority
        self._note_expiry = note_expiry
        self._names = tuple(names)
        self._renew_at = 0.0

    async def renew(self, take: Callable[[tuple[bytes, bytes]], None], check_seconds: float = CHECK_SECONDS) -> None:
        """Give `take` a new key and chain whenever it is time. Endless; where none can be had, the last one stays."""
        while True:
            await asyncio.sleep(check_seconds)
            if time.monotonic() >= self._renew_at:
                try:
                    take(self.issue())
                except AmbitError as error:
                    log.warning("serving certificate cannot be renewed", extra={"reason": error.reason, "error": error})

    def build_context(self) -> ssl.SSLContext:
        """The same for a server of Python's: its certificate is looked at again at every handshake."""
        context = self._issue_context()
        current = [context]

        def renew(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            if time.monotonic() >= self._renew_at:
                current[0] = self._issue_context()
            connection.context = current[0]

        context.sni_callback = renew
        return context

    def _issue_context(self) -> ssl.SSLContext:
        key, chain = self.issue()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Python takes keys from files only; this one is in memory.
        descriptor = os.memfd_create("serving-certificate", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, key + chain)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        return context

    def issue(self) -> tuple[bytes, bytes]:
        """A new key and the chain of its certificate, in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        chain = self._authority.sign_server(key.public_key(), self._names, LIFETIME, read_clock())
        self._note_expiry(x509.load_pem_x509_certificate(chain.encode()).not_valid_after_utc)
        self._renew_at = time.monotonic() + LIFETIME.total_seconds() / 2
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return pem, chain.encode()
