"""Ports for programs that cannot choose one themselves and say which."""

import random
import socket
from itertools import islice

# Below those that the kernel gives to connections (ip_local_port_range), which come and go while a program starts.
_FIRST, _LAST = 20_000, 32_000
_TRIES = 100


def find_free_port(address: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on now."""
    ports = iter(lambda: random.randint(_FIRST, _LAST), None)
    for port in islice(ports, _TRIES):
        try:
            with socket.create_server((address, port)):
                return port
        except OSError:
            continue
    raise OSError(f"no free port between {_FIRST} and {_LAST} in {_TRIES} tries")
