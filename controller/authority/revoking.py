"""Taking certificates back: a revocation list beside the authority, signed with its key, that grows."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from controller.authority.certificate_authority import Signer
from controller.authority.plugged_in import load_signer, read_files
from controller.authority.revocation import REVOCATION_FILE, RevocationLists, is_signed, read_revocations
from controller.authority.root_store import KEY_FILE, load_or_create_root
from mesh.kit.errors import InvalidInputError

# RFC 5280, 4.1.2.2: at most 20 octets, and positive.
_MAX_SERIAL_BITS = 159


class InvalidSerialError(InvalidInputError):
    """No certificate can have this serial number."""

    reason = "invalid_serial"


class CannotRevokeError(InvalidInputError):
    """The authority may not sign revocation lists, or is not there."""

    reason = "cannot_revoke"


def parse_serial(text: str) -> int:
    """A serial number: decimal as `ambit ztunnel-config` shows it, or hexadecimal after `0x` or with colons.

    Hexadecimal digits alone are refused, for they may look like a decimal number. Raises InvalidSerialError.
    """
    try:
        is_decimal = text.isascii() and text.isdigit()
        number = int(text) if is_decimal else int(_find_digits(text), 16)
    except ValueError:
        number = 0
    if not 0 < number < 1 << _MAX_SERIAL_BITS + 1:
        raise InvalidSerialError(f"{text!r} is no serial number: write decimal digits, 0x7f3a, or 7f:3a")
    return number


def _find_digits(text: str) -> str:
    if text.lower().startswith("0x"):
        return text[2:]
    if ":" in text:
        return text.replace(":", "")
    raise ValueError(text)


def open_authority(state_dir: Path | None, authority_dir: Path | None, now: datetime) -> tuple[Path, Signer]:
    """The directory and the signer of the authority that a controller with these settings has.

    Raises CannotRevokeError, RootStoreError.
    """
    if authority_dir is not None:
        return authority_dir, load_signer(authority_dir, read_files(authority_dir), now)
    if state_dir is None or not (state_dir / KEY_FILE).exists():
        raise CannotRevokeError(
            f"there is no root in {state_dir}: --state-dir is the controller's AMBIT_STATE_DIR, "
            "--ca-dir its AMBIT_CA_DIR"
        )
    return state_dir, load_or_create_root(state_dir, "", now).signer


def revoke(directory: Path, signer: Signer, serials: Sequence[int], now: datetime) -> int:
    """Take certificates of the signer back; gives how many were not taken back before. Lists of others stay.

    Raises CannotRevokeError, InvalidRevocationError, OSError.
    """
    _check_may_sign(signer.certificate)
    with _locked(directory):
        lists = (read_revocations(directory / REVOCATION_FILE, signer) or RevocationLists()).lists
        own = [each for each in lists if is_signed(each, signer.certificate)]
        revoked = {entry.serial_number: entry for each in own for entry in each}
        new = [serial for serial in dict.fromkeys(serials) if serial not in revoked]
        if new:
            revoked |= {serial: _build_entry(serial, now) for serial in new}
            number = 1 + max((_read_number(each) for each in own), default=0)
            extended = _build_list(signer, list(revoked.values()), number, now)
            _write(
                directory / REVOCATION_FILE, RevocationLists([extended, *(each for each in lists if each not in own)])
            )
    return len(new)


def _check_may_sign(certificate: x509.Certificate) -> None:
    try:
        may_sign = certificate.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    except x509.ExtensionNotFound:
        may_sign = True
    if not may_sign:
        raise CannotRevokeError(
            f"{certificate.subject.rfc4514_string()!r} may not sign revocation lists (its key usage has no cRLSign): "
            f"have whoever made it write {REVOCATION_FILE}"
        )


def _build_entry(serial: int, now: datetime) -> x509.RevokedCertificate:
    return x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()


def _build_list(
    signer: Signer, entries: Sequence[x509.RevokedCertificate], number: int, now: datetime
) -> x509.CertificateRevocationList:
    """It holds for as long as its issuer does: what was taken back stays so, and nobody has to renew it."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(signer.certificate.subject)
        .last_update(now)
        .next_update(signer.certificate.not_valid_after_utc)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()), critical=False)
    )
    for entry in entries:
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(signer.key, hashes.SHA256())


def _read_number(found: x509.CertificateRevocationList) -> int:
    try:
        return found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return 0


def _write(path: Path, lists: RevocationLists) -> None:
    draft = path.with_name(f".{path.name}.new")
    with draft.open("w", encoding="ascii") as file:
        file.write(lists.pem)
        file.flush()
        os.fsync(file.fileno())
    draft.chmod(0o644)
    draft.replace(path)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with open(directory / f".{REVOCATION_FILE}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
