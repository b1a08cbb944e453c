"""Delays between attempts: exponential, capped, with jitter so that a fleet does not come back in step."""

from collections.abc import Callable


class Backoff:
    """The next delay is twice the last one, up to a cap, until `reset`."""

    def __init__(self, first_seconds: float, cap_seconds: float, random: Callable[[], float]) -> None:
        """`random` draws from [0, 1); the delay varies by a fifth either way."""
        self._first = first_seconds
        self._cap = cap_seconds
        self._random = random
        self._next = first_seconds

    def next_delay(self) -> float:
        """Seconds to wait before the next attempt."""
        delay = self._next
        self._next = min(self._next * 2, self._cap)
        return delay * (0.8 + 0.4 * self._random())

    def reset(self) -> None:
        """Begin again from the first delay: an attempt has succeeded."""
        self._next = self._first
