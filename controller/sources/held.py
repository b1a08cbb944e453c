"""Objects that serve in an earlier form than their file has, written down so that a restart does not lose them.

Without this a controller that restarts while somebody's DENY policy is misspelt would serve a mesh without that policy.
The file is small: it holds only what is invalid at present.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from controller.kinds.catalogue import CATALOGUE
from controller.kinds.meta import KubernetesObject
from mesh.kit.errors import InvalidInputError


class InvalidHeldFileError(InvalidInputError):
    """The file of held objects is not what we wrote."""

    reason = "invalid_held_file"


Held = Mapping[str, Sequence[KubernetesObject]]
"""Objects by the file that speaks of them."""


def encode_held(held: Held) -> str:
    """The objects as text."""
    plain = {
        file: [value.model_dump(mode="json", by_alias=True, exclude_none=True) for value in objects]
        for file, objects in held.items()
    }
    return json.dumps(plain, indent=1)


def parse_held(text: str) -> Held:
    """The objects of a text that `encode_held` made. Raises InvalidHeldFileError."""
    try:
        return {
            file: [CATALOGUE[value["apiVersion"], value["kind"]].model_validate(value) for value in objects]
            for file, objects in json.loads(text).items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        raise InvalidHeldFileError("not a list of objects by file") from error


class HeldFile:
    """The file on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: str | None = ""  # unknown: the first write always happens

    def read(self) -> Held:
        """What was held when the controller stopped. Raises OSError, InvalidHeldFileError."""
        try:
            return parse_held(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}

    def write(self, held: Held) -> None:
        """Write it down, if it changed; removes the file when nothing is held. Raises OSError.

        What hides its values is not written down: it serves in its earlier form until the controller stops.
        """
        shown = {file: [each for each in objects if not each.HIDES_VALUES] for file, objects in held.items()}
        kept = {file: objects for file, objects in shown.items() if objects}
        text = encode_held(kept) if kept else None
        if text == self._written:
            return
        if text is None:
            self._path.unlink(missing_ok=True)
        else:
            draft = self._path.with_suffix(".new")
            draft.write_text(text, encoding="utf-8")
            os.replace(draft, self._path)
        self._written = text
