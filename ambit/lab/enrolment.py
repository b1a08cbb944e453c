"""Keeping a node's agent told of the pods that are on its node.

A reconciler: what should be told (each pod's present description) is compared with what this run of the agent has been
told, and the difference is sent. So an agent that restarts, a changed label and a ztunnel that is late are one case.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from ambit.lab import http
from ambit.lab.control import Message
from ambit.lab.fields import Fields
from ambit.lab.topology import wants_mesh
from mesh.kit.errors import TransientError

log = logging.getLogger(__name__)

ANNOUNCE_TIMEOUT_SECONDS = 15.0
"""Rules are in within milliseconds; the agent then waits for ztunnel's acknowledgement, but not this long."""

RETRY_SECONDS = 0.2
"""How soon a refused or pending announcement is looked at again, and an absent agent is looked for."""

PARALLEL_ANNOUNCEMENTS = 8
"""An agent programs one namespace at a time; a few waiting requests keep it busy."""


class Enrolment(StrEnum):
    """What the agent said of a pod last."""

    UNKNOWN = "unknown"
    OUTSIDE = "outside"
    PENDING = "pending"
    ENROLLED = "enrolled"
    FAILED = "failed"


@dataclass(slots=True, eq=False)
class AnnouncedPod:
    """A pod as its agent knows it. `is_settled` is set as soon as the agent has answered that its rules are in, or
    that none are needed; it never goes back."""

    uid: str
    description: Message
    on_change: Callable[[], None]
    enrolment: Enrolment = Enrolment.UNKNOWN
    error: str = ""
    is_settled: asyncio.Event = field(default_factory=asyncio.Event)
    told: tuple[int, Message] | None = None

    @property
    def is_as_labels_say(self) -> bool:
        """Whether the agent has acted on the present labels; where nobody ever asked for the mesh, nothing is due."""
        if self.enrolment is Enrolment.UNKNOWN and not self.is_to_be_enrolled:
            return True
        is_done = self.enrolment in (Enrolment.OUTSIDE, Enrolment.ENROLLED)
        return is_done and self.told is not None and self.told[1] == self.description

    @property
    def is_to_be_enrolled(self) -> bool:
        """Whether the present labels ask for the mesh."""
        fields = Fields(self.description)
        return wants_mesh(fields.labels("labels"), fields.labels("namespace_labels"))

    def note(self, enrolment: Enrolment, error: str = "") -> None:
        changed = (enrolment, error) != (self.enrolment, self.error)
        self.enrolment, self.error = enrolment, error
        if enrolment in (Enrolment.OUTSIDE, Enrolment.PENDING, Enrolment.ENROLLED):
            self.is_settled.set()
        if changed:
            self.on_change()


class NodeEnrolment:
    """One node's announcements; `run` is its task. `agent_run` numbers the agent's starts."""

    def __init__(self, node: str, agent_socket: Path, agent_run: Callable[[], int]) -> None:
        self._node = node
        self.agent_socket = agent_socket
        self._agent_run = agent_run
        self._pods: dict[str, AnnouncedPod] = {}
        self._changed = asyncio.Event()

    def add(self, pod: AnnouncedPod) -> None:
        """Announce a pod as soon as the agent listens."""
        self._pods[pod.uid] = pod
        self.wake()

    def wake(self) -> None:
        """Look again: a pod's description has changed, or the agent has started."""
        self._changed.set()

    async def withdraw(self, uid: str) -> None:
        """Take a pod back; an agent that is down has forgotten it already."""
        self._pods.pop(uid, None)
        try:
            await http.fetch(self.agent_socket, "DELETE", f"/pods/{uid}", timeout_seconds=ANNOUNCE_TIMEOUT_SECONDS)
        except http.UnreachableError as error:
            log.info("pod not withdrawn", extra={"node": self._node, "uid": uid, "error": str(error)})

    async def fetch_rules(self, uid: str) -> str:
        """The agent's readable dump of a pod's rules; raises TransientError when it has none to give."""
        answer = await http.fetch(self.agent_socket, "GET", f"/pods/{uid}/rules")
        body = answer.body if isinstance(answer.body, dict) else {}
        if answer.status != 200:
            raise TransientError(f"the agent of {self._node} has no rules for the pod: {body.get('error')}")
        return str(body.get("rules"))

    async def run(self) -> None:
        """Reconcile for ever."""
        while True:
            self._changed.clear()
            is_done = await self._reconcile()
            try:
                async with asyncio.timeout(None if is_done else RETRY_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _reconcile(self) -> bool:
        """Send what is missing; True when nothing is left to do."""
        if not self._pods:
            return True
        run = self._agent_run()
        if not await http.is_ready(self.agent_socket):
            return False
        missing = [pod for pod in self._pods.values() if pod.told != (run, pod.description)]
        slots = asyncio.Semaphore(PARALLEL_ANNOUNCEMENTS)
        async with asyncio.TaskGroup() as tasks:
            for pod in missing:
                tasks.create_task(self._announce(pod, run, slots), name=f"announce {pod.uid}")
        pending = [pod for pod in self._pods.values() if pod.enrolment is Enrolment.PENDING]
        if pending:
            await self._look_again(pending)
        unfinished = (Enrolment.UNKNOWN, Enrolment.PENDING, Enrolment.FAILED)
        return all(pod.enrolment not in unfinished for pod in self._pods.values())

    async def _announce(self, pod: AnnouncedPod, run: int, slots: asyncio.Semaphore) -> None:
        description = pod.description
        async with slots:
            try:
                answer = await http.fetch(self.agent_socket, "POST", "/pods", description, ANNOUNCE_TIMEOUT_SECONDS)
            except http.UnreachableError as error:
                pod.note(Enrolment.FAILED, str(error))
                return
        body = answer.body if isinstance(answer.body, dict) else {}
        if answer.status != 200:
            pod.note(Enrolment.FAILED, str(body.get("error") or f"the agent answered {answer.status}"))
            return
        pod.told = (run, description)
        pod.note(_read_enrolment(body))

    async def _look_again(self, pending: list[AnnouncedPod]) -> None:
        """Ask the agent what has become of pods that were waiting for ztunnel."""
        try:
            answer = await http.fetch(self.agent_socket, "GET", "/pods")
        except http.UnreachableError:
            return
        found = answer.body if isinstance(answer.body, list) else []
        by_uid = {item.get("uid"): item for item in found if isinstance(item, dict)}
        for pod in pending:
            if pod.uid in by_uid:
                pod.note(_read_enrolment(by_uid[pod.uid]), str(by_uid[pod.uid].get("error") or ""))


def _read_enrolment(body: Message) -> Enrolment:
    if body.get("pending"):
        return Enrolment.PENDING
    return Enrolment.ENROLLED if body.get("enrolled") else Enrolment.OUTSIDE
