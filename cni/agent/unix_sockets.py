"""Listening unix sockets: only their owner may connect, and a file left over by an earlier process is no obstacle."""

import os
import socket
import stat

from mesh.kit.errors import FatalError

# linux/un.h: sun_path holds 108 bytes, the final zero among them.
_MAX_PATH_BYTES = 107
# Connections that wait to be accepted. One ztunnel, or two during an upgrade; a few clients of the agent's API.
_BACKLOG = 16
_OWNER_ONLY = 0o600


class SocketPathError(FatalError):
    """The agent cannot listen at a path."""

    reason = "socket_path"


def listen_unix(path: str, kind: socket.SocketKind) -> socket.socket:
    """Listen at `path` with a socket of `kind`, mode 0600, non-blocking. Its directory is made when it is missing.

    Raises SocketPathError: the path is too long, is not a socket, or another process listens there.
    """
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise SocketPathError(f"socket path {path!r} is longer than {_MAX_PATH_BYTES} bytes: choose a shorter one")
    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o750, exist_ok=True)
        _remove_stale(path, kind)
        return _listen(path, kind)
    except OSError as error:
        raise SocketPathError(f"cannot listen at {path!r}: {error.strerror}") from error


def close_listener(listener: socket.socket, path: str) -> None:
    """Close a socket of `listen_unix` and remove its file. That it is closed already is fine."""
    listener.close()
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _listen(path: str, kind: socket.SocketKind) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, kind)
    # The file is born with the mode that it keeps: chmod afterwards would leave a moment in which anybody may connect.
    previous = os.umask(0o777 & ~_OWNER_ONLY)
    try:
        listener.bind(path)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(previous)
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def _remove_stale(path: str, kind: socket.SocketKind) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketPathError(f"{path!r} exists and is not a socket: remove it, or choose another path")
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            os.unlink(path)
        else:
            raise SocketPathError(f"another process listens at {path!r}: stop it first")
