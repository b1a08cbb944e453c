"""What a dump's objects become, built from nothing by the code that serves, beside what the dump says was served. Pure.

Equal objects give equal resources, whatever changes led to them: a difference is a fault of ours, or another version.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from controller.inspection.dump import Dump, Versions
from controller.publication import build_changes
from controller.routing.publication import Routing
from controller.serve.resources import Form, Resource, name_form
from controller.snapshot import Snapshot

_SECRET_SUFFIX = ".Secret"

Rebuilt = Mapping[str, Mapping[str, Form]]
"""What goes out, by type URL and name; other forms than the common one have names of their own."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A resource that the dump has in another version, or that only one of the two has: that one's is not empty."""

    type_url: str
    name: str
    dumped: str
    rebuilt: str


def rebuild(dump: Dump) -> Rebuilt:
    """All resources of a dump's objects."""
    changes = {value.key: value for value in dump.objects}
    snapshot = Snapshot().apply(changes)
    publications = [build_changes(Snapshot(), snapshot, changes, dump.mesh)]
    if dump.has_routes:
        routing = Routing(dump.mesh)
        publications.append(routing.build(snapshot))
        publications += [routing.open(snapshot, ingress) for ingress in dump.ingresses]
    rebuilt: dict[str, dict[str, Resource]] = {}
    for publication in publications:
        for type_url, found in publication.items():
            resources = rebuilt.setdefault(type_url, {})
            resources.update(found.updated)
            for name in found.removed:
                resources.pop(name, None)
    return {type_url: dict(_list_forms(found.values())) for type_url, found in rebuilt.items()}


def _list_forms(resources: Iterable[Resource]) -> Iterator[tuple[str, Form]]:
    for each in resources:
        yield each.name, Form(each.version, each.wire)
        for key, form in each.forms.items():
            yield name_form(each.name, key), form


def list_versions(rebuilt: Rebuilt) -> Versions:
    """The versions of resources."""
    return {
        type_url: {name: resource.version for name, resource in sorted(found.items())}
        for type_url, found in sorted(rebuilt.items())
    }


def compare(dumped: Versions, rebuilt: Versions) -> list[Difference]:
    """What differs, by type and name. Of secrets, whose content no dump has, only the names count."""
    differences = []
    for type_url in sorted(dumped.keys() | rebuilt.keys()):
        before, after = dumped.get(type_url, {}), rebuilt.get(type_url, {})
        for name in sorted(before.keys() | after.keys()):
            old, new = before.get(name, ""), after.get(name, "")
            is_secret = type_url.endswith(_SECRET_SUFFIX) and old and new
            if old != new and not is_secret:
                differences.append(Difference(type_url, name, old, new))
    return differences
