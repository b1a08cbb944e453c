"""The authority: what it signs, for whom, and what it refuses."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from hypothesis import given
from hypothesis import strategies as st

from controller.authority.certificate_authority import (
    CertificateAuthority,
    InvalidLifetimeError,
    RootExpiredError,
    build_root,
)
from controller.authority.certificate_requests import InvalidRequestError, WeakKeyError, parse_request
from controller.authority.node_authorization import Permit, Refusal, decide_impersonation
from controller.authority.node_tokens import NodeTokens, find_node
from controller.authority.root_store import RootStoreError, load_or_create_root, lock_state
from controller.authority.token_file import InvalidTokenFileError, parse_tokens
from controller.kinds.core import Pod
from mesh.identity import SpiffeIdentity
from tests.support import objects

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WEB = SpiffeIdentity("cluster.local", "demo", "web")


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority(build_root(ec.generate_private_key(ec.SECP256R1()), "cluster.local", NOW).signer)


def csr(key: CertificateIssuerPrivateKeyTypes) -> str:
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    request = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, algorithm)
    return request.public_bytes(serialization.Encoding.PEM).decode()


def parse_chain(chain: object) -> tuple[x509.Certificate, x509.Certificate]:
    assert isinstance(chain, list)
    leaf, root = (x509.load_pem_x509_certificate(pem.encode()) for pem in chain)
    return leaf, root


def test_leaf_is_what_both_ends_of_a_tunnel_need(authority: CertificateAuthority) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    leaf, root = parse_chain(authority.sign_workload(key, WEB, timedelta(), NOW))
    leaf.verify_directly_issued_by(root)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert (names.critical, [name.value for name in names.value]) == (True, [str(WEB)])
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert {usage.dotted_string for usage in usages} == {"1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"}
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert list(leaf.subject) == []
    assert leaf.not_valid_before_utc < NOW
    assert leaf.not_valid_after_utc == NOW + timedelta(hours=24)
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)


def test_leaf_never_outlives_its_root_nor_the_limit(authority: CertificateAuthority) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    late = authority.expiry - timedelta(hours=1)
    assert parse_chain(authority.sign_workload(key, WEB, timedelta(), late))[0].not_valid_after_utc == authority.expiry
    with pytest.raises(RootExpiredError):
        authority.sign_workload(key, WEB, timedelta(), authority.expiry)
    with pytest.raises(InvalidLifetimeError):
        authority.sign_workload(key, WEB, timedelta(days=90, seconds=1), NOW)


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(ec.generate_private_key(ec.SECP256R1()), id="p256"),
        pytest.param(ec.generate_private_key(ec.SECP384R1()), id="p384"),
        pytest.param(ed25519.Ed25519PrivateKey.generate(), id="ed25519"),
        pytest.param(rsa.generate_private_key(65537, 2048), id="rsa-2048"),
    ],
)
def test_strong_keys_are_signed(authority: CertificateAuthority, key: CertificateIssuerPrivateKeyTypes) -> None:
    public = parse_request(csr(key))
    leaf, root = parse_chain(authority.sign_workload(public, WEB, timedelta(hours=1), NOW))
    leaf.verify_directly_issued_by(root)
    assert leaf.public_key() == key.public_key()


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(rsa.generate_private_key(65537, 1024), id="rsa-1024"),
        pytest.param(ec.generate_private_key(ec.SECP521R1()), id="p521"),
        pytest.param(ec.generate_private_key(ec.SECP256K1()), id="secp256k1"),
    ],
)
def test_other_keys_are_refused(key: CertificateIssuerPrivateKeyTypes) -> None:
    with pytest.raises(WeakKeyError):
        parse_request(csr(key))


def test_request_that_was_tampered_with_is_refused() -> None:
    der = bytearray(
        x509.load_pem_x509_csr(csr(ec.generate_private_key(ec.SECP256R1())).encode()).public_bytes(
            serialization.Encoding.DER
        )
    )
    der[-1] ^= 1
    request = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(InvalidRequestError, match="signature"):
        parse_request(request)


@given(
    st.text(max_size=200)
    | st.binary(max_size=200).map(
        lambda data: (
            "-----BEGIN CERTIFICATE REQUEST-----\n"
            + __import__("base64").b64encode(data).decode()
            + "\n-----END CERTIFICATE REQUEST-----\n"
        )
    )
)
def test_any_text_is_a_request_or_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        parse_request(text)


def test_oversized_request_is_refused_unread() -> None:
    with pytest.raises(InvalidRequestError, match="at most"):
        parse_request("x" * 100_000)


# Who may have what


@pytest.mark.parametrize(
    ("pods", "identity", "reason"),
    [
        pytest.param([objects.pod()], WEB, None, id="pod-here"),
        pytest.param([objects.pod(ready="False")], WEB, None, id="not-ready-counts"),
        pytest.param([objects.pod(node="node-2")], WEB, "not_on_node", id="pod-elsewhere"),
        pytest.param([], WEB, "no_such_pod", id="no-pod"),
        pytest.param(
            [objects.pod()], SpiffeIdentity("cluster.local", "demo", "admin"), "no_such_pod", id="other-account"
        ),
        pytest.param(
            [objects.pod()], SpiffeIdentity("cluster.local", "other", "web"), "no_such_pod", id="other-namespace"
        ),
        pytest.param(
            [objects.pod()], SpiffeIdentity("evil.org", "demo", "web"), "wrong_trust_domain", id="trust-domain"
        ),
        pytest.param([objects.pod(phase="Failed")], WEB, "no_such_pod", id="ended"),
    ],
)
def test_node_may_have_the_identities_of_its_own_pods(
    pods: list[Pod], identity: SpiffeIdentity, reason: str | None
) -> None:
    decision = decide_impersonation(objects.build_snapshot(*pods), "node-1", identity, "cluster.local")
    if reason is None:
        assert isinstance(decision, Permit)
    else:
        assert isinstance(decision, Refusal)
        assert decision.reason == reason


# Tokens


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@pytest.mark.parametrize(
    ("header", "node"),
    [
        pytest.param("Bearer one", "node-1", id="first"),
        pytest.param("bearer two", "node-2", id="scheme-in-lower-case"),
        pytest.param("Bearer three", None, id="unknown"),
        pytest.param(f"Bearer {digest('one')}", None, id="the-hash-is-no-token"),
        pytest.param("Basic one", None, id="other-scheme"),
        pytest.param("one", None, id="no-scheme"),
        pytest.param("Bearer ", None, id="empty"),
        pytest.param("Bearer " + "x" * 5000, None, id="too-long"),
        pytest.param(None, None, id="absent"),
    ],
)
def test_token_names_its_node(header: str | None, node: str | None) -> None:
    tokens = parse_tokens(f"# nodes\nnode-1 {digest('one')}\n\nnode-2 {digest('two').upper()}\n")
    assert find_node({token.digest: token.node for token in tokens}, header) == node


@pytest.mark.parametrize("line", ["node-1", "node-1 abc", "node-1 " + "g" * 64, "a b c"])
def test_broken_token_line_is_refused_without_showing_it(line: str) -> None:
    with pytest.raises(InvalidTokenFileError, match="line 2") as refusal:
        parse_tokens(f"node-0 {digest('zero')}\n{line}")
    assert "g" * 64 not in str(refusal.value)


async def test_token_file_is_read_again_when_it_changes_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    tokens = NodeTokens(path)
    assert await tokens.authenticate("Bearer one") is None

    def write(text: str, mode: int = 0o600) -> None:
        draft = tmp_path / "draft"
        draft.write_text(text)
        draft.chmod(mode)
        draft.rename(path)

    write(f"node-1 {digest('one')}\n")
    assert await tokens.authenticate("Bearer one") == "node-1"
    write("broken\n")
    assert await tokens.authenticate("Bearer one") == "node-1"
    write(f"node-2 {digest('one')}\n", 0o644)
    assert await tokens.authenticate("Bearer one") == "node-1"
    write(f"node-2 {digest('two')}\n")
    assert await tokens.authenticate("Bearer one") is None
    path.unlink()
    assert await tokens.authenticate("Bearer two") is None


# The root on disk


def test_root_is_made_once(tmp_path: Path) -> None:
    first = load_or_create_root(tmp_path, "cluster.local", NOW)
    second = load_or_create_root(tmp_path, "cluster.local", NOW + timedelta(days=1))
    assert first.pem == second.pem


def test_start_that_was_interrupted_after_the_key_is_completed(tmp_path: Path) -> None:
    first = load_or_create_root(tmp_path, "cluster.local", NOW)
    (tmp_path / "root-cert.pem").unlink()
    (tmp_path / "root-cert.new").write_text("half")
    second = load_or_create_root(tmp_path, "cluster.local", NOW)
    assert second.certificate.public_key() == first.certificate.public_key()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param("root-key.pem", None, "restore the key", id="key-lost"),
        pytest.param("root-key.pem", "nonsense", "not a private key", id="key-broken"),
        pytest.param("root-cert.pem", "nonsense", "not a certificate", id="certificate-broken"),
    ],
)
def test_damaged_root_is_refused_with_what_to_do(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    load_or_create_root(tmp_path, "cluster.local", NOW)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises(RootStoreError, match=message):
        load_or_create_root(tmp_path, "cluster.local", NOW)


def test_certificate_of_another_key_is_refused(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        load_or_create_root(tmp_path / name, "cluster.local", NOW)
    (tmp_path / "a" / "root-cert.pem").replace(tmp_path / "b" / "root-cert.pem")
    with pytest.raises(RootStoreError, match="does not belong"):
        load_or_create_root(tmp_path / "b", "cluster.local", NOW)


def test_two_controllers_do_not_share_a_state_directory(tmp_path: Path) -> None:
    with lock_state(tmp_path), pytest.raises(RootStoreError, match="another controller"), lock_state(tmp_path):
        pass
    with lock_state(tmp_path):
        pass
