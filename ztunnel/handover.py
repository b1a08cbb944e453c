"""Listening sockets go from a ztunnel to the one that takes its place, so that no connection is lost between the two.

The one that serves offers them on a packet socket; a successor asks for those of one network namespace at a time,
named by inode and device ("INODE DEVICE"), and gets duplicates of them (SCM_RIGHTS). It keeps the connection open:
when it goes away before its predecessor was told to end, the predecessor serves on alone. Both must be of one user.
What goes wrong here costs a successor a second at most; it then opens sockets of its own, as beside a stock ztunnel.
"""

import os
import socket
import struct
import time
from collections.abc import Callable

from dataplane import Ztunnel
from mesh.kit.errors import AmbitError
from ztunnel.log import Log

# The kernel passes at most 253 descriptors in one message (unix(7), SCM_MAX_FD).
MAX_DESCRIPTORS = 253
# A request is two numbers; the answer one.
MAX_PACKET = 64
# How long a predecessor may take for all of its answers together, and how often a server looks whether it is to end.
PATIENCE_SECONDS = 1.0
# pid, uid, gid (unix(7), SO_PEERCRED).
_CREDENTIALS = struct.Struct("=iII")


class Predecessor:
    """The ztunnel that serves now, if there is one."""

    def __init__(self, path: str) -> None:
        self._log = Log("handover")
        self._connection: socket.socket | None = None
        self._patience = PATIENCE_SECONDS
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(PATIENCE_SECONDS)
        try:
            connection.connect(path)
            _check_user(connection)
        except OSError:
            connection.close()
            return
        self._connection = connection
        self._log.info("a predecessor is here; its listening sockets are taken over", path=path)

    def listeners(self, netns: int) -> list[int]:
        """Duplicates of the sockets that it listens on in a network namespace, given by a descriptor of it."""
        if self._connection is None:
            return []
        status = os.fstat(netns)
        started = time.monotonic()
        try:
            self._connection.settimeout(max(self._patience, 0.001))
            self._connection.sendall(f"{status.st_ino} {status.st_dev}".encode())
            packet, descriptors, flags, _ = socket.recv_fds(
                self._connection, MAX_PACKET, MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
        except OSError as error:
            self._give_up(error)
            return []
        self._patience -= time.monotonic() - started
        if not packet or flags & socket.MSG_CTRUNC:
            for descriptor in descriptors:
                os.close(descriptor)
            self._give_up("it is ending" if not packet else "it sent more descriptors than this process may have")
            return []
        return list(descriptors)

    def own_listeners(self) -> list[int]:
        """Those in this process's own namespace, the servers around the data path among them."""
        if self._connection is None:
            return []
        with open("/proc/self/ns/net", "rb") as own:
            return self.listeners(own.fileno())

    def _give_up(self, why: object) -> None:
        if self._connection is not None:
            self._log.warning("the predecessor does not hand over; opening sockets of our own", error=why)
            self._connection.close()
            self._connection = None


def serve(path: str, ztunnel: Ztunnel, ending: Callable[[], bool]) -> None:
    """Offer the sockets to successors at `path`, one after the other, until `ending()`."""
    log = Log("handover")
    while not ending():
        try:
            with _listen(path) as listener:
                _serve_one(listener, ztunnel, ending)
        except OSError as error:
            # Then a successor opens its own; it must not stop this one.
            log.warning("listening sockets cannot be handed over", path=path, error=error)
            return


def _serve_one(listener: socket.socket, ztunnel: Ztunnel, ending: Callable[[], bool]) -> None:
    log = Log("handover")
    while not ending():
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        with connection:
            try:
                _check_user(connection)
                _answer(connection, ztunnel, ending)
            except (OSError, ValueError) as error:
                log.warning("a successor was not answered", error=error)
        if not ending():
            log.info("the successor went away; serving on")
            try:
                ztunnel.resume()
            except AmbitError as error:
                log.error("the servers around the data path cannot be opened again", error=error)
            # The successor may have taken the path.
            return


def _answer(connection: socket.socket, ztunnel: Ztunnel, ending: Callable[[], bool]) -> None:
    connection.settimeout(PATIENCE_SECONDS)
    while not ending():
        try:
            packet = connection.recv(MAX_PACKET)
        except TimeoutError:
            continue
        if not packet:
            return
        inode, device = (int(number) for number in packet.split())
        descriptors = ztunnel.hand_over(inode, device)
        try:
            given = descriptors[:MAX_DESCRIPTORS]
            socket.send_fds(connection, [str(len(given)).encode()], given)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


def _listen(path: str) -> socket.socket:
    """Take the path over from whoever had it, without a moment in which nobody does."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        own = f"{path}.{os.getpid()}"
        if os.path.lexists(own):
            os.unlink(own)
        listener.bind(own)
        os.chmod(own, 0o600)
        listener.listen(1)
        listener.settimeout(PATIENCE_SECONDS)
        os.rename(own, path)
    except OSError:
        listener.close()
        raise
    return listener


def _check_user(connection: socket.socket) -> None:
    """Raises PermissionError when the other end belongs to another user."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(credentials)
    if user != os.geteuid():
        raise PermissionError(f"the other end is of user {user}, not of {os.geteuid()}")
