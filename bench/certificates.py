"""Keys and certificates for the peer: one CA, one identity, P-256 as ours are."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ambit.lab.control import Json

IDENTITY = "spiffe://cluster.local/ns/sidecar/sa/default"

LIFETIME = timedelta(days=1)
"""A bench is done within the hour."""


@dataclass(frozen=True, slots=True)
class MutualTlsFiles:
    """PEM files of a peer that shows a certificate and checks one."""

    identity: str
    authority: Path
    certificate: Path
    key: Path

    def as_context(self) -> dict[str, Json]:
        """The files as parts of Envoy's CommonTlsContext."""
        shown: dict[str, Json] = {
            "certificate_chain": {"filename": str(self.certificate)},
            "private_key": {"filename": str(self.key)},
        }
        return {
            "tls_certificates": [shown],
            "validation_context": {"trusted_ca": {"filename": str(self.authority)}},
        }


def read_mutual_tls_files(folder: Path) -> MutualTlsFiles:
    """What `write_mutual_tls_files` made in `folder`."""
    return MutualTlsFiles(IDENTITY, folder / "ca.pem", folder / "certificate.pem", folder / "key.pem")


def write_mutual_tls_files(folder: Path) -> MutualTlsFiles:
    """Make a CA and one certificate under it, for both ends of a connection, in `folder`."""
    files = read_mutual_tls_files(folder)
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "bench")])
    authority = (
        _builder(name, name, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    alternative = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(IDENTITY)])
    certificate = (
        _builder(x509.Name([]), name, key)
        .add_extension(alternative, critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    files.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    _write_key(files.key, key)
    return files


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + LIFETIME)
    )


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(text)
