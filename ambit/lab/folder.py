"""A lab's folder of plain files: all that a lab leaves on the machine while it stands, and its lock.

    <run folder>/<lab>/  lock  control.sock  supervisor.log  logs/  objects/  controller/  node-tokens  n1/  namespaces/
                         resolv.conf  resolvers/

Whoever holds the lock (flock) owns the folder: the supervisor, or `up` and `down` at work. The kernel drops the lock
with its holder, so a folder that is not locked is what a crash left behind, and may be removed.
"""

import fcntl
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ambit.lab.mesh_processes import MeshFolders, NodeFiles
from ambit.lab.settings import LabSettings
from mesh.kit.errors import InvalidInputError

_LAB_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?\Z")
"""At most 32 characters, because the paths of unix sockets have little room."""


@dataclass(frozen=True, slots=True)
class LabFolder:
    """The paths of one lab."""

    path: Path

    @property
    def control_socket(self) -> Path:
        return self.path / "control.sock"

    @property
    def supervisor_log(self) -> Path:
        return self.path / "supervisor.log"

    @property
    def namespaces(self) -> Path:
        """Network namespaces by name, on a mount that only the lab's processes see."""
        return self.path / "namespaces"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def resolver(self, namespace: str = "") -> Path:
        """The resolv.conf of the pods of a namespace, of the nodes without one."""
        return self.path / "resolvers" / namespace if namespace else self.path / "resolv.conf"

    @property
    def mesh(self) -> MeshFolders:
        return MeshFolders(
            objects=self.path / "objects",
            controller_state=self.path / "controller",
            node_tokens=self.path / "node-tokens",
            resolver=self.resolver(),
            logs=self.logs,
        )

    def node(self, number: int) -> NodeFiles:
        """The folder of node number `number`, created if need be."""
        folder = self.path / f"n{number}"
        folder.mkdir(mode=0o700, exist_ok=True)
        return NodeFiles(folder)

    def create_contents(self) -> None:
        """Make the folders that are always there."""
        folders = (self.mesh.objects, self.mesh.controller_state, self.logs, self.namespaces)
        for folder in (*folders, self.path / "resolvers"):
            folder.mkdir(mode=0o700)

    def clear(self) -> None:
        """Remove everything but the lock."""
        for entry in self.path.iterdir():
            if entry.name == "lock":
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def remove(self) -> None:
        """Remove the folder (by whoever holds its lock), and the run folder with the last lab.

        The lock goes last, because whoever can make a new one believes that the folder is theirs.
        """
        self.clear()
        (self.path / "lock").unlink(missing_ok=True)
        self.path.rmdir()
        try:
            self.path.parent.rmdir()
        except OSError:
            pass


def lab_folder(settings: LabSettings, name: str) -> LabFolder:
    """The folder of the lab called `name`; raises InvalidInputError when that cannot be a lab's name."""
    if not _LAB_NAME.match(name):
        raise InvalidInputError(f"{name!r} is not a lab's name: lower-case letters, digits and '-', at most 32")
    return LabFolder(settings.run_folder / name)


def try_lock(folder: LabFolder) -> int | None:
    """Take the lock of an existing folder and return its descriptor; None when somebody holds it or it is gone."""
    try:
        descriptor = os.open(folder.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The holder before us may have removed the very file that we locked.
        if os.fstat(descriptor).st_ino == os.stat(folder.path / "lock").st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


@contextmanager
def connected(folder: LabFolder) -> Iterator[socket.socket | None]:
    """A connection to the lab's supervisor, None when none listens; closed after."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with connection:
        try:
            connection.connect(str(folder.control_socket))
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            yield None
            return
        yield connection


def list_labs(settings: LabSettings) -> list[str]:
    """The names of all labs that have a folder, sorted."""
    try:
        return sorted(entry.name for entry in settings.run_folder.iterdir() if entry.is_dir())
    except FileNotFoundError:
        return []


def running_labs(settings: LabSettings) -> list[str]:
    """The names of the labs whose supervisor answers, sorted."""
    return [name for name in list_labs(settings) if _LAB_NAME.match(name) and _is_running(settings, name)]


def _is_running(settings: LabSettings, name: str) -> bool:
    with connected(lab_folder(settings, name)) as connection:
        return connection is not None
