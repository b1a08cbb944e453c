"""The roots that are trusted, as a SPIFFE bundle: what other trust domains verify identities of this one with.

The form is that of the SPIFFE Trust Domain and Bundle specification, section 4: a set of JSON Web Keys (RFC 7517), one
for each root, with the certificate as `x5c`. `spiffe_sequence` grows with every change of the roots, over restarts too.
"""

import base64
import json
import logging
import os
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mesh.kit.errors import InvalidInputError

log = logging.getLogger(__name__)

# How long whoever has the bundle may go without asking again. A root is added hours before anything is signed with it.
REFRESH_HINT_SECONDS = 300
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}

Key = dict[str, str | list[str]]


class UnsupportedRootError(InvalidInputError):
    """A root has a key that no JSON Web Key is defined for here."""

    reason = "unsupported_root"


class BundleSequence:
    """The number of the present roots, kept in a file.

    The first is when the newest root begins to be valid, so that controllers beside each other begin alike; each change
    makes it the time of the change.
    """

    def __init__(self, path: Path, read_clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._read_clock = read_clock
        self._digest, self._number = _read_sequence(path)

    def number(self, bundle: str) -> int:
        """The number of these roots, in PEM. Writes it down when they are others than before."""
        digest = sha256(bundle.encode()).hexdigest()
        if digest != self._digest:
            newest = max(each.not_valid_before_utc for each in x509.load_pem_x509_certificates(bundle.encode()))
            is_first = not self._digest
            self._number = int(newest.timestamp()) if is_first else max(self._number + 1, int(self._read_clock()))
            self._digest = digest
            self._write()
        return self._number

    def _write(self) -> None:
        draft = self._path.with_suffix(".new")
        try:
            draft.write_text(json.dumps({"digest": self._digest, "sequence": self._number}), encoding="utf-8")
            os.replace(draft, self._path)
        except OSError as error:
            log.error("the trust bundle's number would not survive a restart", extra={"error": error})


def _read_sequence(path: Path) -> tuple[str, int]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return str(document["digest"]), int(document["sequence"])
    except FileNotFoundError:
        return "", 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("the trust bundle's number is lost, it goes on from the time", extra={"error": error})
        return "lost", 0


def build_bundle(bundle: str, sequence: int) -> dict[str, object]:
    """The SPIFFE bundle of roots in PEM."""
    keys = [_build_key(each) for each in x509.load_pem_x509_certificates(bundle.encode())]
    return {"keys": keys, "spiffe_sequence": sequence, "spiffe_refresh_hint": REFRESH_HINT_SECONDS}


def _build_key(root: x509.Certificate) -> Key:
    """The JSON Web Key of a root (RFC 7518, section 6; RFC 8037, section 2)."""
    key = root.public_key()
    shown: Key = {"use": "x509-svid", "x5c": [base64.b64encode(root.public_bytes(Encoding.DER)).decode()]}
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        size, numbers = (key.curve.key_size + 7) // 8, key.public_numbers()
        point = {"x": _encode(numbers.x, size), "y": _encode(numbers.y, size)}
        return {"kty": "EC", "crv": _CURVES[key.curve.name], **point, **shown}
    if isinstance(key, rsa.RSAPublicKey):
        parts = key.public_numbers()
        return {"kty": "RSA", "n": _encode(parts.n), "e": _encode(parts.e), **shown}
    if isinstance(key, ed25519.Ed25519PublicKey):
        raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return {"kty": "OKP", "crv": "Ed25519", "x": _encode(int.from_bytes(raw), len(raw)), **shown}
    raise UnsupportedRootError(f"a root has a key of type {type(key).__name__}: ECDSA, RSA or Ed25519 has a JSON form")


def _encode(number: int, size: int = 0) -> str:
    """A number's big-endian bytes, of at least `size`, in base64url without padding."""
    data = number.to_bytes(max(size, (number.bit_length() + 7) // 8))
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
