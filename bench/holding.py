"""Connections that are held open while something is measured."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from bench.pods import BenchLab
from bench.report import BenchError
from bench.setups import CLIENT, ECHO_PORT, python_program


@contextmanager
def held_connections(lab: BenchLab, namespace: str, address: str, count: int) -> Iterator[None]:
    """So many from a namespace's client to the echo server at `address`; raises BenchError when one is refused."""
    command = python_program("idle", address, str(ECHO_PORT), str(count))
    (stdin, ours), (said, stdout) = os.pipe(), os.pipe()
    try:
        with lab.lab.start(CLIENT, *command, namespace=namespace, streams=(stdin, stdout, 2)):
            os.close(stdout)
            with open(said, "rb", closefd=False) as answers:
                if not answers.readline():
                    raise BenchError(f"{count} connections could not be opened in namespace {namespace}")
            yield
    finally:
        for descriptor in (stdin, ours, said):
            os.close(descriptor)
