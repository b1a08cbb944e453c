"""The pods whose rules stand, in a file: so that an agent that starts again knows them at once.

Without it a restarted agent would have an empty list, and the ztunnel that connects to it would take that for the
truth and drop every pod. The file belongs into the run directory, which a reboot empties as it empties the namespaces.
What it says is checked against the kernel (the namespace's inode, the pod's address), and a source that announces all
of its pods again corrects it. Losing it costs connections, never secrecy: the rules stay in the pods.
"""

import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cni.agent.announcement import InvalidAnnouncementError, PodAnnouncement, build_announcement, encode_announcement
from cni.agent.enrolment import KnownPod
from cni.kernel.namespaces import NamespaceIdentity

log = logging.getLogger(__name__)

_OWNER_ONLY = 0o600


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A pod, and which namespace it had: its path may lead elsewhere by now."""

    pod: PodAnnouncement
    identity: NamespaceIdentity


class Journal:
    """The file at one path, mode 0600, replaced as a whole."""

    def __init__(self, path: str) -> None:
        self._path = path

    def load(self) -> list[JournalEntry]:
        """The entries of the file; none when there is no file, or none that can be read, which is logged."""
        try:
            with open(self._path, encoding="utf-8") as file:
                return [_decode(entry) for entry in json.load(file)]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, KeyError, InvalidAnnouncementError) as error:
            log.warning("journal ignored", extra={"path": self._path, "error": str(error)})
            return []

    def store(self, pods: Sequence[KnownPod]) -> None:
        """Replace the file. That it cannot be written is logged: it must not keep a pod from being enrolled."""
        temporary = f"{self._path}.new"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _OWNER_ONLY)
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump(_encode(pods), file)
            os.replace(temporary, self._path)
        except OSError as error:
            log.error("journal not written", extra={"path": self._path, "error": str(error)})


def _encode(pods: Iterable[KnownPod]) -> list[dict[str, object]]:
    return [
        {"pod": encode_announcement(known.announcement), "namespace": list(known.namespace.identity)} for known in pods
    ]


def _decode(entry: dict[str, object]) -> JournalEntry:
    identity = entry["namespace"]
    if not isinstance(identity, list):
        raise TypeError(f"namespace: {identity!r} is not a pair of numbers")
    inode, device = map(int, identity)
    return JournalEntry(build_announcement(entry["pod"]), NamespaceIdentity(inode, device))
