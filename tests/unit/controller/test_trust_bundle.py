"""The trust bundle in SPIFFE's form: keys that verify what the roots sign, and a number that only grows."""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding

from controller.authority.trust_bundle import BundleSequence, UnsupportedRootError, build_bundle


def make_root(key: CertificateIssuerPrivateKeyTypes, year: int = 2026) -> str:
    name = x509.Name([])
    start = datetime(year, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
    builder = builder.serial_number(1).not_valid_before(start).not_valid_after(start.replace(year=year + 10))
    is_edwards = isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return builder.sign(key, None if is_edwards else hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def decode(text: str) -> bytes:
    assert "=" not in text
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def number(text: str) -> int:
    return int.from_bytes(decode(text))


def read_keys(bundle: str) -> list[dict[str, Any]]:
    keys: list[dict[str, Any]] = json.loads(json.dumps(build_bundle(bundle, 1)))["keys"]
    return keys


@pytest.mark.parametrize(
    ("curve", "name", "size"),
    [(ec.SECP256R1(), "P-256", 32), (ec.SECP384R1(), "P-384", 48), (ec.SECP521R1(), "P-521", 66)],
)
def test_an_elliptic_key_is_its_point_in_full_length(curve: ec.EllipticCurve, name: str, size: int) -> None:
    key = ec.generate_private_key(curve)
    root = make_root(key)
    [found] = read_keys(root)
    assert (found["kty"], found["crv"], found["use"]) == ("EC", name, "x509-svid")
    assert (len(decode(found["x"])), len(decode(found["y"]))) == (size, size)
    numbers = ec.EllipticCurvePublicNumbers(number(found["x"]), number(found["y"]), curve)
    assert numbers.public_key() == key.public_key()
    [certificate] = found["x5c"]
    assert x509.load_der_x509_certificate(base64.b64decode(certificate)) == x509.load_pem_x509_certificate(
        root.encode()
    )
    assert "kid" not in found


def test_rsa_and_edwards_keys_have_theirs() -> None:
    first, second = rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()
    found = read_keys(make_root(first) + make_root(second))
    numbers = rsa.RSAPublicNumbers(number(found[0]["e"]), number(found[0]["n"]))
    assert (found[0]["kty"], numbers.public_key()) == ("RSA", first.public_key())
    assert (found[1]["kty"], found[1]["crv"]) == ("OKP", "Ed25519")
    assert ed25519.Ed25519PublicKey.from_public_bytes(decode(found[1]["x"])) == second.public_key()


def test_a_root_that_has_no_form_is_refused() -> None:
    with pytest.raises(UnsupportedRootError, match="ECDSA"):
        build_bundle(make_root(ed448.Ed448PrivateKey.generate()), 1)


def test_the_number_grows_with_each_change_and_over_restarts(tmp_path: Path) -> None:
    file = tmp_path / "sequence.json"
    old, new = (make_root(ec.generate_private_key(ec.SECP256R1()), year) for year in (2024, 2025))
    first = BundleSequence(file, lambda: 2e9).number(old)
    assert first == datetime(2024, 1, 1, tzinfo=UTC).timestamp()
    sequence = BundleSequence(file, lambda: 2e9)
    assert sequence.number(old) == first
    both = sequence.number(old + new)
    assert both == 2_000_000_000
    assert sequence.number(old + new) == both
    set_back = BundleSequence(file, lambda: 0.0)
    assert set_back.number(old + new) == both
    assert set_back.number(new) == both + 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"digest": "x", "sequence": "y"}'])
def test_a_number_that_is_lost_goes_on_from_the_time(tmp_path: Path, text: str) -> None:
    file = tmp_path / "sequence.json"
    file.write_text(text)
    root = make_root(ec.generate_private_key(ec.SECP256R1()))
    assert BundleSequence(file, lambda: 2e9).number(root) == 2_000_000_000
