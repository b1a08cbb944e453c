"""Ports for programs that cannot choose one themselves and say which."""

import socket


def find_free_port(address: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on now."""
    with socket.create_server((address, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
