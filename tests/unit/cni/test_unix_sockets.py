import socket
import stat
from pathlib import Path

import pytest

from cni.agent.unix_sockets import SocketPathError, close_listener, listen_unix

every_kind = pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET], ids=["stream", "seqpacket"])


@every_kind
def test_only_the_owner_may_connect(tmp_path: Path, kind: socket.SocketKind) -> None:
    path = tmp_path / "run" / "agent.sock"
    with listen_unix(str(path), kind), socket.socket(socket.AF_UNIX, kind) as client:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        client.connect(str(path))


@every_kind
def test_a_socket_left_over_by_an_earlier_process_is_replaced(tmp_path: Path, kind: socket.SocketKind) -> None:
    path = tmp_path / "agent.sock"
    listen_unix(str(path), kind).close()
    assert path.is_socket()
    with listen_unix(str(path), kind), socket.socket(socket.AF_UNIX, kind) as client:
        client.connect(str(path))


@every_kind
def test_a_socket_where_somebody_listens_is_left_alone(tmp_path: Path, kind: socket.SocketKind) -> None:
    path = str(tmp_path / "agent.sock")
    with listen_unix(path, kind), socket.socket(socket.AF_UNIX, kind) as client:
        with pytest.raises(SocketPathError, match="another process listens"):
            listen_unix(path, kind)
        client.connect(path)


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    path.write_text("precious")
    with pytest.raises(SocketPathError, match="not a socket"):
        listen_unix(str(path), socket.SOCK_STREAM)
    assert path.read_text() == "precious"


def test_a_path_that_is_too_long_is_refused_with_its_limit(tmp_path: Path) -> None:
    with pytest.raises(SocketPathError, match="longer than 107 bytes"):
        listen_unix(str(tmp_path / ("x" * 120)), socket.SOCK_STREAM)


def test_a_directory_that_cannot_be_made_is_named() -> None:
    with pytest.raises(SocketPathError, match=r"/dev/null/agent\.sock"):
        listen_unix("/dev/null/agent.sock", socket.SOCK_STREAM)


def test_closing_removes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    close_listener(listen_unix(str(path), socket.SOCK_STREAM), str(path))
    assert not path.exists()
