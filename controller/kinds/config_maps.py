"""Kubernetes' ConfigMap, as far as it holds certificates of authorities (`ca.crt`), or Istio's settings of the mesh.

Nothing else of it is kept.
"""

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from controller.kinds.certificates import parse_certificates
from controller.kinds.extension_providers import MeshConfig, parse_mesh_config
from controller.kinds.meta import KubernetesObject, Model, ObjectMeta, PlainMeta

MESH_CONFIG = "istio"
"""What the ConfigMap with the settings of the mesh is called, in the root namespace."""


def _check_certificates(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        parse_certificates(value)
    except ValueError as error:
        raise PydanticCustomError("certificate_value", "holds no certificates in PEM") from error
    return value


class _Texts(Model):
    """The keys that are read."""

    authorities: Annotated[str | None, AfterValidator(_check_certificates), Field(alias="ca.crt")] = None
    mesh: str | None = None


class ConfigMap(KubernetesObject):
    """Certificates of authorities that may vouch for a backend; or, by its name, the settings of the mesh."""

    GROUP: ClassVar[str] = ""
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1",)
    IS_OPTIONAL: ClassVar[bool] = True

    metadata: PlainMeta
    data: _Texts | None = None

    @field_validator("data")
    @classmethod
    def _check_mesh(cls, data: _Texts | None, info: ValidationInfo) -> _Texts | None:
        metadata: ObjectMeta | None = info.data.get("metadata")
        if data is None or data.mesh is None or metadata is None:
            return data
        if metadata.name != MESH_CONFIG:
            return data.model_copy(update={"mesh": None})
        parse_mesh_config(data.mesh)
        return data

    @property
    def authorities(self) -> str:
        """The certificates in PEM; empty where there are none."""
        return (self.data.authorities if self.data else None) or ""

    @property
    def mesh_config(self) -> MeshConfig:
        """The settings of the mesh."""
        return parse_mesh_config((self.data.mesh if self.data else None) or "")
