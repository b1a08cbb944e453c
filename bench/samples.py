"""Measurements in turns: every measure on every set-up, round after round, and the medians of what came out."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from bench.setups import Setup


class Better(Enum):
    """Which way a measure is good."""

    HIGHER = "higher"
    LOWER = "lower"


@dataclass(frozen=True, slots=True)
class Measure:
    """Something with a unit that is measured on every set-up."""

    title: str
    unit: str
    better: Better


Probe = Callable[[Setup], Mapping[Measure, float]]
"""Runs one load on a set-up and returns what it showed; raises BenchError."""


@dataclass(slots=True)
class Samples:
    """All that was measured, by measure and set-up."""

    values: dict[tuple[Measure, Setup], list[float]] = field(default_factory=dict)

    def add(self, measure: Measure, setup: Setup, value: float) -> None:
        self.values.setdefault((measure, setup), []).append(value)

    def median(self, measure: Measure, setup: Setup) -> float:
        """The median over the rounds; raises KeyError when it was not measured."""
        return statistics.median(self.values[measure, setup])

    def highest(self, measure: Measure, setup: Setup) -> float:
        """The highest of the rounds; raises KeyError when it was not measured."""
        return max(self.values[measure, setup])

    def has(self, measure: Measure) -> bool:
        return any(found == measure for found, _ in self.values)


def collect(
    probes: Mapping[str, Probe], setups: Sequence[Setup], rounds: int, progress: Callable[[str], None]
) -> Samples:
    """Run every probe on every set-up, `rounds` times.

    The set-ups take turns within a probe, so that whatever disturbs the machine for a while disturbs them alike; each
    round begins with another one, so that none always follows the heaviest load.
    """
    samples = Samples()
    for number in range(1, rounds + 1):
        for name, probe in probes.items():
            shown: dict[Setup, str] = {}
            for setup in _rotated(setups, number - 1):
                found = probe(setup)
                for measure, value in found.items():
                    samples.add(measure, setup, value)
                shown[setup] = " / ".join(f"{value:.4g}" for value in found.values())
            progress(f"round {number}/{rounds}  {name}: {'   '.join(shown[setup] for setup in setups)}")
    return samples


def _rotated(setups: Sequence[Setup], places: int) -> list[Setup]:
    first = places % len(setups)
    return [*setups[first:], *setups[:first]]
