"""A certificate authority that somebody else made: Istio's four files, read again when they change.

    ca-cert.pem     what signs: a root, or an intermediate
    ca-key.pem      its key
    root-cert.pem   the roots that are trusted; two while one takes the place of the other
    cert-chain.pem  from ca-cert.pem to below a root; may be missing for a root, or right below one

A root is replaced without an outage in three steps, each when every certificate has been renewed after the one before:
add the new root to root-cert.pem; sign with it; take the old one out.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from controller.authority.certificate_authority import Signer, SigningKey
from controller.authority.root_store import RootStoreError

log = logging.getLogger(__name__)

CERTIFICATE_FILE, KEY_FILE = "ca-cert.pem", "ca-key.pem"
BUNDLE_FILE, CHAIN_FILE = "root-cert.pem", "cert-chain.pem"
LOOK_SECONDS = 5.0
"""A mounted Secret is a minute late anyway."""

Files = dict[str, bytes]


def read_files(directory: Path) -> Files:
    """What the files hold; those that are missing are left out. Raises RootStoreError."""
    found = {}
    for name in (CERTIFICATE_FILE, KEY_FILE, BUNDLE_FILE, CHAIN_FILE):
        try:
            found[name] = (directory / name).read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise RootStoreError(f"cannot read {directory / name}: {error.strerror}") from error
    return found


def load_signer(directory: Path, files: Files, now: datetime) -> Signer:
    """What signs, by `files` of `directory`. Raises RootStoreError that names the file and what to do."""
    for name in (CERTIFICATE_FILE, KEY_FILE, BUNDLE_FILE):
        if name not in files:
            raise RootStoreError(f"{directory / name} is missing, beside {CERTIFICATE_FILE}, {KEY_FILE}, {BUNDLE_FILE}")
    (certificate, *_) = _parse(directory / CERTIFICATE_FILE, files[CERTIFICATE_FILE])
    roots = _parse(directory / BUNDLE_FILE, files[BUNDLE_FILE])
    chain = _parse(directory / CHAIN_FILE, files[CHAIN_FILE]) if files.get(CHAIN_FILE, b"").strip() else []
    key = _parse_key(directory / KEY_FILE, files[KEY_FILE])
    if certificate.public_key() != key.public_key():
        raise RootStoreError(f"{directory / KEY_FILE} does not belong to {CERTIFICATE_FILE} beside it")
    _check_authority(directory / CERTIFICATE_FILE, certificate, now)
    path = [certificate, *(each for each in chain if each != certificate and each not in roots)]
    _check_path(directory, path, roots)
    intermediates = () if certificate in roots else tuple(_encode(each) for each in path)
    return Signer(key, certificate, intermediates, "".join(map(_encode, roots)))


async def watch_signer(
    directory: Path, files: Files, read_clock: Callable[[], datetime], look_seconds: float = LOOK_SECONDS
) -> AsyncIterator[Signer]:
    """What the files of `directory` say whenever they differ from `files`; what cannot be used is told and left out."""
    while True:
        await asyncio.sleep(look_seconds)
        try:
            present = read_files(directory)
            if present == files:
                continue
            files = present
            signer = load_signer(directory, files, read_clock())
        except RootStoreError as error:
            log.error("new certificate authority cannot be used; the last one goes on", extra={"error": str(error)})
        else:
            yield signer


def _parse(path: Path, content: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise RootStoreError(f"{path} holds no certificates in PEM") from error


def _parse_key(path: Path, content: bytes) -> SigningKey:
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RootStoreError(f"{path} is not a private key in PEM without a password") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise RootStoreError(f"{path} is neither an ECDSA nor an RSA key")
    return key


def _check_authority(path: Path, certificate: x509.Certificate, now: datetime) -> None:
    try:
        is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_authority = False
    if not is_authority:
        raise RootStoreError(f"{path} may not sign certificates: it has no basic constraint CA")
    if now >= certificate.not_valid_after_utc:
        raise RootStoreError(f"{path} expired at {certificate.not_valid_after_utc}")


def _check_path(directory: Path, path: list[x509.Certificate], roots: list[x509.Certificate]) -> None:
    """Each is issued by the next, and the last by a root or one itself."""
    for below, above in pairwise(path):
        if not _is_issued(below, above):
            raise RootStoreError(f"{directory / CHAIN_FILE} does not lead from {CERTIFICATE_FILE} upwards, in order")
    if path[-1] not in roots and not any(_is_issued(path[-1], root) for root in roots):
        raise RootStoreError(f"no root of {directory / BUNDLE_FILE} issued {path[-1].subject.rfc4514_string()!r}")


def _is_issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _encode(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()
