"""What has become of WorkloadGroups: nothing registers with one here, but entries of one that somebody wrote serve."""

from controller.kinds.networking import WorkloadEntry
from controller.kinds.workload_group import WorkloadGroup
from controller.snapshot import Snapshot

GROUP_ANNOTATION = "istio.io/autoRegistrationGroup"
"""On a WorkloadEntry, the name of the group that it was made from."""


def find_idle(snapshot: Snapshot, group: WorkloadGroup) -> str:
    """Why a group does nothing; empty if there are WorkloadEntries of it."""
    entries = snapshot.objects_in(WorkloadEntry, group.namespace)
    if any(each.annotations.get(GROUP_ANNOTATION) == group.name for each in entries):
        return ""
    return (
        "no WorkloadEntry is of this group, and none is made from it: proxies do not register here; write a "
        f"WorkloadEntry for each workload, annotated {GROUP_ANNOTATION}: {group.name}"
    )


def list_unused(group: WorkloadGroup) -> str:
    """Which parts of a group have no effect, even where it has entries."""
    unused = ["template", *(["metadata"] if group.spec.metadata else []), *(["probe"] if group.spec.probe else [])]
    return f"{', '.join(unused)}: not applied to entries, which say everything themselves"
