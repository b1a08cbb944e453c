"""Open connections one after the other: `connect.py ADDRESS PORT SECONDS LIMIT`. Prints {"count", "per_second"}.

Each is opened, carries one byte each way, and is closed; we close first. The limit is because a closed connection
holds its local port for a minute.
"""

import json
import socket
import sys
import time

WARM_UP_CONNECTIONS = 20


def measure(address: str, port: int, seconds: float, limit: int) -> tuple[int, float]:
    """Return how many connections there were, and the seconds that they took."""
    for _ in range(WARM_UP_CONNECTIONS):
        _connect_once(address, port)
    start = time.perf_counter()
    count = 0
    while count < limit and time.perf_counter() - start < seconds:
        _connect_once(address, port)
        count += 1
    return count, time.perf_counter() - start


def _connect_once(address: str, port: int) -> None:
    with socket.socket() as connection:
        connection.connect((address, port))
        connection.send(b"x")
        if not connection.recv(1):
            raise ConnectionError("the server closed the connection")


if __name__ == "__main__":
    made, took = measure(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
    print(json.dumps({"count": made, "per_second": made / took}))
