"""What pods of the lab tests run, on both ends of a connection. Standard library only: pods have a bare Python.

    python mesh_pod.py serve PORT       a server for the requests below, until it is killed
    python mesh_pod.py ACTION ORDER     act as a client, ORDER being a JSON object; prints one JSON value

A connection begins with one line from the client: `echo`, `who TEXT`, `take` or `give BYTES`.
"""

import asyncio
import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter

CHUNK_BYTES = 1 << 16
CONNECT_TIMEOUT_SECONDS = 5.0
BACKLOG = 4096


# The server ---------------------------------------------------------------------------------------------------------


async def serve_connection(reader: Reader, writer: Writer) -> None:
    try:
        verb, _, argument = (await reader.readline()).decode().strip().partition(" ")
        if verb == "echo":
            while data := await reader.read(CHUNK_BYTES):
                writer.write(data)
                await writer.drain()
        elif verb == "who":
            writer.write(f"{writer.get_extra_info('peername')[0]} {argument}\n".encode())
        elif verb == "take":  # answers only after the client's end: half-close from client to server
            writer.write(await digest(reader))
        elif verb == "give":  # ends its side first, and logs what the client sends after that
            expected = hashlib.sha256()
            for chunk in payload(int(argument)):
                expected.update(chunk)
                writer.write(chunk)
                await writer.drain()
            writer.write(expected.digest())
            writer.write_eof()
            say(f"after end: {(await digest(reader)).hex()}")
        await writer.drain()
    except (ConnectionError, BrokenPipeError):
        pass
    finally:
        writer.close()


async def serve(port: int) -> None:
    server = await asyncio.start_server(serve_connection, None, port, backlog=BACKLOG)
    await server.serve_forever()


async def digest(reader: Reader) -> bytes:
    found = hashlib.sha256()
    while data := await reader.read(CHUNK_BYTES):
        found.update(data)
    return found.digest()


def payload(length: int) -> Iterator[bytes]:
    """`length` bytes that compress badly and differ in every chunk."""
    for number in range(0, length, CHUNK_BYTES):
        chunk = hashlib.sha256(number.to_bytes(8, "big")).digest() * (CHUNK_BYTES // 32)
        yield chunk[: min(CHUNK_BYTES, length - number)]


@dataclass(frozen=True)
class Order:
    """What a client is to do; an action reads the fields that it needs."""

    host: str = ""
    port: int = 0
    targets: tuple[tuple[str, int], ...] = ()
    text: str = ""
    bytes: int = 0
    after: str = ""
    seconds: float = 0.0
    count: int = 0
    rounds: int = 0


# The client ---------------------------------------------------------------------------------------------------------


async def connect(host: str, port: int) -> tuple[Reader, Writer]:
    return await asyncio.wait_for(asyncio.open_connection(host, port), CONNECT_TIMEOUT_SECONDS)


async def ask(host: str, port: int, text: str) -> str:
    """The server's answer to `who`, or what went wrong."""
    try:
        reader, writer = await connect(host, port)
        try:
            writer.write(f"who {text}\n".encode())
            line = await asyncio.wait_for(reader.readline(), CONNECT_TIMEOUT_SECONDS)
            return line.decode().strip() or "closed"
        finally:
            writer.close()
    except (OSError, TimeoutError) as error:
        return type(error).__name__


async def sweep(order: Order) -> Json:
    """Ask every one of `targets` (host, port), some at a time; answers in their order."""
    slots = asyncio.Semaphore(8)

    async def one(host: str, port: int) -> str:
        async with slots:
            return await ask(host, port, order.text)

    return list(await asyncio.gather(*(one(host, port) for host, port in order.targets)))


async def refused(order: Order) -> Json:
    """How a connection that nobody serves ends, and after how many seconds."""
    started = time.monotonic()
    outcome = await ask(order.host, order.port, "anybody")
    return {"outcome": outcome, "seconds": time.monotonic() - started}


async def upload(order: Order) -> Json:
    """Send, end our side, and only then read the server's digest."""
    reader, writer = await connect(order.host, order.port)
    writer.write(b"take\n")
    expected = hashlib.sha256()
    for chunk in payload(order.bytes):
        expected.update(chunk)
        writer.write(chunk)
        await writer.drain()
    writer.write_eof()
    answer = await reader.read(-1)
    writer.close()
    return {"sent": expected.hexdigest(), "received": answer.hex()}


async def download(order: Order) -> Json:
    """Read to the server's end, and only then send `after`."""
    reader, writer = await connect(order.host, order.port)
    writer.write(f"give {order.bytes}\n".encode())
    found, tail, count = hashlib.sha256(), b"", 0
    while data := await reader.read(CHUNK_BYTES):
        count += len(data)
        data = tail + data
        found.update(data[:-32])
        tail = data[-32:]
    writer.write(order.after.encode())
    await writer.drain()
    writer.write_eof()
    writer.close()
    await writer.wait_closed()
    return {"bytes": count - 32, "received": found.hexdigest(), "sent": tail.hex()}


async def hold(order: Order) -> Json:
    """Echo on one connection until somebody ends it, at most `seconds`; prints a line when it works."""
    reader, writer = await connect(order.host, order.port)
    writer.write(b"echo\n")
    echoed = 0
    deadline = time.monotonic() + order.seconds
    try:
        while time.monotonic() < deadline:
            writer.write(b"ping")
            if not await asyncio.wait_for(reader.readexactly(4), CONNECT_TIMEOUT_SECONDS):
                break
            echoed += 1
            if echoed == 1:
                say("works")
            await asyncio.sleep(0.02)
        outcome = "still open"
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        outcome = type(error).__name__
    return {"echoed": echoed, "outcome": outcome, "ended": time.time()}


async def pace(order: Order) -> Json:
    """Open a connection `count` times a second for `seconds`, ask on each, and close it.

    Returns how many there were, what went wrong with which, and the longest time that one took, in seconds.
    """
    failures: list[Json] = []
    slowest = 0.0

    async def one(number: int, host: str, port: int) -> None:
        nonlocal slowest
        started = time.monotonic()
        answer = await ask(host, port, "paced")
        slowest = max(slowest, time.monotonic() - started)
        if not answer.endswith(" paced"):
            failures.append(f"{number} after {started - begun:.2f} s: {answer}")

    begun = time.monotonic()
    number = 0
    say("begun")
    async with asyncio.TaskGroup() as tasks:
        while (now := time.monotonic() - begun) < order.seconds:
            while number < now * order.count:
                host, port = order.targets[number % len(order.targets)]
                tasks.create_task(one(number, host, port), name=f"request {number}")
                number += 1
            await asyncio.sleep(0.5 / order.count)
    return {"requests": number, "failures": failures, "slowest": slowest}


async def churn(order: Order) -> Json:
    """Open `count` connections at once, use each, close all; `rounds` times. Returns how many worked.

    Rounds take turns on the targets: closed connections stay in TIME_WAIT for a minute, and Linux finds a free port
    slowly once 14,000 of them, half of its range, lead to one target.
    """

    async def one(host: str, port: int, opened: asyncio.Barrier) -> bool:
        reader, writer = await connect(host, port)
        try:
            writer.write(b"echo\nx")
            worked = await asyncio.wait_for(reader.readexactly(1), 30.0) == b"x"
            await opened.wait()
            return worked
        finally:
            writer.close()

    worked = 0
    for number in range(order.rounds):
        host, port = order.targets[number % len(order.targets)]
        opened = asyncio.Barrier(order.count)
        results = await asyncio.gather(*(one(host, port, opened) for _ in range(order.count)))
        worked += sum(results)
    return worked


ACTIONS: dict[str, Callable[[Order], Coroutine[None, None, Json]]] = {
    action.__name__: action for action in (sweep, refused, upload, download, hold, pace, churn)
}


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    action, argument = sys.argv[1:]
    if action == "serve":
        asyncio.run(serve(int(argument)))
    else:
        say(json.dumps(asyncio.run(ACTIONS[action](Order(**json.loads(argument))))))


if __name__ == "__main__":
    main()
