"""The little HTTP that the supervisor speaks to the lab's processes: one request a connection, small JSON answers."""

import asyncio
import json
import re
import socket
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from ambit.lab.control import Json, Message
from ambit.lab.kernel import NetworkNamespace
from mesh.kit.errors import TransientError

MAX_ANSWER_BYTES = 16 << 20
"""More than any of our own processes would answer."""

_PROCESS = re.compile(rb"(?i)\r\nx-ambit-process: ([0-9]{1,9})(?:\r\n|$)")


class UnreachableError(TransientError):
    """Nobody answered, or not in HTTP."""

    reason = "unreachable"


@dataclass(frozen=True, slots=True)
class TcpEndpoint:
    """A host and port, reached from a network namespace: the supervisor's own when None."""

    host: str
    port: int
    namespace: NetworkNamespace | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A response's status, its body as JSON (None when it is not) and as text, and who says that it answered."""

    status: int
    body: Json
    text: str = ""
    process: int | None = None


async def fetch(
    endpoint: TcpEndpoint | Path, method: str, path: str, body: Message | None = None, timeout_seconds: float = 5.0
) -> Answer:
    """Send one request and read the whole answer; raises UnreachableError."""
    try:
        async with asyncio.timeout(timeout_seconds):
            raw = await _exchange(endpoint, _encode(method, path, body))
    except (OSError, TimeoutError) as error:
        raise UnreachableError(f"{method} {path} at {_name(endpoint)}: {str(error) or 'no answer in time'}") from error
    return _decode(raw, f"{method} {path} at {_name(endpoint)}")


async def is_ready(endpoint: TcpEndpoint | Path, process: int | None = None) -> bool:
    """Whether the readiness page, which all our processes have at the same place, answers 200.

    With `process` (its number in the lab's PID namespace), whether it is that process that does.
    """
    try:
        answer = await fetch(endpoint, "GET", "/healthz/ready", timeout_seconds=1.0)
    except UnreachableError:
        return False
    return answer.status == 200 and process in (None, answer.process)


async def _exchange(endpoint: TcpEndpoint | Path, request: bytes) -> bytes:
    if isinstance(endpoint, Path):
        reader, writer = await asyncio.open_unix_connection(endpoint)
    else:
        reader, writer = await asyncio.open_connection(sock=await _connect(endpoint))
    try:
        writer.write(request)
        await writer.drain()
        parts: list[bytes] = []
        size = 0
        while part := await reader.read(1 << 16):
            parts.append(part)
            size += len(part)
            if size > MAX_ANSWER_BYTES:
                raise OSError(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
        return b"".join(parts)
    finally:
        writer.close()


async def _connect(endpoint: TcpEndpoint) -> socket.socket:
    with endpoint.namespace.entered() if endpoint.namespace else nullcontext():
        connection = socket.socket(socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET)
    connection.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(connection, (endpoint.host, endpoint.port))
    except BaseException:
        connection.close()
        raise
    return connection


def _encode(method: str, path: str, body: Message | None) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: ambit\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def _decode(raw: bytes, what: str) -> Answer:
    head, separator, content = raw.partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split()
    if not separator or len(words) < 2 or not words[1].isdigit():
        raise UnreachableError(f"{what}: the answer is not HTTP")
    try:
        body: Json = json.loads(content)
    except ValueError:
        body = None
    found = _PROCESS.search(head)
    text = content.decode(errors="replace")
    return Answer(int(words[1]), body, text, int(found[1]) if found else None)


def _name(endpoint: TcpEndpoint | Path) -> str:
    return str(endpoint) if isinstance(endpoint, Path) else f"{endpoint.host}:{endpoint.port}"
