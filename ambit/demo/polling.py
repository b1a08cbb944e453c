"""Waiting for something to become true, and for how long it took."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE_SECONDS = 0.02
"""Between two looks: short beside anything that is measured, long enough to leave the processor to the mesh."""


def wait_for(look: Callable[[], T | None], timeout_seconds: float) -> T | None:
    """Call `look` until it returns something true, and return that; None when the time is up."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            return None
        time.sleep(PAUSE_SECONDS)
