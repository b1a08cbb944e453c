"""Kubernetes' ConfigMap, as far as it holds certificates of authorities (`ca.crt`). Nothing else of it is kept."""

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from controller.kinds.certificates import parse_certificates
from controller.kinds.meta import KubernetesObject, Model, PlainMeta


def _check_certificates(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        parse_certificates(value)
    except ValueError as error:
        raise PydanticCustomError("certificate_value", "holds no certificates in PEM") from error
    return value


class _Texts(Model):
    """The one key that is read."""

    authorities: Annotated[str | None, AfterValidator(_check_certificates), Field(alias="ca.crt")] = None


class ConfigMap(KubernetesObject):
    """Certificates of authorities that may vouch for a backend."""

    GROUP: ClassVar[str] = ""
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1",)
    IS_OPTIONAL: ClassVar[bool] = True

    metadata: PlainMeta
    data: _Texts | None = None

    @property
    def authorities(self) -> str:
        """The certificates in PEM; empty where there are none."""
        return (self.data.authorities if self.data else None) or ""
