"""Web servers that tell what they were asked, each on a loopback address of its own."""

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer


@dataclass(slots=True)
class Backend:
    """A server. The next answers have the statuses of `failures`, in order; every answer waits `delay_seconds`."""

    name: str
    address: str
    port: int
    failures: list[int] = field(default_factory=list)
    always: int = 200
    delay_seconds: float = 0.0
    asked: list[str] = field(default_factory=list)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    backend: Backend
    connections: list[socket.socket]

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        self.connections.append(connection)
        return connection, address

    def server_close(self) -> None:
        """With its connections: a client that kept one must not find it alive."""
        super().server_close()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def backend_address(self) -> tuple[str, int]:
        host, port = self.socket.getsockname()[:2]
        return host, port

    def server_bind(self) -> None:
        """Without asking for a name of the address, which in a namespace without DNS takes ten seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.backend_address


class _Answer(BaseHTTPRequestHandler):
    """Echoes the request as it came: a server that tidied the path up would hide what a proxy did to it."""

    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # one write per answer: two would wait for each other's acknowledgement
    server: _Server
    raw_requestline: bytes

    def do_GET(self) -> None:  # http.server's name
        backend = self.server.backend
        self.rfile.read(int(self.headers.get("content-length") or 0))
        line = self.raw_requestline.decode().strip()
        backend.asked.append(line)
        time.sleep(backend.delay_seconds)  # a slow server is what a timeout is tested with
        status = backend.failures.pop(0) if backend.failures else backend.always
        headers = {name.lower(): ",".join(self.headers.get_all(name) or ()) for name in self.headers}
        said: dict[str, object] = {"server": backend.name, "line": line, "headers": headers}
        if isinstance(self.connection, ssl.SSLSocket):
            subject = self.connection.getpeercert() or {}
            said["tls"] = {"version": self.connection.version(), "client": subject.get("subjectAltName", ())}
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_DELETE = do_OPTIONS = do_POST = do_PUT = do_GET

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def serve_web(name: str, address: str, port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Backend]:
    """A server while the block runs, over TLS where that is given. Port 0 lets the kernel choose."""
    server = _Server((address, port), _Answer)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.connections = []
    server.backend = Backend(name, *server.backend_address)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name=f"serve {name}", daemon=True)
    thread.start()
    try:
        yield server.backend
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
