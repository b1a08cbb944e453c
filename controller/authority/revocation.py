"""Revocation lists: which certificates the authority has taken back, in a file beside it (RFC 5280, section 5).

The file is `ca-crl.pem` (Istio's name: facts of the control plane, section 8), in PEM or DER. A list that bears the
name of what signs here, or of what stands above it, must be signed by it. One of somebody else is handed out with a
warning: it may be of the intermediate that signed here before, and whoever gets it judges it again. The controller
enforces nothing itself: ztunnels do, and nothing but them has certificates of the mesh.

Nothing fails open: a file that cannot be used ends the start; one that becomes unusable or vanishes leaves what was
read before, which goes on being handed out.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from controller.authority.certificate_authority import Signer
from mesh.kit.errors import FatalError

log = logging.getLogger(__name__)

REVOCATION_FILE = "ca-crl.pem"
# ztunnel's bound: some 500,000 certificates.
MAX_FILE_BYTES = 32 << 20
LOOK_SECONDS = 2.0
_PEM = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)


class InvalidRevocationError(FatalError):
    """A file of revocation lists cannot be used; the message names it, and what to do."""

    reason = "invalid_revocation_list"


@dataclass(frozen=True, slots=True)
class RevocationLists:
    """What a file holds. `next_update` is when the first of its lists should be replaced; None where none says so."""

    lists: Sequence[x509.CertificateRevocationList] = ()

    @property
    def pem(self) -> str:
        return "".join(each.public_bytes(Encoding.PEM).decode() for each in self.lists)

    @property
    def next_update(self) -> datetime | None:
        return min((each.next_update_utc for each in self.lists if each.next_update_utc), default=None)

    @property
    def revoked_count(self) -> int:
        return sum(len(each) for each in self.lists)


def read_revocations(path: Path, signer: Signer) -> RevocationLists | None:
    """The lists of a file; None where there is no file. Raises InvalidRevocationError."""
    content = _read(path)
    return None if content is None else parse_revocations(path, content, signer)


def parse_revocations(path: Path, content: bytes, signer: Signer) -> RevocationLists:
    """The lists in a file's content. Raises InvalidRevocationError."""
    if len(content) > MAX_FILE_BYTES:
        raise InvalidRevocationError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
    blocks = _PEM.findall(content)
    try:
        lists = [x509.load_pem_x509_crl(each) for each in blocks] or [x509.load_der_x509_crl(content)]
    except (ValueError, TypeError) as error:
        raise InvalidRevocationError(f"{path} holds no revocation lists in PEM or DER: replace it") from error
    for each in lists:
        named = [issuer for issuer in list_issuers(signer) if issuer.subject == each.issuer]
        if named and not any(is_signed(each, issuer) for issuer in named):
            raise InvalidRevocationError(
                f"{path} has a list of {each.issuer.rfc4514_string()!r} that is not signed by it: take it out"
            )
        if not named:
            log.warning(
                "revocation list of an issuer that is not known here: it counts only where its issuer is known",
                extra={"path": path, "issuer": each.issuer.rfc4514_string()},
            )
    return RevocationLists(lists)


def list_issuers(signer: Signer) -> list[x509.Certificate]:
    """Whose lists count: what signs, and all that stands above it."""
    above = "".join((*signer.intermediates, signer.bundle))
    return [signer.certificate, *x509.load_pem_x509_certificates(above.encode())]


def is_signed(found: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    """Whether a list is of this issuer."""
    key = issuer.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
        return False
    if found.issuer != issuer.subject:
        return False
    try:
        return found.is_signature_valid(key)
    except (TypeError, UnsupportedAlgorithm):
        return False


class Revocations:
    """The file as it was last usable. `lists` is None as long as there was none."""

    def __init__(self, path: Path, read_signer: Callable[[], Signer]) -> None:
        self._path = path
        self._read_signer = read_signer
        self._taken: _Signature | None = None
        self._trouble = ""
        self.lists: RevocationLists | None = None
        self.observers: list[Callable[[], None]] = []
        """Told once there are other lists."""

    def load(self) -> None:
        """Read the file for the first time. Raises InvalidRevocationError."""
        seen = self._stat()
        self.lists = read_revocations(self._path, self._read_signer())
        self._taken = seen

    async def watch(self, look_seconds: float = LOOK_SECONDS) -> None:
        """Read the file again whenever it changes, for ever. What cannot be used is told once, and looked at again."""
        while True:
            await asyncio.sleep(look_seconds)
            try:
                self._look()
                self._trouble = ""
            except InvalidRevocationError as error:
                if str(error) != self._trouble:
                    self._trouble = str(error)
                    log.error("revocation lists cannot be used; the last ones stay", extra={"error": error})

    def _look(self) -> None:
        seen = self._stat()
        if seen == self._taken:
            return
        lists = read_revocations(self._path, self._read_signer())
        if lists is None:
            raise InvalidRevocationError(f"{self._path} is not there any more: put it back, or restart to forget it")
        self.lists, self._taken = lists, seen
        log.info("revocation lists read", extra={"path": self._path, "revoked": lists.revoked_count})
        for observe in self.observers:
            observe()

    def _stat(self) -> "_Signature | None":
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size


_Signature = tuple[int, int, int]


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidRevocationError(f"cannot read {path}: {error.strerror}") from error
