"""The root key and certificate on disk: made once, found again at every start.

    root-key.pem    mode 0600, PKCS#8; whoever reads it is the mesh
    root-cert.pem   what agents verify with
    lock            held while a controller runs here

The order in which they are written matters: the key first, then its certificate, each by rename. Nothing is signed
before both stand, so a key alone is a start that was interrupted, and gets its certificate now; a certificate alone
means that the key was lost, and we refuse: a new root would cut every agent off.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from controller.authority.certificate_authority import Root, build_root
from mesh.kit.errors import FatalError

KEY_FILE = "root-key.pem"
CERTIFICATE_FILE = "root-cert.pem"
LOCK_FILE = "lock"


class RootStoreError(FatalError):
    """The state directory cannot be used as it is; the message says what to do."""

    reason = "root_store"


@contextmanager
def lock_state(directory: Path) -> Iterator[None]:
    """Hold the state directory, which is made (mode 0700) if need be. Raises RootStoreError when another has it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RootStoreError(
                f"another controller runs with {directory}: stop it, or give this one its own"
            ) from error
        yield
    finally:
        os.close(descriptor)


def load_or_create_root(directory: Path, trust_domain: str, now: datetime) -> Root:
    """The root in `directory`, made if there is none. Raises RootStoreError when what is there cannot be used."""
    key_path, certificate_path = directory / KEY_FILE, directory / CERTIFICATE_FILE
    if not key_path.exists():
        if certificate_path.exists():
            raise RootStoreError(
                f"{certificate_path} is there but its key {key_path} is not: restore the key from a backup, or remove "
                "the certificate to start a new mesh root, which every agent must then be given"
            )
        _write_new(key_path, _encode_key(ec.generate_private_key(ec.SECP256R1())), 0o600)
    key = _load_key(key_path)
    if not certificate_path.exists():
        _write_new(certificate_path, build_root(key, trust_domain, now).pem.encode(), 0o644)
    return Root(key, _load_certificate(certificate_path, key))


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & 0o077:
            raise RootStoreError(f"{path} has mode {mode:04o}: others may have read the root key; chmod 600 {path}")
        content = file.read()
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RootStoreError(f"{path} is not a private key in PEM: restore it from a backup") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise RootStoreError(
            f"{path} is not an ECDSA key, which is what this controller makes: restore it from a backup"
        )
    return key


def _load_certificate(path: Path, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise RootStoreError(f"{path} is not a certificate in PEM: restore it from a backup") from error
    if certificate.public_key() != key.public_key():
        raise RootStoreError(f"{path} does not belong to the key beside it: restore both from one backup")
    return certificate


def _encode_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file so that it is there whole or not at all, also after a power failure."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
