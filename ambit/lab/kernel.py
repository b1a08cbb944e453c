"""The system calls that Python 3.11 does not have: unshare, setns, mount, umount2 (each: its man page, section 2)."""

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
"""Namespace flags, and the one of what a thread shares of its process: root and working directory (linux/sched.h)."""

MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
"""Mount flags (linux/mount.h)."""

_OWN_NETWORK_NAMESPACE = "/proc/thread-self/ns/net"
_OWN_MOUNT_NAMESPACE = "/proc/thread-self/ns/mnt"

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Give the calling thread new namespaces; raises OSError."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def set_namespace(descriptor: int, kind: int) -> None:
    """Move the calling thread into the namespace of this kind that `descriptor` is open on; raises OSError."""
    _check(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)), "setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount `source` on `target`; raises OSError that names the target."""
    texts = [ctypes.c_char_p(os.fsencode(text)) for text in (source, target, kind)]
    _check(_libc.mount(*texts, ctypes.c_ulong(flags), ctypes.c_char_p(os.fsencode(options))), f"mount {target}")


def unmount(target: str) -> None:
    """Take away what is mounted on `target`, now for new users of the path, later for old ones; raises OSError."""
    _check(_libc.umount2(ctypes.c_char_p(os.fsencode(target)), ctypes.c_int(MNT_DETACH)), f"umount {target}")


@dataclass(frozen=True, slots=True)
class NetworkNamespace:
    """A network namespace held open by a descriptor, and by a path that other processes of the lab can open."""

    descriptor: int
    path: Path

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling *thread* is in the namespace for the body; sockets and children made there belong to it."""
        with _entered(self.descriptor, CLONE_NEWNET, _OWN_NETWORK_NAMESPACE):
            yield

    def identity(self) -> int:
        """The namespace's inode: what /proc/<pid>/ns/net of every process in it points to."""
        return os.fstat(self.descriptor).st_ino

    def release(self) -> None:
        """Drop path and descriptor; the namespace ends with its last process."""
        unmount(str(self.path))
        self.path.unlink()
        os.close(self.descriptor)


@dataclass(frozen=True, slots=True)
class MountNamespace:
    """A view of the file system, held open by a descriptor."""

    descriptor: int

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling *thread* sees the namespace's files for the body, and so do children made there.

        Its working directory is the root then, and after.
        """
        # A thread that shares root and working directory with others may not change them (setns(2)).
        unshare(CLONE_FS)
        with _entered(self.descriptor, CLONE_NEWNS, _OWN_MOUNT_NAMESPACE):
            yield


@contextmanager
def _entered(descriptor: int, kind: int, own: str) -> Iterator[None]:
    """A thread that cannot come back would do everything after in the wrong place, so that ends the process."""
    home = os.open(own, os.O_RDONLY | os.O_CLOEXEC)
    try:
        set_namespace(descriptor, kind)
        try:
            yield
        finally:
            try:
                set_namespace(home, kind)
            except OSError:
                os.abort()
    finally:
        os.close(home)


def create_mount_namespace(change: Callable[[], None]) -> MountNamespace:
    """Make a copy of the calling thread's view of the file system, with what `change` mounts there; raises OSError."""
    made: list[MountNamespace | OSError] = []

    def make() -> None:
        try:
            unshare(CLONE_NEWNS)
            change()
            made.append(MountNamespace(os.open(_OWN_MOUNT_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)))
        except OSError as error:
            made.append(error)

    # In a thread that ends with it: there is no way to make one without being moved into it.
    thread = threading.Thread(target=make, name="mounts")
    thread.start()
    thread.join()
    (result,) = made
    if isinstance(result, OSError):
        raise result
    return result


def own_network_namespace() -> NetworkNamespace:
    """The namespace that the calling thread is in."""
    return NetworkNamespace(os.open(_OWN_NETWORK_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC), Path(_OWN_NETWORK_NAMESPACE))


def create_network_namespace(path: Path) -> NetworkNamespace:
    """Make a new network namespace and bind it to `path` (created); the calling thread ends up where it was.

    Raises OSError. Only where mounts are private: the bind must not appear outside the lab.
    """
    home = own_network_namespace()
    try:
        with home.entered():
            unshare(CLONE_NEWNET)
            path.touch(exist_ok=False)
            mount(_OWN_NETWORK_NAMESPACE, str(path), flags=MS_BIND)
            return NetworkNamespace(os.open(path, os.O_RDONLY | os.O_CLOEXEC), path)
    finally:
        os.close(home.descriptor)


def _check(result: int, what: str) -> None:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
