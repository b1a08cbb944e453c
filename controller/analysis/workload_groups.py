"""WorkloadGroups, of which little has an effect."""

from collections.abc import Iterator

from controller.analysis.findings import Finding
from controller.analysis.given import Given
from controller.kinds.workload_group import WorkloadGroup
from controller.registry.workload_groups import find_idle, list_unused


def check_workload_groups(given: Given) -> Iterator[Finding]:
    """Those without an entry, and what is not applied of the others."""
    for group in given.snapshot.objects(WorkloadGroup):
        if why := find_idle(given.snapshot, group):
            yield Finding("workload-group-idle", group.key, ("spec",), why)
        else:
            yield Finding("workload-group-unapplied", group.key, ("spec",), list_unused(group))
