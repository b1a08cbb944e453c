"""Sidecars that count for nobody, or name nothing."""

from collections.abc import Iterator

from controller.analysis.findings import Finding
from controller.analysis.given import Given
from controller.kinds.sidecar import Sidecar
from controller.registry.sidecars import find_idle


def check_sidecars(given: Given) -> Iterator[Finding]:
    """Those that count for nobody."""
    for each in given.snapshot.objects(Sidecar):
        if why := find_idle(given.snapshot, given.settings, each):
            yield Finding("sidecar-idle", each.key, ("metadata", "namespace"), why)
