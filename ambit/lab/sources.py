"""Manifest files: reading them, and just enough looking into them to know which lab they are about."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from controller.sources.composing import ComposeError, compose_documents
from mesh.kit.errors import InvalidInputError

SUFFIXES = (".yaml", ".yml", ".json")


class UnreadableSourceError(InvalidInputError):
    """A file cannot be read, or a directory has none that could be."""

    reason = "unreadable"


@dataclass(frozen=True, slots=True)
class Source:
    """A text with manifests and the name of the file it came from."""

    name: str
    text: str


Given = str | Path | Source
"""Manifests: a path of a file or a directory, `-` for standard input, or a text already read."""


def read_sources(given: Iterable[Given]) -> list[Source]:
    """Read files, the YAML files of directories (sorted, not below), and standard input.

    Raises UnreadableSourceError.
    """
    sources: list[Source] = []
    for each in given:
        if isinstance(each, Source):
            sources.append(each)
        elif str(each) == "-":
            sources.append(Source("<stdin>", sys.stdin.read()))
        else:
            sources += [_read(file) for file in _files_of(Path(each))]
    return sources


def find_lab_name(sources: Iterable[Source]) -> str | None:
    """The name of the first Lab object; texts that are wrong are passed over, for the supervisor to refuse."""
    for source in sources:
        try:
            for node in compose_documents(source.text):
                document = node.to_plain()
                if isinstance(document, dict) and document.get("kind") == "Lab":
                    metadata = document.get("metadata")
                    name = metadata.get("name") if isinstance(metadata, dict) else None
                    return name if isinstance(name, str) else None
        except ComposeError:
            continue
    return None


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and not file.name.startswith("."))
    if not files:
        raise UnreadableSourceError(f"{path}: has no file that ends in {', '.join(SUFFIXES)}")
    return files


def _read(file: Path) -> Source:
    try:
        return Source(str(file), file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableSourceError(f"{file}: cannot be read: {error}") from error
