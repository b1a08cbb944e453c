"""A mixed load that checks every answer: `soak.py PORT SECONDS WEB ADDRESS...`, the addresses of echo servers.

Short connections, kept ones with messages of all sizes, and transfers of megabytes, each to all addresses in turn; and
HTTP requests to the service called WEB, which is looked up for each connection.
Prints a JSON object every few seconds, {"connections", "messages", "requests", "bytes", "failures", "wrong",
"example"}, since the start.
"""

import hashlib
import http.client
import itertools
import json
import random
import socket
import sys
import threading
import time

TIMEOUT_SECONDS = 20
REPORT_SECONDS = 5
SHORT_WORKERS, KEPT_WORKERS, BULK_WORKERS, WEB_WORKERS = 4, 8, 1, 3
WEB_REQUESTS = 50
WEB_PATH, WEB_BODY = "/name", b"soak\n"
SHORT_PAUSE_SECONDS = 0.02
KEPT_PAUSE_SECONDS = 0.05
KEPT_MESSAGES = 200
BULK_BYTES = 8 << 20
BULK_PAUSE_SECONDS = 1.0


class Tally:
    """What happened so far, in all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(("connections", "messages", "requests", "bytes", "failures", "wrong"), 0)
        self._example = ""

    def add(self, **counts: int) -> None:
        with self._lock:
            for name, count in counts.items():
                self._counts[name] += count

    def fail(self, error: Exception) -> None:
        self.add(failures=1)
        self._example = f"{type(error).__name__}: {error}"

    def report(self) -> dict[str, object]:
        with self._lock:
            return {**self._counts, "example": self._example}


def exchange(connection: socket.socket, message: bytes, tally: Tally) -> None:
    """Send a message and check its echo."""
    sender = threading.Thread(target=connection.sendall, args=(message,)) if len(message) > 1 << 15 else None
    if sender is None:
        connection.sendall(message)
    else:
        sender.start()
    expected, received, left = hashlib.sha256(message), hashlib.sha256(), len(message)
    while left:
        part = connection.recv(min(left, 1 << 16))
        if not part:
            raise ConnectionError("closed before the echo was whole")
        received.update(part)
        left -= len(part)
    if sender is not None:
        sender.join()
    is_right = expected.digest() == received.digest()
    tally.add(messages=1, bytes=2 * len(message), wrong=not is_right)


def short(connection: socket.socket, tally: Tally, dice: random.Random) -> None:
    """One message a connection."""
    exchange(connection, dice.randbytes(dice.choice((1, 100, 3000))), tally)
    time.sleep(SHORT_PAUSE_SECONDS)


def kept(connection: socket.socket, tally: Tally, dice: random.Random) -> None:
    """Many messages of all sizes."""
    for _ in range(KEPT_MESSAGES):
        exchange(connection, dice.randbytes(int(2 ** dice.uniform(0, 17))), tally)
        time.sleep(KEPT_PAUSE_SECONDS)


def bulk(connection: socket.socket, tally: Tally, dice: random.Random) -> None:
    """A large one."""
    exchange(connection, dice.randbytes(BULK_BYTES), tally)
    time.sleep(BULK_PAUSE_SECONDS)


def work(act: object, turns: "itertools.cycle[str]", port: int, until: float, tally: Tally, seed: int) -> None:
    """One connection after the other until the time is over."""
    dice = random.Random(seed)
    assert callable(act)
    while time.monotonic() < until:
        try:
            with socket.create_connection((next(turns), port), TIMEOUT_SECONDS) as connection:
                tally.add(connections=1)
                act(connection, tally, dice)
        except OSError as error:
            tally.fail(error)


def browse(name: str, until: float, tally: Tally) -> None:
    """Connections of WEB_REQUESTS requests each until the time is over."""
    while time.monotonic() < until:
        connection = http.client.HTTPConnection(name, timeout=TIMEOUT_SECONDS)
        try:
            connection.connect()
            tally.add(connections=1)
            for _ in range(WEB_REQUESTS):
                connection.request("GET", WEB_PATH)
                response = connection.getresponse()
                body = response.read()
                tally.add(requests=1, wrong=(response.status, body) != (200, WEB_BODY))
                time.sleep(KEPT_PAUSE_SECONDS)
        except (OSError, http.client.HTTPException) as error:
            tally.fail(error)
        finally:
            connection.close()


def main() -> None:
    """Run all of it."""
    port, until = int(sys.argv[1]), time.monotonic() + float(sys.argv[2])
    web, *addresses = sys.argv[3:]
    tally = Tally()
    kinds = [short] * SHORT_WORKERS + [kept] * KEPT_WORKERS + [bulk] * BULK_WORKERS
    threads = [
        threading.Thread(target=work, args=(kind, itertools.cycle(addresses), port, until, tally, seed))
        for seed, kind in enumerate(kinds)
    ]
    threads += [threading.Thread(target=browse, args=(web, until, tally)) for _ in range(WEB_WORKERS)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(REPORT_SECONDS)
        print(json.dumps(tally.report()), flush=True)


if __name__ == "__main__":
    main()
