"""Telemetries that do nothing."""

from collections.abc import Iterator

from controller.analysis.findings import Finding
from controller.analysis.given import Given
from controller.kinds.telemetry import Telemetry
from controller.registry.telemetry import find_idle


def check_telemetries(given: Given) -> Iterator[Finding]:
    """Those that decide for no proxy."""
    for each in given.snapshot.objects(Telemetry):
        if why := find_idle(given.snapshot, given.settings, each):
            yield Finding("telemetry-idle", each.key, ("spec",), why)
