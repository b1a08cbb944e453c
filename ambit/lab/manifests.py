"""Manifests: objects as the controller's door lets them in, together with the documents they were written as."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ambit.lab.control import Json
from ambit.lab.kinds import LAB_CATALOGUE
from ambit.lab.sources import Source
from controller.kinds.meta import KubernetesObject, ObjectKey
from controller.sources.composing import Node, compose_documents
from controller.sources.documents import parse_documents
from mesh.kit.errors import InvalidInputError

__all__ = ["InvalidManifestsError", "Manifest", "ObjectKey", "find_key_of", "parse_manifests"]


class InvalidManifestsError(InvalidInputError):
    """What was given cannot be used; one line per problem: `file:line:column: object: field: reason`."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object: typed, and as it was written (its namespace filled in). `origin` is `file:line`."""

    value: KubernetesObject
    document: dict[str, Json]
    origin: str = field(default="", compare=False)

    @property
    def key(self) -> ObjectKey:
        return self.value.key


def parse_manifests(sources: Sequence[Source]) -> list[Manifest]:
    """Parse every object of every source; raises InvalidManifestsError that lists all problems."""
    manifests: dict[ObjectKey, Manifest] = {}
    problems: list[str] = []
    for source in sources:
        parsed = parse_documents(source.text, source.name, LAB_CATALOGUE)
        # A lab has no other tools: what nobody carries out is refused with the rest.
        if refused := [*parsed.problems, *parsed.passed_over]:
            problems += map(str, refused)
            continue
        # Nothing was refused, so there is a typed object for every document.
        for located, document in zip(parsed.objects, _documents(source.text), strict=True):
            manifest = Manifest(
                located.value, _with_namespace(located.value, document), f"{source.name}:{located.line}"
            )
            if manifest.key in manifests:
                first = manifests[manifest.key].origin
                problems.append(f"{manifest.origin}: {manifest.key}: is given twice (first at {first})")
            manifests[manifest.key] = manifest
    if problems:
        raise InvalidManifestsError("\n".join(problems))
    return list(manifests.values())


def build_manifest(document: dict[str, Json], origin: str) -> Manifest:
    """A manifest of our own making; an invalid one is a bug, and raises pydantic's ValidationError."""
    model = LAB_CATALOGUE[str(document["apiVersion"]), str(document["kind"])]
    return Manifest(model.model_validate(document), document, origin)


def find_key_of(keys: Iterable[ObjectKey], kind: str, name: str, namespace: str) -> ObjectKey | None:
    """The key that `KIND NAME` means, with kubectl's liberties (plurals, any case, a few short names, KIND.GROUP)."""
    wanted, _, group = kind.lower().partition(".")
    wanted = {"po": "pod", "svc": "service", "ns": "namespace", "sa": "serviceaccount"}.get(wanted, wanted)
    singulars = {wanted, wanted.removesuffix("s"), wanted.removesuffix("es"), wanted.removesuffix("ies") + "y"}
    for key in keys:
        is_kind = key.kind.lower() in singulars and group in ("", key.group)
        if is_kind and key.name == name and key.namespace in ("", namespace):
            return key
    return None


def _with_namespace(value: KubernetesObject, document: dict[str, Json]) -> dict[str, Json]:
    metadata = document.get("metadata")
    if not value.namespace or not isinstance(metadata, dict):
        return document
    return {**document, "metadata": {**metadata, "namespace": value.namespace}}


def _documents(text: str) -> Iterator[dict[str, Json]]:
    """The documents of a valid text, the items of lists one by one, without empty ones."""
    for node in compose_documents(text):
        document = _plain(node)
        if document is None:
            continue
        items = document.get("items") if isinstance(document, dict) and document.get("kind") == "List" else [document]
        if isinstance(items, list):
            yield from (item for item in items if isinstance(item, dict))


def _plain(node: Node) -> Json:
    if isinstance(node.value, list):
        return [_plain(item) for item in node.value]
    if isinstance(node.value, dict):
        return {key: _plain(item) for key, item in node.value.items()}
    return node.value
