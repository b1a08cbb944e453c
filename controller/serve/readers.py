"""What one client may see of resources that are not for everybody (decision 0012).

Whatever a client asks, by name, by key or for everything, in either form of the protocol, is looked up in its own view:
there is no other way to a secret. The view is empty for who has not proved to be a reader.
"""

from collections.abc import Iterable, Iterator, Mapping

from controller.serve.resources import Resource, ResourceTable, frame_all

NOBODY = "nobody"
"""A key that no resource has: what a client that may see nothing means by everything."""


class ReaderTable(ResourceTable):
    """A table as the holder of the key `reader` sees it. It is read only, and follows the table."""

    def __init__(self, table: ResourceTable, reader: str) -> None:
        super().__init__()
        self._table = table
        self._reader = reader

    def __len__(self) -> int:
        return sum(1 for _ in self.names())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.find(name) is not None

    def find(self, name: str) -> Resource | None:
        resource = self._table.find(name)
        return resource if resource is not None and self._reader in resource.keys else None

    def version(self, name: str) -> str | None:
        resource = self.find(name)
        return resource.version if resource else None

    def names(self) -> Iterable[str]:
        return [name for name in self._table.find_names(self._reader) if name in self]

    def find_differing(self, versions: Mapping[str, str], client_keys: Iterable[str] = ()) -> set[str]:
        differing = {name for name in self.names() if versions.get(name) != self.version(name)}
        return differing | {name for name in versions if name not in self}

    @property
    def framed(self) -> bytes:
        return frame_all(resource for name in self.names() if (resource := self.find(name)) is not None)

    def find_names(self, key: str) -> Iterator[str]:
        return (name for name in self._table.find_names(key) if name in self)
