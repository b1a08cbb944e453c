"""Certificates and keys in PEM, as objects carry them."""

from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

_FORM = Encoding.DER, PublicFormat.SubjectPublicKeyInfo


def parse_certificates(text: str) -> Sequence[x509.Certificate]:
    """All certificates of a text, of which there is one at least. Raises ValueError."""
    try:
        found = x509.load_pem_x509_certificates(text.encode())
        for each in found:
            each.public_key()  # what is inside is looked at only when it is asked for
    except (x509.InvalidVersion, UnsupportedAlgorithm) as error:
        raise ValueError("a certificate of an unknown form") from error
    return found


def parse_key(text: str) -> PrivateKeyTypes:
    """A private key without a password. Raises ValueError."""
    try:
        return load_pem_private_key(text.encode(), password=None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("a key of an unknown form, or with a password") from error


def is_key_of(key: PrivateKeyTypes, certificate: x509.Certificate) -> bool:
    """Whether a certificate is for a key."""
    return key.public_key().public_bytes(*_FORM) == certificate.public_key().public_bytes(*_FORM)
