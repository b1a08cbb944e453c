"""Objects without what is secret, for a file that goes to somebody else, and with something in its place again.

Of a Secret only stays which keys it has. What is built from objects depends on whether it holds a certificate and a
key, and not on which; so a replay puts a throwaway pair there.
"""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from controller.sources.documents import PlainObject

HIDDEN = "[not written]"
# kubectl writes the whole object there, with what we do not even read: a pod's environment, for one.
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_SECRET = ("v1", "Secret")
_ENCODED, _PLAIN = "data", "stringData"
_CERTIFICATE, _KEY = "tls.crt", "tls.key"
_READ_TYPES = ("kubernetes.io/tls", "Opaque")
_LIFETIME = timedelta(days=1)


def hide_object(document: PlainObject) -> PlainObject:
    """The same object without what is secret."""
    if is_secret(document):
        return _hide_secret(document)
    hidden = dict(document)
    metadata = hidden.get("metadata")
    if isinstance(metadata, Mapping) and isinstance(annotations := metadata.get("annotations"), Mapping):
        kept = {key: value for key, value in annotations.items() if key != LAST_APPLIED}
        hidden["metadata"] = {**metadata, "annotations": kept}
    return hidden


def _hide_secret(document: PlainObject) -> PlainObject:
    """What is left of a Secret. Its type and labels are any text, and may be what should have stood in its data."""
    metadata = document.get("metadata")
    names = {name: metadata.get(name) for name in ("name", "namespace")} if isinstance(metadata, Mapping) else {}
    hidden = {"apiVersion": document.get("apiVersion"), "kind": document.get("kind"), "metadata": names}
    for name in (_ENCODED, _PLAIN):
        if isinstance(values := document.get(name), Mapping):
            hidden[name] = {each: HIDDEN for each in (_CERTIFICATE, _KEY) if each in values}
    if "type" in document:
        hidden["type"] = document["type"] if document["type"] in _READ_TYPES else HIDDEN
    return hidden


def fill_object(document: PlainObject) -> PlainObject:
    """An object that `hide_object` gave, valid again: where a Secret had a certificate and a key, it has others."""
    if not is_secret(document):
        return document
    certificate, key = _make_pair()
    filled = dict(document)
    for name in (_ENCODED, _PLAIN):
        if isinstance(values := document.get(name), Mapping):
            pair = {_CERTIFICATE: certificate, _KEY: key}
            texts = {each: pair.get(each, HIDDEN) for each in values}
            filled[name] = {each: _encode(text) for each, text in texts.items()} if name == _ENCODED else texts
    return filled


def is_secret(document: PlainObject) -> bool:
    """Whether an object is Kubernetes' Secret."""
    return (document.get("apiVersion"), document.get("kind")) == _SECRET


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@cache
def _make_pair() -> tuple[str, str]:
    """A certificate and its key, in PEM, that nobody trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "replay")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - _LIFETIME).not_valid_after(now + _LIFETIME)
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    return certificate, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
