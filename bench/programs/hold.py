"""Hold many connections, then close them all, again and again: `hold.py PORT CONNECTIONS BATCHES ADDRESS...`.

Each carries one byte each way when it is opened, to each address in turn; all of a batch are open at once. With batches
of 1, connections follow one another. Prints {"count", "seconds"}.
"""

import itertools
import json
import resource
import socket
import sys
import time
from collections.abc import Iterator

TIMEOUT_SECONDS = 10


def hold(addresses: Iterator[str], port: int, connections: int) -> None:
    """Open that many connections, and close them when all are open."""
    held: list[socket.socket] = []
    try:
        for number in range(connections):
            connection = socket.create_connection((next(addresses), port), TIMEOUT_SECONDS)
            held.append(connection)
            connection.send(b"x")
            if not connection.recv(1):
                raise ConnectionError(f"connection {number} was closed by the server")
    finally:
        for connection in held:
            connection.close()


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    port, size, batches = (int(text) for text in sys.argv[1:4])
    turns = itertools.cycle(sys.argv[4:])
    start = time.perf_counter()
    for _ in range(batches):
        hold(turns, port, size)
    print(json.dumps({"count": size * batches, "seconds": time.perf_counter() - start}))
