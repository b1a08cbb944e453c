"""Network namespaces: opened once, checked, known by inode; and functions run inside one.

A namespace is a property of a thread. A function runs in a thread that is made for it, enters, and ends there: nothing
has to be restored, so nothing can be left in the wrong namespace, and no thread keeps a namespace alive.
"""

import ctypes
import fcntl
import os
import threading
from collections.abc import Callable
from typing import NamedTuple, Self, TypeVar

from mesh.kit.errors import AmbitError, InvalidInputError

Result = TypeVar("Result")

_CLONE_NEWNET = 0x4000_0000  # linux/sched.h
_NS_GET_NSTYPE = 0xB703  # linux/nsfs.h: which kind of namespace a file descriptor is
_OWN_NAMESPACE = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


class InvalidNamespaceError(InvalidInputError):
    """A path is not the network namespace of a pod."""

    reason = "invalid_namespace"


class EnterNamespaceError(AmbitError):
    """The kernel did not let the agent into a network namespace."""

    reason = "enter_namespace"


class NamespaceIdentity(NamedTuple):
    """Which namespace it is; a path can be reused for another, this cannot while it is held open."""

    inode: int
    device: int


class NetworkNamespace:
    """A network namespace held open: it lives at least until `close`."""

    def __init__(self, descriptor: int, path: str) -> None:
        """Take over `descriptor`; `path` is for messages."""
        status = os.fstat(descriptor)
        self.identity = NamespaceIdentity(status.st_ino, status.st_dev)
        self.path = path
        self._descriptor: int | None = descriptor

    @classmethod
    def open(cls, path: str) -> Self:
        """Open the namespace at `path` (a bind mount, /proc/PID/ns/net, /proc/PID/fd/N).

        Raises InvalidNamespaceError when there is none, or when it is the one this process runs in: a pod's rules there
        would capture the node.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise InvalidNamespaceError(f"network namespace {path!r}: {error.strerror}; is the pod running?") from error
        try:
            if not _is_network_namespace(descriptor):
                raise InvalidNamespaceError(f"{path!r} is not a network namespace")
            namespace = cls(descriptor, path)
            if namespace.identity == _read_own_identity():
                raise InvalidNamespaceError(f"{path!r} is the node's own network namespace, not a pod's")
        except BaseException:
            os.close(descriptor)
            raise
        return namespace

    def duplicate(self) -> Self:
        """A second handle on the same namespace, to be closed by whoever asked for it."""
        return type(self)(os.dup(self.fileno()), self.path)

    def fileno(self) -> int:
        """The file descriptor. Raises ValueError after `close`."""
        if self._descriptor is None:
            raise ValueError(f"network namespace {self.path!r} is closed")
        return self._descriptor

    def close(self) -> None:
        """Let go of the namespace. Twice is harmless."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def run_in_namespace(namespace: NetworkNamespace, function: Callable[[], Result]) -> Result:
    """Run `function` with `namespace` as its network, in a thread made for it; return or raise what it does.

    Blocks until it is done: never call this on the event loop. Raises EnterNamespaceError when the kernel refuses.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def enter_and_run() -> None:
        try:
            _enter(namespace)
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - it is raised again below, where somebody waits for it
            errors.append(error)

    thread = threading.Thread(target=enter_and_run, name="network namespace")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _enter(namespace: NetworkNamespace) -> None:
    if _libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise EnterNamespaceError(
            f"cannot enter network namespace {namespace.path!r}: {reason}; the agent needs CAP_SYS_ADMIN over it"
        )


def _is_network_namespace(descriptor: int) -> bool:
    try:
        return fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:  # not a file of nsfs at all
        return False


def _read_own_identity() -> NamespaceIdentity:
    status = os.stat(_OWN_NAMESPACE)
    return NamespaceIdentity(status.st_ino, status.st_dev)
