"""Clients that ask again and again while something changes."""

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

CLIENTS = 2

Answer = TypeVar("Answer", bound=Hashable)


@contextmanager
def asking(ask: Callable[[], Answer]) -> Iterator[Counter[Answer]]:
    """Ask from two threads during the block; then all answers are there, and what `ask` raised is raised."""
    answers: Counter[Answer] = Counter()
    is_over = threading.Event()

    def keep_asking() -> None:
        while not is_over.is_set():
            answers[ask()] += 1

    with ThreadPoolExecutor(CLIENTS, thread_name_prefix="keep asking") as threads:
        clients = [threads.submit(keep_asking) for _ in range(CLIENTS)]
        try:
            yield answers
        finally:
            is_over.set()
    for client in clients:
        client.result()
