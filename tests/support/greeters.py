"""Servers that say their name to whoever connects, and clients that listen."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.controller_process import PATIENCE_SECONDS
from tests.support.mesh_certificates import Credentials


@contextmanager
def greet(
    name: str, address: str, port: int = 0, pair: Credentials | None = None, folder: Path = Path()
) -> Iterator[int]:
    """A server that says its name to whoever connects, over TLS if it has a certificate; gives its port."""
    context = None
    if pair:
        file = folder / f"{name}.pem"
        file.write_text(pair.certificate + pair.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
    with socket.create_server((address, port)) as listening:
        thread = threading.Thread(target=_greet_all, args=(listening, context, name), name=f"greet {name}", daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def _greet_all(listening: socket.socket, context: ssl.SSLContext | None, name: str) -> None:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return  # it was shut down
        with connection:
            try:
                wrapped = context.wrap_socket(connection, server_side=True) if context else connection
                with wrapped:
                    wrapped.sendall(name.encode())
            except OSError:
                continue  # who connected has gone, or spoke no TLS


def hear_greeting(port: int, root: Path, host: str = "", pair: Path | None = None) -> str:
    """Who greets at a port of this machine; empty where the connection is closed.

    With a host it is TLS for that name, with whom the file `root` believes, and the certificate of the file `pair`.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as connection:
            if not host:
                return connection.recv(100).decode()
            context = ssl.create_default_context(cafile=str(root))
            if pair:
                context.load_cert_chain(pair)
            with context.wrap_socket(connection, server_hostname=host) as wrapped:
                return wrapped.recv(100).decode()
    except (ConnectionError, ssl.SSLError):
        return ""
