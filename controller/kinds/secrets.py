"""Kubernetes' Secret, as far as it holds a certificate and its key, or authorities. Nothing else of it is kept.

A Secret is read where it is of type kubernetes.io/tls or Opaque, by the keys of the former (`tls.crt`, `tls.key`,
`ca.crt`, `ca.crl`) or by Istio's (`cert`, `key`, `cacert`, `crl`), which go before; every other one is known by its name
only. What Envoy would refuse is refused here, so that a listener never waits for a certificate in vain.

Keys that are called as anything may be are read only where PEM is in them: they are other programs' else.
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

from controller.kinds.certificates import check_revocations, is_key_of, parse_certificates, parse_key
from controller.kinds.meta import KubernetesObject, Model, PlainMeta

TLS_TYPE = "kubernetes.io/tls"
OPAQUE_TYPE = "Opaque"
PAIR_KEYS, GENERIC_PAIR_KEYS = ("tls.crt", "tls.key"), ("cert", "key")
AUTHORITY_KEYS = ("ca.crt", "cacert")
REVOCATION_KEYS = ("ca.crl", "crl")
_PEM_BEGINS = "-----BEGIN "
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


def _keep_pem(value: object) -> object:
    """The text where it is PEM; of anything else nothing is kept."""
    return SecretStr(value) if isinstance(value, str) and _PEM_BEGINS in value else None


def _decode_pem(value: object) -> object:
    try:
        return _keep_pem(base64.b64decode("".join(value.split())).decode()) if isinstance(value, str) else None
    except ValueError:
        return None


_Text = Annotated[SecretStr | None, BeforeValidator(_hide)]
_Encoded = Annotated[SecretStr | None, BeforeValidator(_decode)]
_Pem = Annotated[SecretStr | None, BeforeValidator(_keep_pem)]
_EncodedPem = Annotated[SecretStr | None, BeforeValidator(_decode_pem)]


class _Texts(Model):
    """The keys that are read. None of them is ever shown, not even a certificate."""

    certificate: Annotated[_Text, Field(alias="tls.crt")] = None
    key: Annotated[_Text, Field(alias="tls.key")] = None
    authorities: Annotated[_Pem, Field(alias="ca.crt")] = None
    revocations: Annotated[_Pem, Field(alias="ca.crl")] = None
    generic_certificate: Annotated[_Pem, Field(alias="cert")] = None
    generic_key: Annotated[_Pem, Field(alias="key")] = None
    generic_authorities: Annotated[_Pem, Field(alias="cacert")] = None
    generic_revocations: Annotated[_Pem, Field(alias="crl")] = None


class _EncodedTexts(_Texts):
    """The same, each as base64."""

    certificate: Annotated[_Encoded, Field(alias="tls.crt")] = None
    key: Annotated[_Encoded, Field(alias="tls.key")] = None
    authorities: Annotated[_EncodedPem, Field(alias="ca.crt")] = None
    revocations: Annotated[_EncodedPem, Field(alias="ca.crl")] = None
    generic_certificate: Annotated[_EncodedPem, Field(alias="cert")] = None
    generic_key: Annotated[_EncodedPem, Field(alias="key")] = None
    generic_authorities: Annotated[_EncodedPem, Field(alias="cacert")] = None
    generic_revocations: Annotated[_EncodedPem, Field(alias="crl")] = None


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
    def _check(self) -> "Secret":
        certificate, key = self._pair
        if certificate and key:
            _check_pair(certificate, key)
        elif self.type == TLS_TYPE:
            raise PydanticCustomError("certificate_value", "a Secret of this type has both tls.crt and tls.key")
        _check_authorities(self.authorities, self.revocations)
        return self

    @property
    def _pair(self) -> tuple[str, str]:
        generic = self._find("generic_certificate"), self._find("generic_key")
        return generic if all(generic) else (self._find("certificate"), self._find("key"))

    def _find(self, name: str) -> str:
        return _reveal(getattr(self.string_data, name) or getattr(self.data, name))

    @property
    def certificate(self) -> str:
        """The chain in PEM, the certificate itself first; empty where there is none."""
        return self._pair[0]

    @property
    def private_key(self) -> str:
        """The key in PEM; empty where there is none."""
        return self._pair[1]

    @property
    def authorities(self) -> str:
        """Whose certificates of clients are believed, in PEM; empty where it does not say."""
        return self._find("generic_authorities") or self._find("authorities")

    @property
    def revocations(self) -> str:
        """Which of these were taken back, as lists in PEM; empty where there are none."""
        return self._find("generic_revocations") or self._find("revocations")

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


def _check_authorities(authorities: str, revocations: str) -> None:
    try:
        if authorities:
            parse_certificates(authorities)
    except ValueError as error:
        raise PydanticCustomError("certificate_value", "its authorities are no certificates in PEM") from error
    try:
        if revocations:
            check_revocations(revocations)
    except ValueError as error:
        raise PydanticCustomError("certificate_value", "its revocation lists are none in PEM") from error
