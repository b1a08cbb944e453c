"""Open connections at a steady rate: `pace.py PORT RATE SECONDS ADDRESS...`.

Each goes to the next address, carries one byte each way, and is closed; one that fails is not tried again. Prints
{"count", "failures", "slowest_ms", "longest_gap_ms"}: the last is the longest time without a success.
"""

import itertools
import json
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

TIMEOUT_SECONDS = 5
AT_ONCE = 64


def call(address: str, port: int) -> tuple[float, float, bool]:
    """When it ended, the seconds that it took, and whether it was answered."""
    start = time.perf_counter()
    try:
        with socket.create_connection((address, port), TIMEOUT_SECONDS) as connection:
            connection.send(b"x")
            is_answered = bool(connection.recv(1))
    except OSError:
        is_answered = False
    end = time.perf_counter()
    return end, end - start, is_answered


def run(addresses: list[str], port: int, rate: float, seconds: float) -> dict[str, float]:
    """Keep the rate, whatever the answers do."""
    turns = itertools.cycle(addresses)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        start, calls = time.perf_counter(), []
        for number in range(int(rate * seconds)):
            time.sleep(max(0.0, start + number / rate - time.perf_counter()))
            calls.append(pool.submit(call, next(turns), port))
        results = [one.result() for one in calls]
    answered = sorted(end for end, _, is_answered in results if is_answered)
    gaps = [after - before for before, after in itertools.pairwise([start, *answered])]
    return {
        "count": len(results),
        "failures": len(results) - len(answered),
        "slowest_ms": max(took for _, took, _ in results) * 1000,
        "longest_gap_ms": max(gaps, default=seconds) * 1000,
    }


if __name__ == "__main__":
    port, rate, seconds = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    print(json.dumps(run(sys.argv[4:], port, rate, seconds)))
