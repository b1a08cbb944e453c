"""Certificates as an attacker might hold them: of an authority of their own, or signed with a mesh's own key."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Credentials:
    """A certificate and its key, in PEM."""

    certificate: str
    key: str


def read_authority(state: Path) -> Authority:
    """The authority of a lab's controller, from its state folder."""
    key = load_pem_private_key((state / "root-key.pem").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return Authority(x509.load_pem_x509_certificate((state / "root-cert.pem").read_bytes()), key)


def forge_authority(original: x509.Certificate) -> Authority:
    """An authority that bears the original's name, with a key of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(original.subject, original.subject, key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return Authority(builder.sign(key, hashes.SHA256()), key)


def make_authority(
    name: str, issuer: Authority | None = None, *, rsa: bool = False, may_sign: bool = True
) -> Authority:
    """An authority of this name: a root, or below `issuer`."""
    key = generate_rsa(65537, 2048) if rsa else ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, issuer.certificate.subject if issuer else subject, key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=may_sign, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    usage = {"digital_signature": True, "key_cert_sign": may_sign, "crl_sign": may_sign}
    unused = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only")
    builder = builder.add_extension(
        x509.KeyUsage(**usage, **dict.fromkeys((*unused, "decipher_only"), False)), critical=True
    )
    if issuer:
        above = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
        builder = builder.add_extension(above, critical=False)
    return Authority(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


def write_authority(folder: Path, signer: Authority, roots: Sequence[Authority], chain: Sequence[Authority]) -> None:
    """Write Istio's four files, each at once."""
    key = signer.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    files = {"ca-cert.pem": _join([signer]), "ca-key.pem": key, "root-cert.pem": _join(roots)}
    for name, content in {**files, "cert-chain.pem": _join(chain)}.items():
        draft = folder / f"{name}.new"
        draft.write_bytes(content)
        draft.rename(folder / name)


def _join(authorities: Sequence[Authority]) -> bytes:
    return b"".join(each.certificate.public_bytes(Encoding.PEM) for each in authorities)


def issue(authority: Authority, *identities: str) -> Credentials:
    """A certificate for clients and servers with these URIs and DNS names as its subject alternative names."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "test")])
    builder = _builder(name, authority.certificate.subject, key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if identities:
        kinds = (x509.UniformResourceIdentifier if "://" in each else x509.DNSName for each in identities)
        names = [kind(identity) for kind, identity in zip(kinds, identities, strict=True)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    certificate = builder.sign(authority.key, hashes.SHA256())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Credentials(certificate.public_bytes(Encoding.PEM).decode(), private.decode())


def issue_server(authority: Authority, *hosts: str, lifetime: timedelta = LIFETIME) -> Credentials:
    """A server's certificate for these host names."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
    builder = _builder(name, authority.certificate.subject, key.public_key(), lifetime)
    names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
    builder = builder.add_extension(names, critical=False)
    certificate = builder.sign(authority.key, hashes.SHA256())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Credentials(certificate.public_bytes(Encoding.PEM).decode(), private.decode())


def revoke(authority: Authority, *serials: int, age: timedelta = timedelta(days=2)) -> str:
    """A revocation list of these serial numbers, in PEM. It expires after a day; ztunnels must not mind."""
    then = datetime.now(UTC) - age
    builder = x509.CertificateRevocationListBuilder().issuer_name(authority.certificate.subject)
    builder = builder.last_update(then).next_update(then + timedelta(days=1))
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(then).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def build_request() -> str:
    """A certificate signing request for a fresh key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode()


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey | RSAPublicKey,
    lifetime: timedelta = LIFETIME,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, now + lifetime) - timedelta(minutes=1))
        .not_valid_after(now + lifetime)
    )
