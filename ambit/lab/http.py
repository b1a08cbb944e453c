"""The little HTTP that the supervisor speaks to the lab's processes: one request a connection, small JSON answers."""

import asyncio
import json
import re
from dataclasses import dataclass
from pathlib import Path

from ambit.lab.control import Json, Message
from mesh.kit.errors import TransientError

MAX_ANSWER_BYTES = 16 << 20
"""More than any of our own processes would answer."""

_PROCESS = re.compile(rb"(?i)\r\nx-ambit-process: ([0-9]{1,9})(?:\r\n|$)")


class UnreachableError(TransientError):
    """Nobody answered, or not in HTTP."""

    reason = "unreachable"


@dataclass(frozen=True, slots=True)
class TcpEndpoint:
    """A host and port, reached from the supervisor's own namespace."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A response's status and JSON body (None when the body is not JSON), and who says that it answered."""

    status: int
    body: Json
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
        reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
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
    return Answer(int(words[1]), body, int(found[1]) if found else None)


def _name(endpoint: TcpEndpoint | Path) -> str:
    return str(endpoint) if isinstance(endpoint, Path) else f"{endpoint.host}:{endpoint.port}"
