"""All objects at one moment, as one immutable value.

A change makes a new snapshot that shares all it did not touch with the old one: applying a change copies one table's
outline and the namespaces that it touches, not the mesh.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from controller.kinds.meta import GroupKind, KubernetesObject, ObjectKey

Object = TypeVar("Object", bound=KubernetesObject)

Changes = Mapping[ObjectKey, KubernetesObject | None]
"""What changed: an object's new state by its key, None when it is gone."""

_Table = Mapping[str, Mapping[str, KubernetesObject]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One version of the configuration: objects by kind, namespace and name.

    Versions count up from 0, the empty one.
    """

    version: int = 0
    _tables: Mapping[GroupKind, _Table] = field(default_factory=dict)

    def apply(self, changes: Changes) -> "Snapshot":
        """The next version: this one with `changes`."""
        tables: dict[GroupKind, dict[str, dict[str, KubernetesObject]]] = {}
        for key, value in changes.items():
            table = tables.setdefault(key.group_kind, {})
            if key.namespace not in table:
                table[key.namespace] = dict(self._tables.get(key.group_kind, {}).get(key.namespace, {}))
            if value is None:
                table[key.namespace].pop(key.name, None)
            else:
                table[key.namespace][key.name] = value
        merged: dict[GroupKind, _Table] = dict(self._tables)
        for kind, table in tables.items():
            merged[kind] = {**self._tables.get(kind, {}), **table}
        return Snapshot(self.version + 1, merged)

    def find(self, model: type[Object], namespace: str, name: str) -> Object | None:
        """The object of that kind and name; `namespace` is empty for kinds without."""
        found = self._tables.get(model.GROUP_KIND, {}).get(namespace, {}).get(name)
        return found if isinstance(found, model) else None

    def objects_in(self, model: type[Object], namespace: str) -> Iterator[Object]:
        """The objects of a kind in one namespace."""
        for found in self._tables.get(model.GROUP_KIND, {}).get(namespace, {}).values():
            if isinstance(found, model):
                yield found

    def objects(self, model: type[Object]) -> Iterator[Object]:
        """The objects of a kind in all namespaces."""
        for namespace in self._tables.get(model.GROUP_KIND, {}):
            yield from self.objects_in(model, namespace)

    @property
    def object_count(self) -> int:
        return sum(len(names) for table in self._tables.values() for names in table.values())

    def keys(self) -> list[ObjectKey]:
        """The keys of all objects, sorted."""
        tables = self._tables.values()
        return sorted(value.key for table in tables for names in table.values() for value in names.values())

    def values(self) -> list[KubernetesObject]:
        """All objects, sorted by kind, namespace and name."""
        return [
            table[namespace][name]
            for _, table in sorted(self._tables.items())
            for namespace in sorted(table)
            for name in sorted(table[namespace])
        ]

    def count(self, model: type[KubernetesObject]) -> int:
        return sum(map(len, self._tables.get(model.GROUP_KIND, {}).values()))
