"""Send one byte to and fro over one kept connection: `ping.py ADDRESS PORT SECONDS`.

Prints {"count", "p50_us", "p99_us"}: round trips in microseconds.
"""

import json
import socket
import sys
import time

WARM_UP_ROUNDS = 200
"""Fills caches, tunnels and the interpreter's specialised code; a hundredth of what a run measures."""


def measure(address: str, port: int, seconds: float) -> list[int]:
    """Return the nanoseconds of every round trip within `seconds`."""
    with socket.create_connection((address, port), timeout=5) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A timeout would put a poll() before every recv().
        connection.settimeout(None)
        for _ in range(WARM_UP_ROUNDS):
            _round_trip(connection)
        deadline = time.perf_counter_ns() + int(seconds * 1e9)
        rounds: list[int] = []
        while (start := time.perf_counter_ns()) < deadline:
            _round_trip(connection)
            rounds.append(time.perf_counter_ns() - start)
    return rounds


def _round_trip(connection: socket.socket) -> None:
    connection.send(b"x")
    if not connection.recv(1):
        raise ConnectionError("the server closed the connection")


def _percentile(ordered: list[int], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] / 1000


if __name__ == "__main__":
    found = sorted(measure(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
    print(json.dumps({"count": len(found), "p50_us": _percentile(found, 50), "p99_us": _percentile(found, 99)}))
