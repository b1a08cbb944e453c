"""A directory of YAML and JSON files, watched.

Files whose name ends in .yaml, .yml or .json are read, in subdirectories too; names that begin with a dot are not. A
file should be replaced by rename, so that it is never seen half-written. What the kernel reports is only a hint at
where to look: a file counts as changed when its inode, size or time of change differ, and everything is looked at
again now and then, so that no lost event stays lost.
"""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from watchfiles import awatch

from controller.sources.directory import FileText, Unreadable
from controller.sources.documents import parse_documents
from mesh.kit.errors import FatalError

__all__ = ["FileScanner", "parse_documents", "read_file", "read_stream", "watch_files"]

log = logging.getLogger(__name__)

SUFFIXES = (".yaml", ".yml", ".json")
# etcd's limit for one object is 1.5 MiB; a file may hold many. Beyond this it is no configuration.
MAX_FILE_BYTES = 32 * 1024 * 1024
# The first change goes out after STEP; of a burst, at most BURST milliseconds are put into one batch.
STEP_MILLISECONDS = 2
BURST_MILLISECONDS = 20
# How long the watcher sleeps without events: bounds how late we notice what changed while it was starting.
IDLE_MILLISECONDS = 500
# Idle rounds between two looks at everything: a safety net for events that the kernel dropped.
IDLE_ROUNDS_PER_SCAN = 60
# Kubernetes replaces the content of a mounted ConfigMap by renaming a link of this prefix; the files' own names
# are in no event then.
_ATOMIC_LINK_PREFIX = ".."

_Signature = tuple[int, int, int]


class FileScanner:
    """Remembers what files looked like, and reads those that look different."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._signatures: dict[str, _Signature] = {}

    def scan_all(self) -> dict[str, FileText]:
        """What changed since the last look, anywhere. Raises OSError when the directory itself cannot be listed."""
        os.scandir(self._root).close()
        present = set(self._find_files())
        return self.scan(present | self._signatures.keys())

    def scan(self, paths: Iterable[str]) -> dict[str, FileText]:
        """What changed since the last look, among `paths`."""
        return {path: text for path in paths if self._is_ours(path) for text in self._read_if_changed(path)}

    def _find_files(self) -> Iterator[str]:
        for directory, subdirectories, names in os.walk(self._root, followlinks=False):
            subdirectories[:] = [name for name in subdirectories if not name.startswith(".")]
            yield from (os.path.join(directory, name) for name in names if name.endswith(SUFFIXES))

    def _is_ours(self, path: str) -> bool:
        parts = Path(path).relative_to(self._root).parts
        return path.endswith(SUFFIXES) and not any(part.startswith(".") for part in parts)

    def _read_if_changed(self, path: str) -> Iterator[FileText]:
        try:
            status = os.stat(path)
        except FileNotFoundError:
            if self._signatures.pop(path, None) is not None:
                yield None
            return
        except OSError as error:
            self._signatures[path] = (0, 0, 0)
            yield Unreadable(f"cannot be read: {error.strerror}")
            return
        signature = (status.st_ino, status.st_mtime_ns, status.st_size)
        if self._signatures.get(path) != signature:
            self._signatures[path] = signature
            yield read_file(path)


def read_file(path: str) -> FileText:
    """A file's text; what is wrong with it when it cannot be read, None when it is not there."""
    try:
        with open(path, "rb") as file:
            return read_stream(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Unreadable(f"cannot be read: {error.strerror}")


def read_stream(stream: BinaryIO) -> FileText:
    """The text that comes from an open file, or what is wrong with it. Raises OSError."""
    content = stream.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        return Unreadable(f"is larger than {MAX_FILE_BYTES} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        return Unreadable(f"is not UTF-8 (byte {error.start})")


async def watch_files(root: Path) -> AsyncGenerator[Mapping[str, FileText]]:
    """Yield everything there is, once and at once; then each batch of changes, within milliseconds.

    Raises FatalError when `root` is no directory at the start. If it goes away later, what was read stays.
    """
    scanner = FileScanner(root)
    try:
        yield scanner.scan_all()
    except OSError as error:
        raise FatalError(f"cannot read the configuration directory {root}: {error.strerror}") from error
    rounds = 0
    async for events in awatch(
        root,
        watch_filter=None,
        step=STEP_MILLISECONDS,
        debounce=BURST_MILLISECONDS,
        rust_timeout=IDLE_MILLISECONDS,
        yield_on_timeout=True,
    ):
        paths = {path for _, path in events}
        needs_scan = (not paths and rounds % IDLE_ROUNDS_PER_SCAN == 0) or _may_hide_changes(paths)
        rounds += not paths
        changes = await _scan_everything(scanner) if needs_scan else scanner.scan(paths)
        if changes:
            yield changes


def _may_hide_changes(paths: Iterable[str]) -> bool:
    """Whether unnamed files may have changed: a link was swapped, or a directory came, went or was renamed."""
    for path in paths:
        name = os.path.basename(path)
        if name.startswith(_ATOMIC_LINK_PREFIX) or not (name.startswith(".") or os.path.splitext(name)[1]):
            return True
    return False


async def _scan_everything(scanner: FileScanner) -> Mapping[str, FileText]:
    try:
        return await asyncio.to_thread(scanner.scan_all)
    except OSError as error:
        log.warning("configuration directory cannot be read, what was read stays", extra={"error": error})
        return {}
