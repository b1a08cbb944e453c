"""A certificate authority that somebody else made: what is signed with it, and what is refused with its file named."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store

from controller.authority.certificate_authority import CertificateAuthority
from controller.authority.plugged_in import Files, load_signer, read_files, watch_signer
from controller.authority.root_store import RootStoreError
from mesh.identity import SpiffeIdentity
from tests.support.mesh_certificates import Authority, make_authority, write_authority

WEB = SpiffeIdentity("cluster.local", "demo", "web")


def now() -> datetime:
    """Asked for anew each time: a session may have begun long before."""
    return datetime.now(UTC)


def parse(*pems: str) -> list[x509.Certificate]:
    return [each for pem in pems for each in x509.load_pem_x509_certificates(pem.encode())]


def verify(root: Authority, chain: list[str]) -> None:
    """Build the path as a peer does that trusts `root` only; raises when there is none."""
    leaf, *rest = parse(*chain)
    verifier = PolicyBuilder().store(Store([root.certificate])).time(now()).build_client_verifier()
    verified = verifier.verify(leaf, rest)
    assert verified.chain[-1] == root.certificate


def sign(folder: Path) -> list[str]:
    authority = CertificateAuthority(load_signer(folder, read_files(folder), now()))
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return list(authority.sign_workload(key, WEB, timedelta(hours=1), now()))


@pytest.mark.parametrize("rsa", [False, True], ids=["ecdsa", "rsa"])
@pytest.mark.parametrize("depth", [0, 1, 2], ids=["root", "below a root", "two below"])
def test_what_it_signs_leads_to_its_root(tmp_path: Path, depth: int, rsa: bool) -> None:
    authorities = [make_authority("root", rsa=rsa)]
    for number in range(depth):
        authorities.append(make_authority(f"below-{number}", authorities[-1], rsa=rsa))
    root, *below = authorities
    write_authority(tmp_path, authorities[-1], [root], list(reversed(below)))
    chain = sign(tmp_path)
    assert len(chain) == 1 + depth + 1
    verify(root, chain[:-1])
    assert parse(chain[-1]) == [root.certificate]


def test_two_roots_are_trusted_while_one_takes_the_others_place(tmp_path: Path) -> None:
    old, new = make_authority("old"), make_authority("new")
    write_authority(tmp_path, old, [old, new], [])
    assert parse(sign(tmp_path)[-1]) == [old.certificate, new.certificate]


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, text: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).write_text(text)

    return spoil


def of_another(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        other = folder / "other"
        other.mkdir()
        stranger = make_authority("stranger")
        write_authority(other, stranger, [stranger], [stranger])
        (other / name).rename(folder / name)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (without("ca-key.pem"), "ca-key.pem is missing"),
        (without("root-cert.pem"), "root-cert.pem is missing"),
        (write("ca-cert.pem", "nonsense"), "ca-cert.pem holds no certificates"),
        (write("ca-key.pem", "nonsense"), "ca-key.pem is not a private key"),
        (of_another("ca-key.pem"), "ca-key.pem does not belong to ca-cert.pem"),
        (of_another("root-cert.pem"), "no root of"),
        (of_another("cert-chain.pem"), "cert-chain.pem does not lead from ca-cert.pem upwards"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_file(tmp_path: Path, spoil: Callable[[Path], None], text: str) -> None:
    root = make_authority("root")
    between = make_authority("between", root)
    write_authority(tmp_path, between, [root], [between])
    spoil(tmp_path)
    with pytest.raises(RootStoreError, match=text):
        sign(tmp_path)


def test_what_has_ended_or_may_not_sign_is_refused(tmp_path: Path) -> None:
    root = make_authority("root")
    write_authority(tmp_path, root, [root], [])
    files = read_files(tmp_path)
    with pytest.raises(RootStoreError, match="expired at"):
        load_signer(tmp_path, files, now() + timedelta(days=400))
    leaf = make_authority("leaf", root, may_sign=False)
    write_authority(tmp_path, leaf, [root], [])
    with pytest.raises(RootStoreError, match="may not sign"):
        sign(tmp_path)


async def test_changes_are_followed_and_what_is_broken_is_passed_over(tmp_path: Path) -> None:
    old, new = make_authority("old"), make_authority("new")
    write_authority(tmp_path, old, [old], [])
    files: Files = read_files(tmp_path)
    (tmp_path / "ca-cert.pem").write_text("half a fi")
    looks = 0

    def look() -> datetime:
        """Called for each change that is read; makes the next one."""
        nonlocal looks
        looks += 1
        write_authority(tmp_path, new, [old, new], [])
        return now()

    signer = await asyncio.wait_for(anext(watch_signer(tmp_path, files, look, look_seconds=0.01)), 5)
    assert (signer.certificate, looks) == (new.certificate, 2), "broken files are no news"
