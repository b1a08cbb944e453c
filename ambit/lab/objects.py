"""The lab's API server, as far as the controller can see one: a folder with a file per object.

Files appear and change whole (written beside, then renamed), so that a watcher never reads half an object.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from ambit.lab.control import Json
from controller.kinds.meta import ObjectKey


class ObjectStore:
    """Objects as Kubernetes would show them, by key, mirrored to `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._objects: dict[ObjectKey, dict[str, Json]] = {}

    def __contains__(self, key: ObjectKey) -> bool:
        return key in self._objects

    def __iter__(self) -> Iterator[ObjectKey]:
        return iter(self._objects)

    def get(self, key: ObjectKey) -> dict[str, Json] | None:
        return self._objects.get(key)

    def put(self, key: ObjectKey, document: dict[str, Json]) -> None:
        """Add or replace an object; an equal one is not written again."""
        if self._objects.get(key) == document:
            return
        self._objects[key] = document
        path = self._path(key)
        # Dot-files are not read by the controller.
        draft = path.with_name(f".{path.name}")
        draft.touch(mode=0o600)  # it may be a Secret
        draft.write_text(json.dumps(document, indent=1))
        os.replace(draft, path)

    def remove(self, key: ObjectKey) -> None:
        """Remove an object; an unknown one is fine."""
        if self._objects.pop(key, None) is not None:
            self._path(key).unlink()

    def _path(self, key: ObjectKey) -> Path:
        # Underscores cannot occur in any of the parts, so no two keys share a file.
        parts = (key.kind.lower(), key.group, key.namespace, key.name)
        return self._folder / f"{'_'.join(parts)}.json"
