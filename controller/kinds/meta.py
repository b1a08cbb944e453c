"""What all kinds have in common: names, metadata, and the strictness of their models."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

# RFC 1123 subdomain, as Kubernetes applies it to the names of objects (253 characters; 63 for a label).
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
MAX_NAME_CHARACTERS = 253
MAX_LABEL_CHARACTERS = 63

DEFAULT_NAMESPACE = "default"

GroupKind = tuple[str, str]
"""An API group and a kind of it: which kind is meant. Names of kinds alone are not unique among groups."""


@dataclass(frozen=True, slots=True, order=True)
class ObjectKey:
    """Which object. `namespace` is empty for kinds that have none; versions of one group are the same object."""

    group: str
    kind: str
    namespace: str
    name: str

    @property
    def group_kind(self) -> GroupKind:
        """Which kind, to be compared with a model's."""
        return self.group, self.kind

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


def check_subdomain(value: str) -> str:
    """A name of an object. For use by validators."""
    if len(value) > MAX_NAME_CHARACTERS or not _SUBDOMAIN.fullmatch(value):
        raise PydanticCustomError(
            "invalid_name",
            "must be a name of lower-case letters, digits, '-' and '.', at most 253 characters, "
            "beginning and ending with a letter or digit",
        )
    return value


def check_label(value: str) -> str:
    """A name of a namespace. For use by validators."""
    if len(value) > MAX_LABEL_CHARACTERS or not _LABEL.fullmatch(value):
        raise PydanticCustomError(
            "invalid_name",
            "must be a name of lower-case letters, digits and '-', at most 63 characters, "
            "beginning and ending with a letter or digit",
        )
    return value


SubdomainName = Annotated[str, AfterValidator(check_subdomain)]
LabelName = Annotated[str, AfterValidator(check_label)]
PortNumber = Annotated[int, Field(ge=1, le=65535)]


_FIELD_SETS: dict[frozenset[str], set[str]] = {}
"""One of each, for all models: pydantic gives every model a set of the fields that were given to it, 200 to 700 bytes,
and a mesh of 10,000 pods has 100,000 models but some dozens of such sets. Nobody changes one: models are frozen."""
# Far more than the kinds have in practice: who writes every combination of fields does not fill the memory.
MAX_FIELD_SETS = 10_000


class Model(BaseModel):
    """A part of an object. Immutable; field names are camelCase outside and snake_case here; nothing is coerced."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    def model_post_init(self, context: object, /) -> None:
        """Share the set of the fields that were given. Overridden, this must be called."""
        given = self.__pydantic_fields_set__
        names = frozenset(given)
        if names in _FIELD_SETS or len(_FIELD_SETS) < MAX_FIELD_SETS:
            object.__setattr__(self, "__pydantic_fields_set__", _FIELD_SETS.setdefault(names, given))


class StrictModel(Model):
    """A part in which an unknown field is refused: ignoring it would change what its author meant."""

    model_config = ConfigDict(extra="forbid")


class OwnerReference(Model):
    """Who created the object: gives a pod the name of its Deployment or Job."""

    kind: str
    name: str
    controller: bool | None = None


class ObjectMeta(Model):
    """Metadata as Kubernetes has it. Timestamps stay RFC 3339 text: they are only compared, and UTC sorts as text."""

    name: SubdomainName
    namespace: LabelName | None = None
    uid: str | None = None
    generation: int | None = None
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    owner_references: Sequence[OwnerReference] | None = None


class PlainMeta(ObjectMeta):
    """Metadata without annotations: kubectl writes the whole object into one of them, and it may be secret or large."""

    @field_validator("annotations", mode="before")
    @classmethod
    def _drop(cls, _: object) -> Mapping[str, str] | None:
        return None


class KubernetesObject(Model):
    """One object of any kind.

    Subclasses say their group, the versions they accept and whether they have a namespace; whether what they hold is
    never shown, nor written down; whether a controller that may not read them goes on without; and which of them an API
    server need not tell of (a field selector). They are called like their kind, unless they say another.
    """

    GROUP: ClassVar[str]
    KIND: ClassVar[str]
    GROUP_KIND: ClassVar[GroupKind]
    VERSIONS: ClassVar[tuple[str, ...]]
    IS_NAMESPACED: ClassVar[bool] = True
    HIDES_VALUES: ClassVar[bool] = False
    IS_OPTIONAL: ClassVar[bool] = False
    FIELD_SELECTOR: ClassVar[str] = ""

    api_version: str
    kind: str
    metadata: ObjectMeta

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "KIND" not in cls.__dict__:
            cls.KIND = cls.__name__
        cls.GROUP_KIND = getattr(cls, "GROUP", ""), cls.KIND

    @property
    def key(self) -> ObjectKey:
        return ObjectKey(self.GROUP, self.KIND, self.namespace, self.name)

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """The namespace that the object is in: `default` where the author wrote none, empty for kinds without."""
        return (self.metadata.namespace or DEFAULT_NAMESPACE) if self.IS_NAMESPACED else ""

    @property
    def labels(self) -> Mapping[str, str]:
        return self.metadata.labels or {}

    @property
    def annotations(self) -> Mapping[str, str]:
        return self.metadata.annotations or {}

    @property
    def age_key(self) -> tuple[str, str, str]:
        """Sorts objects oldest first; objects without a timestamp come last, by name."""
        return (self.metadata.creation_timestamp or "9999", self.namespace, self.name)


class StrictObject(KubernetesObject):
    """An object whose unknown fields are refused beside its spec too, lest a misspelt `spec` make it empty."""

    model_config = ConfigDict(extra="forbid")

    status: object = None
