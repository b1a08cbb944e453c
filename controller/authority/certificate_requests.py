"""Judging a certificate signing request: the key must be strong, and the sender must own it. Nothing else of it counts.

Names in the request are ignored: whose certificate it becomes is decided by who asks (facts of the control plane,
section 8).
"""

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from mesh.kit.errors import InvalidInputError

# An RSA-4096 request is under 3 KiB of PEM.
MAX_CSR_CHARACTERS = 16 * 1024
MIN_RSA_BITS = 2048
# Larger keys only make us and every handshake slow.
MAX_RSA_BITS = 4096


class InvalidRequestError(InvalidInputError):
    """A certificate signing request that cannot be signed."""

    reason = "invalid_csr"


class WeakKeyError(InvalidRequestError):
    """The request's key is of a kind or size that is not accepted."""

    reason = "weak_key"


def parse_request(pem: str) -> CertificatePublicKeyTypes:
    """The public key of a PEM request whose signature proves that its sender has the private one.

    Raises InvalidRequestError, WeakKeyError.
    """
    if len(pem) > MAX_CSR_CHARACTERS:
        raise InvalidRequestError(f"a request of {len(pem)} characters: at most {MAX_CSR_CHARACTERS} are taken")
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        key = request.public_key()
        is_owned = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise InvalidRequestError("not a certificate signing request in PEM") from error
    _check_key(key)
    if not is_owned:
        raise InvalidRequestError("the request's signature is not by its own key")
    return key


def _check_key(key: object) -> None:
    if isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
            raise WeakKeyError(f"curve {key.curve.name} is not accepted: P-256 or P-384")
    elif isinstance(key, rsa.RSAPublicKey):
        if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            raise WeakKeyError(f"RSA with {key.key_size} bits is not accepted: {MIN_RSA_BITS} to {MAX_RSA_BITS}")
    elif not isinstance(key, ed25519.Ed25519PublicKey):
        raise WeakKeyError(f"keys of type {type(key).__name__} are not accepted: ECDSA P-256/P-384, RSA or Ed25519")
