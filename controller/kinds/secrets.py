"""Kubernetes' Secret, as far as it holds a certificate and its key. Nothing else of it is kept.

A Secret is read where it is of type kubernetes.io/tls, or Opaque with `tls.crt` and `tls.key`; every other one is known
by its name only. What Envoy would refuse is refused here, so that a listener never waits for a certificate in vain.
"""

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, ClassVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from controller.kinds.certificates import is_key_of, parse_certificates, parse_key
from controller.kinds.meta import KubernetesObject, Model, PlainMeta

TLS_TYPE = "kubernetes.io/tls"
OPAQUE_TYPE = "Opaque"
# What Envoy (BoringSSL) takes: anything less is a NACK of the proxy.
_LEAST_RSA_BITS = 2048
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


def _decode(value: object) -> object:
    if value is None:
        return None
    if not isinstance(value, str):
        raise PydanticCustomError("bytes_value", "must be base64, as text")
    try:
        return SecretStr(base64.b64decode("".join(value.split()), validate=True).decode())
    except (binascii.Error, ValueError) as error:
        raise PydanticCustomError("bytes_value", "is no base64 of a text") from error


def _hide(value: object) -> object:
    return SecretStr(value) if isinstance(value, str) else value


class _Texts(Model):
    """The keys that are read. None of them is ever shown, not even a certificate."""

    certificate: Annotated[SecretStr | None, BeforeValidator(_hide), Field(alias="tls.crt")] = None
    key: Annotated[SecretStr | None, BeforeValidator(_hide), Field(alias="tls.key")] = None


class _EncodedTexts(_Texts):
    """The same, each as base64."""

    certificate: Annotated[SecretStr | None, BeforeValidator(_decode), Field(alias="tls.crt")] = None
    key: Annotated[SecretStr | None, BeforeValidator(_decode), Field(alias="tls.key")] = None


class Secret(KubernetesObject):
    """A certificate with its key. `string_data` goes before `data`, as on Kubernetes."""

    GROUP: ClassVar[str] = ""
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1",)
    HIDES_VALUES: ClassVar[bool] = True
    IS_OPTIONAL: ClassVar[bool] = True
    # The API server keeps these for itself: tokens, registries' passwords, and Helm's releases, which are large.
    FIELD_SELECTOR: ClassVar[str] = ",".join(
        f"type!={each}"
        for each in (
            "kubernetes.io/service-account-token",
            "kubernetes.io/dockercfg",
            "kubernetes.io/dockerconfigjson",
            "kubernetes.io/basic-auth",
            "kubernetes.io/ssh-auth",
            "bootstrap.kubernetes.io/token",
            "helm.sh/release.v1",
        )
    )

    metadata: PlainMeta
    type: str = OPAQUE_TYPE
    data: _EncodedTexts = _EncodedTexts()
    string_data: _Texts = _Texts()

    @model_validator(mode="before")
    @classmethod
    def _forget(cls, value: object) -> object:
        """What is of another type is kept by its name only, whatever it holds; so is an absent `data`."""
        if not isinstance(value, Mapping):
            return value
        is_read = value.get("type", OPAQUE_TYPE) in (TLS_TYPE, OPAQUE_TYPE)
        unread = {name for name in ("data", "stringData") if not is_read or value.get(name) is None}
        return {name: each for name, each in value.items() if name not in unread}

    @model_validator(mode="after")
    def _check_pair(self) -> "Secret":
        certificate, key = self.certificate, self.private_key
        if certificate and key:
            _check_pair(certificate, key)
        elif self.type == TLS_TYPE:
            raise PydanticCustomError("certificate_value", "a Secret of this type has both tls.crt and tls.key")
        return self

    @property
    def certificate(self) -> str:
        """The chain in PEM, the certificate itself first; empty where there is none."""
        return _reveal(self.string_data.certificate or self.data.certificate)

    @property
    def private_key(self) -> str:
        """The key in PEM; empty where there is none."""
        return _reveal(self.string_data.key or self.data.key)

    @property
    def has_pair(self) -> bool:
        """Whether there is a certificate with its key."""
        return bool(self.certificate and self.private_key)

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate itself. Only where there is a pair."""
        return parse_certificates(self.certificate)[0]

    def is_expired(self, now: datetime) -> bool:
        """Whether its certificate is no more valid; False where it has none."""
        return self.has_pair and self.leaf.not_valid_after_utc < now


def _reveal(text: SecretStr | None) -> str:
    return text.get_secret_value() if text else ""


def _check_pair(certificate: str, key: str) -> None:
    try:
        leaf = parse_certificates(certificate)[0]
    except ValueError as error:
        raise PydanticCustomError("certificate_value", "tls.crt holds no certificates in PEM") from error
    try:
        private = parse_key(key)
    except ValueError as error:
        raise PydanticCustomError("certificate_value", "tls.key holds no key in PEM without a password") from error
    is_rsa = isinstance(private, rsa.RSAPrivateKey) and private.key_size >= _LEAST_RSA_BITS
    is_curve = isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(private.curve, _CURVES)
    if not is_rsa and not is_curve:
        raise PydanticCustomError("certificate_value", "the key is neither RSA of 2048 bits or more nor of a P curve")
    if not is_key_of(private, leaf):
        raise PydanticCustomError("certificate_value", "tls.key is not the key of the first certificate of tls.crt")
