"""All that decides what a controller serves, at one moment, as one file: for whoever looks into it elsewhere.

    {"format": 1, "version": "0.1.0", "written_at": ..., "settings": {...}, "mesh": {...}, "clients": [...],
     "problems": [...], "objects": [{"is_held": false, "object": {...}}, ...], "has_routes": true, "ingresses": [...],
     "resources": {TYPE-URL: {NAME: VERSION}}}

Objects are those that serve; one whose present form is invalid is there in the earlier form that serves (`is_held`),
and what is wrong with the present one is among the problems. No secrets, tokens or keys are in it, nor are the contents
of resources: a replay builds them anew (`replay`).

Taking it (`capture`) is quick and happens between two awaits; writing 100,000 objects is not, and goes piece by piece.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from pydantic import TypeAdapter, ValidationError

from controller.configuration import Configuration
from controller.inspection.clients import list_clients
from controller.inspection.hiding import fill_object, hide_object
from controller.kinds.catalogue import CATALOGUE, build_catalogue
from controller.kinds.key_set import KeySet
from controller.kinds.meta import KubernetesObject, ObjectKey
from controller.registry.names import MeshSettings
from controller.registry.proxies import Ingress
from controller.serve.hub import Hub
from controller.sources.problems import Problem
from mesh.kit.errors import InvalidInputError

FORMAT = 1
_KINDS = {**CATALOGUE, **build_catalogue(KeySet)}
_MESH = TypeAdapter(MeshSettings)
_INGRESSES = TypeAdapter(list[Ingress])

Versions = Mapping[str, Mapping[str, str]]
"""Versions of resources, by type URL and name."""


class InvalidDumpError(InvalidInputError):
    """A file is no dump that can be read."""

    reason = "invalid_dump"


@dataclass(frozen=True, slots=True)
class Dump:
    """What is written. `settings` are for reading only; what is built depends on `mesh`.

    `has_routes` says whether Envoy's resources were served, which they are once a client has asked for one;
    `ingresses` are the ingress gateways of which proxies were there, without which nothing is built for them.
    """

    version: str
    written_at: str
    settings: Mapping[str, object]
    mesh: MeshSettings
    objects: Sequence[KubernetesObject]
    held: frozenset[ObjectKey]
    problems: Sequence[Mapping[str, object]]
    has_routes: bool
    ingresses: Sequence[Ingress]
    resources: Versions
    clients: Sequence[Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Moment:
    """When a dump is taken: RFC 3339 text, and the monotonic clock."""

    written_at: str
    monotonic: float


def capture(
    configuration: Configuration, hub: Hub, mesh: MeshSettings, settings: Mapping[str, object], moment: Moment
) -> Dump:
    """The present state."""
    return Dump(
        version=version("ambit"),
        written_at=moment.written_at,
        settings=settings,
        mesh=mesh,
        objects=configuration.snapshot.values(),
        held=configuration.held,
        problems=[describe_problem(each) for each in configuration.problems],
        has_routes=hub.publish_routing is None,
        ingresses=hub.ingresses,
        resources={type_url: dict(table.versions()) for type_url, table in hub.tables.items()},
        clients=list_clients(hub, moment.monotonic),
    )


def describe_problem(problem: Problem) -> dict[str, object]:
    """A problem, for a page or a file."""
    return {
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "object": str(problem.key) if problem.key else "",
        "path": problem.path,
        "value": problem.value,
        "reason": problem.reason.value,
        "code": problem.code,
        "message": problem.message,
    }


def encode_dump(dump: Dump) -> Iterator[str]:
    """The file's text in pieces, an object each."""
    head = {
        "format": FORMAT,
        "version": dump.version,
        "written_at": dump.written_at,
        "settings": dump.settings,
        "mesh": _MESH.dump_python(dump.mesh, mode="json"),
        "has_routes": dump.has_routes,
        "ingresses": _INGRESSES.dump_python(list(dump.ingresses), mode="json"),
        "clients": dump.clients,
        "problems": dump.problems,
    }
    yield json.dumps(head, indent=1).removesuffix("\n}") + ',\n "objects": ['
    separator = "\n"
    for value in dump.objects:
        document = hide_object(value.model_dump(mode="json", by_alias=True, exclude_none=True))
        yield f"{separator}  {json.dumps({'is_held': value.key in dump.held, 'object': document})}"
        separator = ",\n"
    yield '\n ],\n "resources": {'
    separator = "\n"
    for type_url, versions in dump.resources.items():
        yield f"{separator}  {json.dumps(type_url)}: {{"
        yield from _encode_versions(versions)
        separator = "},\n"
    yield "}\n }\n}\n" if dump.resources else "}\n}\n"


def _encode_versions(versions: Mapping[str, str]) -> Iterator[str]:
    separator = "\n"
    for name, found in sorted(versions.items()):
        yield f"{separator}   {json.dumps(name)}: {json.dumps(found)}"
        separator = ",\n"


def parse_dump(text: str) -> Dump:
    """The dump of a text that `encode_dump` made. Raises InvalidDumpError."""
    try:
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise InvalidDumpError(f"this is a dump of format {document['format']}; format {FORMAT} is read here")
        found = [(_parse_object(each["object"]), bool(each["is_held"])) for each in document["objects"]]
        return Dump(
            version=str(document["version"]),
            written_at=str(document["written_at"]),
            settings=document["settings"],
            mesh=_MESH.validate_python(document["mesh"]),
            objects=[value for value, _ in found],
            held=frozenset(value.key for value, is_held in found if is_held),
            problems=document["problems"],
            has_routes=bool(document["has_routes"]),
            ingresses=_INGRESSES.validate_python(document["ingresses"]),
            resources={
                str(type_url): {str(name): str(found) for name, found in versions.items()}
                for type_url, versions in document["resources"].items()
            },
            clients=document["clients"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidDumpError(f"this is no dump of a controller: {type(error).__name__} {error}") from error


def _parse_object(document: Mapping[str, object]) -> KubernetesObject:
    kind = str(document["apiVersion"]), str(document["kind"])
    if kind not in _KINDS:
        raise InvalidDumpError(f"the dump has objects of {' '.join(kind)}, which this version does not know")
    try:
        return _KINDS[kind].model_validate(fill_object(document))
    except ValidationError as error:
        raise InvalidDumpError(f"an object of the dump is not valid in this version: {error}") from error
