"""Revocation lists: whose count, how they grow, and what a file that cannot be used changes."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from controller.authority.certificate_authority import Signer
from controller.authority.plugged_in import load_signer, read_files
from controller.authority.revocation import (
    REVOCATION_FILE,
    InvalidRevocationError,
    Revocations,
    parse_revocations,
    read_revocations,
)
from controller.authority.revoking import (
    CannotRevokeError,
    InvalidSerialError,
    open_authority,
    parse_serial,
    revoke,
)
from controller.authority.root_store import load_or_create_root
from tests.support.mesh_certificates import Authority, forge_authority, make_authority, write_authority
from tests.support.mesh_certificates import revoke as list_revoked
from tests.support.waiting import until


def now() -> datetime:
    return datetime.now(UTC)


def plug_in(folder: Path, signer: Authority, root: Authority) -> Signer:
    write_authority(folder, signer, [root], [] if signer is root else [signer])
    return load_signer(folder, read_files(folder), now())


def serials(folder: Path, signer: Signer) -> list[int]:
    found = read_revocations(folder / REVOCATION_FILE, signer)
    return sorted(entry.serial_number for each in (found.lists if found else ()) for entry in each)


@pytest.mark.parametrize("form", [Encoding.PEM, Encoding.DER], ids=["pem", "der"])
@pytest.mark.parametrize("rsa", [False, True], ids=["ecdsa", "rsa"])
def test_lists_of_what_signs_and_of_what_stands_above_it_count(tmp_path: Path, rsa: bool, form: Encoding) -> None:
    root = make_authority("root", rsa=rsa)
    below = make_authority("below", root, rsa=rsa)
    signer = plug_in(tmp_path, below, root)
    file = tmp_path / REVOCATION_FILE
    assert read_revocations(file, signer) is None
    for authority in (root, below):
        found = x509.load_pem_x509_crl(list_revoked(authority, 5).encode())
        file.write_bytes(found.public_bytes(form))
        assert serials(tmp_path, signer) == [5]
    file.write_text("text around it\n" + list_revoked(below, 5) + list_revoked(root, 6, 7))
    assert serials(tmp_path, signer) == [5, 6, 7]


def test_what_cannot_be_used_is_refused_with_its_file(tmp_path: Path) -> None:
    root = make_authority("root")
    signer = plug_in(tmp_path, root, root)
    good = list_revoked(root, 5)
    for text in (
        "nonsense",
        "",
        list_revoked(forge_authority(root.certificate), 5),
        good + list_revoked(forge_authority(root.certificate), 5),
        good.replace("A", "B", 1),
    ):
        (tmp_path / REVOCATION_FILE).write_text(text)
        with pytest.raises(InvalidRevocationError, match=REVOCATION_FILE):
            read_revocations(tmp_path / REVOCATION_FILE, signer)


def make_signer() -> Signer:
    authority = make_authority("root")
    pem = authority.certificate.public_bytes(Encoding.PEM).decode()
    return Signer(authority.key, authority.certificate, (), pem)


SIGNER = make_signer()


def test_a_list_of_the_intermediate_that_signed_before_is_handed_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_authority("root")
    before, now_signing = make_authority("before", root), make_authority("now", root)
    signer = plug_in(tmp_path, now_signing, root)
    (tmp_path / REVOCATION_FILE).write_text(list_revoked(before, 5))
    assert serials(tmp_path, signer) == [5]
    assert "it counts only where its issuer is known" in caplog.text


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda data: b"-----BEGIN X509 CRL-----\n" + data))
def test_any_bytes_are_lists_or_refused(data: bytes) -> None:
    with pytest.raises(InvalidRevocationError):
        parse_revocations(Path("x"), data, SIGNER)


def test_a_list_grows_and_others_beside_it_stay(tmp_path: Path) -> None:
    root = make_authority("root")
    below = make_authority("below", root)
    signer = plug_in(tmp_path, below, root)
    file = tmp_path / REVOCATION_FILE
    file.write_text(list_revoked(root, 3))
    assert revoke(tmp_path, signer, [5, 6, 5], now()) == 2
    assert revoke(tmp_path, signer, [6], now()) == 0
    assert revoke(tmp_path, signer, [6, 1 << 158], now()) == 1
    assert serials(tmp_path, signer) == [3, 5, 6, 1 << 158]
    found = read_revocations(file, signer)
    assert found is not None
    [own] = [each for each in found.lists if each.issuer == below.certificate.subject]
    assert own.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 2
    assert own.next_update_utc == below.certificate.not_valid_after_utc
    assert file.stat().st_mode & 0o777 == 0o644


def test_the_controllers_own_root_revokes_and_none_is_made_for_it(tmp_path: Path) -> None:
    with pytest.raises(CannotRevokeError, match="AMBIT_STATE_DIR"):
        open_authority(tmp_path, None, now())
    assert not list(tmp_path.iterdir())
    load_or_create_root(tmp_path, "cluster.local", now())
    directory, signer = open_authority(tmp_path, None, now())
    assert revoke(directory, signer, [7], now()) == 1
    assert serials(tmp_path, signer) == [7]


def test_an_authority_that_may_not_sign_lists_is_named(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = make_authority("leaf", may_sign=False)
    signer = Signer(key, leaf.certificate, (), leaf.certificate.public_bytes(Encoding.PEM).decode())
    with pytest.raises(CannotRevokeError, match="cRLSign"):
        revoke(tmp_path, signer, [5], now())


@pytest.mark.parametrize(
    ("text", "number"),
    [("1234", 1234), ("0x7f3A", 0x7F3A), ("7f:3a:00", 0x7F3A00), (str((1 << 160) - 1), (1 << 160) - 1)],
)
def test_serial_numbers_are_read(text: str, number: int) -> None:
    assert parse_serial(text) == number


@pytest.mark.parametrize("text", ["", "0", "-5", "7f3a", "0x", "0x-5", "1_0", str(1 << 160), ":", "٣"])
def test_what_is_no_serial_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidSerialError):
        parse_serial(text)


async def test_changes_are_followed_and_what_is_broken_leaves_the_last_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = make_authority("old"), make_authority("new")
    signer = plug_in(tmp_path, old, old)
    file = tmp_path / REVOCATION_FILE
    revocations = Revocations(file, lambda: signer)
    revocations.load()
    assert revocations.lists is None
    told: asyncio.Queue[int] = asyncio.Queue()
    revocations.observers.append(lambda: told.put_nowait(count_revoked(revocations)))

    async def tell(text: str) -> int:
        file.write_text(text)
        return await asyncio.wait_for(told.get(), 5)

    async def wait_for_trouble(word: str) -> None:
        await until(lambda: any(word in str(getattr(each, "error", "")) for each in caplog.records))

    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(revocations.watch(look_seconds=0.01), name="watch")
        assert await tell(list_revoked(old, 1)) == 1
        file.write_text("half a fi")
        await wait_for_trouble("holds no revocation lists")
        assert count_revoked(revocations) == 1
        file.unlink()
        await wait_for_trouble("is not there any more")
        assert count_revoked(revocations) == 1
        file.write_text(list_revoked(forge_authority(old.certificate), 1, 2))
        await wait_for_trouble("not signed by it")
        signer = plug_in(tmp_path, new, new)
        assert await tell(list_revoked(new, 1, 2)) == 2
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


def count_revoked(revocations: Revocations) -> int:
    return revocations.lists.revoked_count if revocations.lists else 0


def test_the_earliest_update_of_several_lists_counts(tmp_path: Path) -> None:
    root = make_authority("root")
    below = make_authority("below", root)
    signer = plug_in(tmp_path, below, root)
    (tmp_path / REVOCATION_FILE).write_text(list_revoked(root, 3))  # it has expired
    revoke(tmp_path, signer, [5], now())
    found = read_revocations(tmp_path / REVOCATION_FILE, signer)
    assert found is not None
    assert found.next_update is not None
    assert found.next_update < now() - timedelta(hours=1)
