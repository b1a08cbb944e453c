"""How much a bench may spend. Quick runs show that it works and what to expect; full ones are what is reported."""

import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effort:
    """Rounds over all set-ups, and seconds of each measurement in a round. No HTTP load when `http_seconds` is 0."""

    name: str
    rounds: int
    stream_seconds: int
    ping_seconds: float
    connect_seconds: float
    http_seconds: int
    connection_batches: int


QUICK = Effort("quick", 2, 1, 0.5, 0.5, 0, 5)
"""Under a minute a bench, the lab's start included."""

FULL = Effort("full", 7, 2, 1.0, 1.0, 1, 20)
"""Many short rounds rather than few long ones: where the scheduler puts the programs of a round trip decides a third of
its time on two cores, and it puts them anew for each."""


def report_progress(text: str) -> None:
    """Tell the person who waits, on stderr: stdout is for the result."""
    print(text, file=sys.stderr, flush=True)
