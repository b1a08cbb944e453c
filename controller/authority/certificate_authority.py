"""Signing certificates. Pure but for the serial numbers: the time comes in as a parameter."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mesh.identity import SpiffeIdentity
from mesh.kit.errors import FatalError, InvalidInputError

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

# Istio's defaults (facts of the control plane, section 8).
DEFAULT_LIFETIME = timedelta(hours=24)
MAX_LIFETIME = timedelta(days=90)
ROOT_LIFETIME = timedelta(days=3652)
# Nodes' clocks differ; a certificate that is not valid yet on the peer is a refused connection.
CLOCK_SKEW = timedelta(minutes=2)


class InvalidLifetimeError(InvalidInputError):
    """A certificate was asked for that would live too long."""

    reason = "invalid_lifetime"


class RootExpiredError(FatalError):
    """The root certificate is no longer valid: nothing that it signs would be accepted."""

    reason = "root_expired"


@dataclass(frozen=True, slots=True)
class Signer:
    """What signs: a root, or an intermediate below one.

    `intermediates` are what a peer needs to get from a leaf to a root, in PEM, ours first; none for a root. `bundle` is
    what is trusted, in PEM: more than one root while one takes the place of another.
    """

    key: SigningKey
    certificate: x509.Certificate
    intermediates: tuple[str, ...]
    bundle: str


@dataclass(frozen=True, slots=True)
class Root:
    """The root's key and its self-signed certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def signer(self) -> Signer:
        """It signs leaves itself, and is all that is trusted."""
        return Signer(self.key, self.certificate, (), self.pem)


def build_root(key: ec.EllipticCurvePrivateKey, trust_domain: str, now: datetime) -> Root:
    """A self-signed root for `key`. It may sign leaves only: no intermediate could be slipped under it."""
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain[:64])])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + ROOT_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(identifier, critical=False)
    )
    return Root(key, builder.sign(key, hashes.SHA256()))


class CertificateAuthority:
    """Signs leaves. What it signs with may be replaced while it is used, by another thread too."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self.observers: list[Callable[[], None]] = []
        """Told once another signs."""

    def replace(self, signer: Signer) -> None:
        """Sign with another from now on."""
        self._signer = signer
        for observe in self.observers:
            observe()

    @property
    def root_pem(self) -> str:
        """The trust bundle: what agents verify the mesh and the controller with."""
        return self._signer.bundle

    @property
    def signer(self) -> Signer:
        """What signs at present."""
        return self._signer

    @property
    def expiry(self) -> datetime:
        """When what signs ends."""
        return self._signer.certificate.not_valid_after_utc

    @property
    def root_expiry(self) -> datetime:
        """When the first of the trusted roots ends."""
        return _find_end(self._signer.bundle)

    @property
    def chain_expiry(self) -> datetime:
        """When what signs ends, or something above it below a root, if that is earlier."""
        return min([self.expiry, *map(_find_end, self._signer.intermediates)])

    def sign_workload(
        self, key: CertificatePublicKeyTypes, identity: SpiffeIdentity, lifetime: timedelta, now: datetime
    ) -> Sequence[str]:
        """Certify that `key` belongs to `identity`: the PEM chain, leaf first, the trust bundle last.

        `lifetime` of zero or less means the default. Raises InvalidLifetimeError, RootExpiredError.
        """
        if lifetime > MAX_LIFETIME:
            raise InvalidLifetimeError(f"a lifetime of {lifetime} was asked for; at most {MAX_LIFETIME} is given")
        signer = self._signer
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(identity))])
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        # RFC 5280, 4.1.2.6: without a subject, the alternative name is critical.
        builder = _leaf(signer, key, lifetime if lifetime > timedelta() else DEFAULT_LIFETIME, now)
        builder = builder.add_extension(names, critical=True).add_extension(
            x509.ExtendedKeyUsage(usages), critical=False
        )
        return [_sign(signer, builder), *signer.intermediates, signer.bundle]

    def sign_server(
        self, key: CertificatePublicKeyTypes, names: Iterable[str], lifetime: timedelta, now: datetime
    ) -> str:
        """A certificate for the controller's own listener, under DNS names and IP addresses: the chain in PEM."""
        signer = self._signer
        alternatives = x509.SubjectAlternativeName([_parse_name(name) for name in dict.fromkeys(names)])
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        builder = _leaf(signer, key, lifetime, now).add_extension(alternatives, critical=True)
        leaf = _sign(signer, builder.add_extension(usage, critical=False))
        return leaf + ("".join(signer.intermediates) or signer.bundle)


def _find_end(pem: str) -> datetime:
    return min(each.not_valid_after_utc for each in x509.load_pem_x509_certificates(pem.encode()))


def _leaf(
    signer: Signer, key: CertificatePublicKeyTypes, lifetime: timedelta, now: datetime
) -> x509.CertificateBuilder:
    issuer = signer.certificate
    if now >= issuer.not_valid_after_utc:
        raise RootExpiredError(f"the root certificate expired at {issuer.not_valid_after_utc}; make a new one")
    return (
        x509.CertificateBuilder(subject_name=x509.Name([]), issuer_name=issuer.subject, public_key=key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(now - CLOCK_SKEW, issuer.not_valid_before_utc))
        .not_valid_after(min(now + lifetime, issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()), critical=False)
    )


def _sign(signer: Signer, builder: x509.CertificateBuilder) -> str:
    certificate = builder.sign(signer.key, hashes.SHA256())
    return certificate.public_bytes(Encoding.PEM).decode()


def read_clock() -> datetime:
    """The wall clock, with its zone."""
    return datetime.now(UTC)


def _parse_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
