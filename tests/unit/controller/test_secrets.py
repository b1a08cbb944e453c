"""Secrets at the door: what is taken, what is refused, and what is never kept or shown."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.kinds.secrets import Secret
from controller.sources.documents import Parsed, parse_documents, parse_plain
from controller.sources.held import encode_held
from tests.support.mesh_certificates import issue_server, make_authority, revoke
from tests.support.secrets import secret_text

AUTHORITY = make_authority("test")
PAIR, OTHER = issue_server(AUTHORITY, "a.test"), issue_server(AUTHORITY, "b.test")

ROOT = AUTHORITY.certificate.public_bytes(Encoding.PEM).decode()
REVOKED = revoke(AUTHORITY, 7)
PAIR_DER = base64.b64decode("".join(PAIR.certificate.splitlines()[1:-1]))


def secret(**fields: object) -> Parsed:
    metadata = {"name": "a", "namespace": "demo", "annotations": {"last-applied": PAIR.key}}
    return parse_plain({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, **fields}, "s")


def data(**texts: str) -> dict[str, str]:
    return {name.replace("_", "."): base64.b64encode(text.encode()).decode() for name, text in texts.items()}


def read(parsed: Parsed) -> Secret:
    assert not parsed.problems, [str(each) for each in parsed.problems]
    [found] = parsed.objects
    assert isinstance(found.value, Secret)
    return found.value


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "kubernetes.io/tls", "data": data(tls_crt=PAIR.certificate, tls_key=PAIR.key)},
        {"type": "Opaque", "data": data(tls_crt=PAIR.certificate, tls_key=PAIR.key, ca_crt="x", password="y")},
        {"stringData": {"tls.crt": PAIR.certificate, "tls.key": PAIR.key}},
        {"data": data(tls_crt="old", tls_key=PAIR.key), "stringData": {"tls.crt": PAIR.certificate}},
    ],
    ids=["tls", "opaque", "as-text", "text-before-data"],
)
def test_a_certificate_with_its_key_is_taken(fields: dict[str, object]) -> None:
    found = read(secret(**fields))
    assert (found.certificate, found.private_key) == (PAIR.certificate, PAIR.key)


@pytest.mark.parametrize(
    "fields",
    [
        {"data": data(cert=PAIR.certificate, key=PAIR.key, cacert=ROOT, crl=REVOKED)},
        {"data": data(tls_crt=PAIR.certificate, tls_key=PAIR.key, ca_crt=ROOT, ca_crl=REVOKED)},
        {
            "type": "kubernetes.io/tls",
            "data": data(tls_crt=PAIR.certificate, tls_key=PAIR.key, ca_crt=ROOT, crl=REVOKED),
        },
        {"stringData": {"cert": PAIR.certificate, "key": PAIR.key, "ca.crt": ROOT, "ca.crl": REVOKED}},
        {
            "data": data(tls_crt=OTHER.certificate, tls_key=OTHER.key, cert=PAIR.certificate, key=PAIR.key)
            | data(ca_crt=OTHER.certificate, cacert=ROOT, ca_crl=REVOKED)
        },
    ],
    ids=["istio", "kubernetes", "tls", "as-text", "istio-goes-before"],
)
def test_authorities_go_with_a_certificate_by_either_name(fields: dict[str, object]) -> None:
    found = read(secret(**fields))
    assert (found.certificate, found.private_key) == (PAIR.certificate, PAIR.key)
    assert (found.authorities, found.revocations) == (ROOT, REVOKED)


def test_authorities_may_be_alone() -> None:
    found = read(secret(data=data(cacert=ROOT)))
    assert (found.has_pair, found.authorities) == (False, ROOT)


@pytest.mark.parametrize("name", ["cert", "key", "cacert", "crl", "ca.crt", "ca.crl"])
@pytest.mark.parametrize("value", [base64.b64encode(bytes(range(256))).decode(), data(a="text")["a"], "no base64!", 7])
def test_what_other_programs_call_so_is_not_read(name: str, value: object) -> None:
    found = read(secret(data={name: value}))
    assert (found.certificate, found.private_key, found.authorities, found.revocations) == ("", "", "", "")


def test_a_key_beside_another_programs_certificate_is_not_read() -> None:
    found = read(secret(data=data(tls_crt=PAIR.certificate, tls_key=PAIR.key, key="text")))
    assert found.private_key == PAIR.key


def test_a_certificates_chain_goes_with_it() -> None:
    chain = PAIR.certificate + AUTHORITY.certificate.public_bytes(Encoding.PEM).decode()
    found = read(secret(data=data(tls_crt=chain, tls_key=PAIR.key)))
    assert found.certificate == chain


def test_base64_may_have_line_breaks() -> None:
    broken = {name: "\n".join((text[:60], text[60:])) for name, text in data(tls_key=PAIR.key).items()}
    assert read(secret(data={**data(tls_crt=PAIR.certificate), **broken})).private_key == PAIR.key


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "Opaque", "data": data(password="x")},
        {"type": "Opaque"},
        {"type": "example.com/other", "data": {"tls.crt": 7, "tls.key": "no base64"}},
        {"type": "kubernetes.io/dockerconfigjson", "data": "nonsense"},
        {"data": None, "stringData": None},
    ],
    ids=["password", "empty", "other-type", "other-type-of-anything", "null"],
)
def test_what_is_no_certificate_is_known_by_its_name_only(fields: dict[str, object]) -> None:
    found = read(secret(**fields))
    assert not found.has_pair
    assert (found.certificate, found.private_key) == ("", "")


def pem(key: "rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey", password: str = "") -> str:
    encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()


@pytest.mark.parametrize(
    ("fields", "path", "code"),
    [
        pytest.param({"type": "kubernetes.io/tls"}, "", "certificate-value", id="nothing"),
        pytest.param(
            {"type": "kubernetes.io/tls", "data": data(tls_crt=PAIR.certificate)}, "", "certificate-value", id="no-key"
        ),
        pytest.param(
            {"data": data(tls_crt=OTHER.certificate, tls_key=PAIR.key)}, "", "certificate-value", id="another-key"
        ),
        pytest.param({"data": data(tls_crt="x", tls_key=PAIR.key)}, "", "certificate-value", id="no-certificate"),
        pytest.param({"data": data(tls_crt=PAIR.certificate, tls_key="x")}, "", "certificate-value", id="no-pem"),
        pytest.param(
            {"data": data(tls_crt=PAIR.certificate, tls_key=pem(ec.generate_private_key(ec.SECP256R1()), "p"))},
            "",
            "certificate-value",
            id="password",
        ),
        pytest.param(
            {"data": data(tls_crt=PAIR.certificate, tls_key=pem(rsa.generate_private_key(65537, 1024)))},
            "",
            "certificate-value",
            id="weak",
        ),
        pytest.param(
            {"data": data(tls_crt=PAIR.certificate, tls_key=pem(ed25519.Ed25519PrivateKey.generate()))},
            "",
            "certificate-value",
            id="ed25519",
        ),
        pytest.param(
            {"data": data(cert=OTHER.certificate, key=PAIR.key)}, "", "certificate-value", id="istio-another-key"
        ),
        pytest.param({"data": data(cacert=PAIR.key)}, "", "certificate-value", id="authorities-of-keys"),
        pytest.param({"data": data(ca_crl=ROOT)}, "", "certificate-value", id="no-revocation-list"),
        pytest.param(
            {"data": data(crl=REVOKED[:60] + "x" + REVOKED[60:])}, "", "certificate-value", id="broken-revocation-list"
        ),
        pytest.param({"data": {"tls.key": "*"}}, "data.tls.key", "bytes-value", id="no-base64"),
        pytest.param({"data": {"tls.crt": 7}}, "data.tls.crt", "bytes-value", id="number"),
        pytest.param({"data": "x"}, "data", "wrong-type", id="no-mapping"),
    ],
)
def test_what_a_proxy_would_not_take_is_refused(fields: dict[str, object], path: str, code: str) -> None:
    [problem] = secret(**fields).problems
    assert (problem.path, problem.code, problem.value) == (path, code, "")


def test_nothing_of_it_is_shown_or_written_down() -> None:
    found = read(secret(data=data(tls_crt=PAIR.certificate, tls_key=PAIR.key)))
    middle = PAIR.key[100:130]
    assert found.metadata.annotations is None
    for text in (repr(found), str(found), encode_held({"f": [found]})):
        assert middle not in text


def test_a_private_key_where_none_belongs_is_not_shown() -> None:
    [problem] = parse_documents(
        f"{{apiVersion: v1, kind: Service, spec: {PAIR.key!r}, metadata: {{name: s}}}}", "f"
    ).problems
    assert problem.value == "a private key"


@pytest.mark.parametrize(("lifetime", "is_expired"), [(timedelta(hours=1), False), (timedelta(hours=-1), True)])
def test_a_certificate_that_has_expired_is_taken_and_says_so(lifetime: timedelta, is_expired: bool) -> None:
    parsed = parse_documents(secret_text("a", issue_server(AUTHORITY, "a.test", lifetime=lifetime)), "f")
    assert read(parsed).is_expired(datetime.now(UTC)) is is_expired


def spoil(text: str, changes: list[tuple[int, int]]) -> str:
    """The same PEM with some of its bytes changed."""
    head, *body, foot = text.splitlines()
    content = bytearray(base64.b64decode("".join(body)))
    for place, byte in changes:
        content[place % len(content)] = byte
    return "\n".join((head, base64.b64encode(content).decode(), foot))


CHANGES = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 255)), max_size=4)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@settings(max_examples=500)
@given(CHANGES, CHANGES)
def test_no_certificate_and_no_key_makes_the_door_raise(
    certificate: list[tuple[int, int]], key: list[tuple[int, int]]
) -> None:
    texts = {"tls.crt": spoil(PAIR.certificate, certificate), "tls.key": spoil(PAIR.key, key)}
    for parsed in (secret(stringData=texts), parse_plain(config_map(texts["tls.crt"]), "f")):
        assert bool(parsed.objects) != bool(parsed.problems)
    for found in secret(stringData=texts).objects:
        assert isinstance(found.value, Secret)
        found.value.is_expired(datetime.now(UTC))


def config_map(text: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"ca.crt": text}}


def test_a_certificate_of_an_unknown_version_is_refused() -> None:
    place = PAIR_DER.index(bytes.fromhex("a003020102")) + 4
    spoiled = spoil(PAIR.certificate, [(place, 69)])
    [problem] = secret(stringData={"tls.crt": spoiled, "tls.key": PAIR.key}).problems
    assert problem.message == "tls.crt holds no certificates in PEM"
