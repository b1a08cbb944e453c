"""Servers that are asked about requests: over HTTP, and by Envoy's protocol over gRPC."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer

import grpc
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse

# gRPC's code (its documentation, "Status codes and their use").
_PERMISSION_DENIED = 7


@dataclass(slots=True)
class AuthorizationServer:
    """One that lets pass who shows `x-ext-authz: allow`. `asked` is what it was asked about: paths and headers."""

    port: int
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Without asking for a name of the address, which takes seconds where nobody knows one."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.socket.getsockname()[:2]


@contextmanager
def serve_http_authorizer(address: str) -> Iterator[AuthorizationServer]:
    """One over HTTP, while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # http.server's name
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.rfile.read(int(headers.get("content-length", "0")))
            found.asked.append((self.path, headers))
            is_allowed = headers.get("x-ext-authz") == "allow"
            body = json.dumps({"allowed": is_allowed}).encode()
            self.send_response(200 if is_allowed else 403)
            self.send_header("content-length", str(len(body)))
            self.send_header("x-decided-by", "http")
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = _Server((address, 0), Handler)
    found = AuthorizationServer(server.server_port)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="authorizer", daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serve_grpc_authorizer(address: str) -> Iterator[AuthorizationServer]:
    """One over gRPC, while the block runs."""
    server = grpc.server(ThreadPoolExecutor(2))
    found = AuthorizationServer(server.add_insecure_port(f"{address}:0"))

    def check(request: CheckRequest, _: grpc.ServicerContext) -> CheckResponse:
        given = request.attributes.request.http
        found.asked.append((given.path, dict(given.headers)))
        answer = CheckResponse()
        answer.status.code = 0 if given.headers.get("x-ext-authz") == "allow" else _PERMISSION_DENIED
        return answer

    handler = grpc.unary_unary_rpc_method_handler(check, CheckRequest.FromString, CheckResponse.SerializeToString)
    name = "envoy.service.auth.v3.Authorization"
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, {"Check": handler})])
    server.start()
    try:
        yield found
    finally:
        server.stop(None).wait()
