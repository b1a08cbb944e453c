"""The enrolment of each pod on the node, step by step, so that no pod of the mesh ever runs in plaintext.

    announced -> namespace opened and checked -> rules written -> captured -> ztunnel accepted -> enrolled
                        |                           |                |
                        +--> refused: nothing done  +--> failed      +--> no ztunnel, or it said no: stays captured,
                                                                          is offered again until one accepts

A *captured* pod is closed: its traffic is redirected to sockets that nobody has opened. It is announced as pending. A
*failed* pod may run in plaintext only if somebody starts it all the same: its source gets the error, and must not.
Withdrawal is the same in reverse: first nobody new hears of the pod, then its rules go, then every ztunnel lets go.

What changes the kernel goes one at a time (tens of milliseconds each); nothing waits for a ztunnel while it holds the
others up. Order and retries: facts on the CNI, 4.1 and 4.2.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from cni.agent.announcement import PodAnnouncement
from cni.agent.eligibility import EligibilitySettings, EnrolmentDecision, choose_settings, decide_enrolment
from cni.kernel.namespaces import InvalidNamespaceError, NamespaceIdentity, NetworkNamespace
from cni.kernel.rules import PodSettings, RuleSet, build_rules
from mesh.kit.errors import AmbitError, InvalidInputError, TransientError

log = logging.getLogger(__name__)


class UnknownPodError(InvalidInputError):
    """A pod is asked about that was never announced, or is not enrolled."""

    reason = "unknown_pod"


class PodState(Enum):
    """How far a pod has come. See the picture at the head of this module."""

    CAPTURED = "captured"
    ENROLLED = "enrolled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PodStatus:
    """What is reported of a pod. `decision` says why it is in the mesh or outside."""

    pod: PodAnnouncement
    decision: EnrolmentDecision
    state: PodState | None = None
    error: str | None = None


@dataclass(slots=True)
class KnownPod:
    """A pod in the mesh. Its owner is the enrolment; others read it."""

    announcement: PodAnnouncement
    decision: EnrolmentDecision
    namespace: NetworkNamespace
    rules: RuleSet
    state: PodState
    error: str | None = None


class PodKernel(Protocol):
    """What enrolment asks of the kernel, none of it blocking the event loop."""

    def open(self, path: str) -> NetworkNamespace: ...
    async def read_addresses(self, namespace: NetworkNamespace) -> frozenset[IPv4Address | IPv6Address]: ...
    async def apply(self, namespace: NetworkNamespace, rules: RuleSet) -> None: ...
    async def remove(self, namespace: NetworkNamespace, rules: RuleSet) -> None: ...
    async def is_installed(self, namespace: NetworkNamespace, rules: RuleSet) -> bool: ...


class Ztunnels(Protocol):
    """The ztunnels of this node: the newest serves new pods, all of them let go of old ones."""

    async def add(self, uid: str) -> None:
        """Offer a pod to the newest. Raises TransientError when there is none, or it did not accept."""

    async def remove(self, uid: str) -> None:
        """Tell all that a pod is gone. What one cannot be told, it learns when it connects again."""


@dataclass(frozen=True, slots=True)
class EnrolmentSettings:
    """defaults: what a pod gets that says nothing else.

    retry_seconds: until a pod that no ztunnel took is offered again. It is closed until then, and asking is cheap.
    """

    defaults: PodSettings = field(default_factory=PodSettings)
    eligibility: EligibilitySettings = field(default_factory=EligibilitySettings)
    retry_seconds: float = 1.0


class Enrolment:
    """All pods of the node that are in the mesh."""

    def __init__(
        self,
        settings: EnrolmentSettings,
        kernel: PodKernel,
        ztunnels: Ztunnels,
        on_change: Callable[[Sequence[KnownPod]], None] = lambda _: None,
    ) -> None:
        """`on_change` gets the pods whose rules stand, whenever one came or went."""
        self._settings = settings
        self._kernel = kernel
        self._ztunnels = ztunnels
        self._on_change = on_change
        self._pods: dict[str, KnownPod] = {}
        self._changing = asyncio.Lock()
        self._is_retry_wanted = asyncio.Event()

    # ------------------------------------------------------------------------------------------- for the pods' source

    async def announce(self, pod: PodAnnouncement) -> PodStatus:
        """Enrol `pod`, or take it out of the mesh when it does not belong there (any more). The same again re-asserts.

        Raises InvalidNamespaceError, KernelRefusedError or EnterNamespaceError; then the pod must not be started.
        """
        decision = decide_enrolment(pod, self._settings.eligibility)
        if not decision.is_enrolled:
            await self.withdraw(pod.uid)
            return PodStatus(pod, decision)
        async with self._changing:
            known, replaced = await self._capture(pod, decision)
        for other in replaced:
            await self._ztunnels.remove(other)
        await self._offer(known)
        return _describe(known)

    async def withdraw(self, uid: str) -> None:
        """Take a pod out of the mesh and remove its rules. Unknown is fine. Raises what the kernel refuses."""
        if uid not in self._pods:
            return
        try:
            async with self._changing:
                await self._release(uid)
        finally:
            await self._ztunnels.remove(uid)

    def list_pods(self) -> list[PodStatus]:
        """Every pod in the mesh, in the order of announcement."""
        return [_describe(known) for known in self._pods.values()]

    async def inspect_rules(self, uid: str) -> tuple[RuleSet, bool]:
        """A pod's rules, and whether they are what the kernel has. Raises UnknownPodError."""
        async with self._changing:
            known = self._pods.get(uid)
            if known is None:
                raise UnknownPodError(f"pod {uid!r} is not enrolled on this node: GET /pods lists those that are")
            return known.rules, await self._kernel.is_installed(known.namespace, known.rules)

    async def restore(self, pod: PodAnnouncement, identity: NamespaceIdentity) -> None:
        """Take up a pod that an earlier agent enrolled, without offering it: a ztunnel that connects gets all at once.

        Raises what `announce` raises, and InvalidNamespaceError when the path is another namespace by now.
        """
        with self._kernel.open(pod.netns) as namespace:
            if namespace.identity != identity:
                raise InvalidNamespaceError(f"{pod.netns!r} is no longer the namespace of pod {pod.uid}")
        decision = decide_enrolment(pod, self._settings.eligibility)
        if decision.is_enrolled:
            async with self._changing:
                await self._capture(pod, decision)

    async def watch_pending(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Endless: offer captured pods again until a ztunnel accepts them. One that connects gets all anyway."""
        while True:
            await self._is_retry_wanted.wait()
            self._is_retry_wanted.clear()
            await sleep(self._settings.retry_seconds)
            for known in [known for known in self._pods.values() if known.state is PodState.CAPTURED]:
                await self._offer(known)

    # -------------------------------------------------------------------------------------------------- for ztunnels

    def find_captured(self, uid: str) -> KnownPod | None:
        """A pod whose rules stand, so that ztunnel may have it."""
        known = self._pods.get(uid)
        return known if known is not None and known.state is not PodState.FAILED else None

    def list_captured(self) -> list[str]:
        """The uids of all pods that a ztunnel has to know."""
        return [uid for uid in self._pods if self.find_captured(uid) is not None]

    def record_answer(self, offered: KnownPod, error: str) -> None:
        """Note a ztunnel's answer to an offer: accepted when `error` is empty."""
        if self._pods.get(offered.announcement.uid) is not offered:
            return  # withdrawn meanwhile, or another namespace by now
        if error:
            self._note_pending(offered, f"ztunnel refused it: {error}")
        elif offered.state is not PodState.ENROLLED or offered.error:
            offered.state, offered.error = PodState.ENROLLED, None
            log.info("pod enrolled", extra=_fields(offered.announcement))

    # ----------------------------------------------------------------------------------------------------- the steps

    async def _capture(self, pod: PodAnnouncement, decision: EnrolmentDecision) -> tuple[KnownPod, list[str]]:
        """Check the namespace, write the rules: captured at least, when it returns. Also the pods that it replaces."""
        known, replaced = await self._know(pod, decision)
        try:
            await self._kernel.apply(known.namespace, known.rules)
        except AmbitError as error:
            known.error = str(error)
            log.error("pod enrolment failed", extra=_fields(pod) | {"reason": error.reason, "error": str(error)})
            raise
        if known.state is PodState.FAILED:
            known.state, known.error = PodState.CAPTURED, None
        self._report_change()
        return known, replaced

    async def _know(self, pod: PodAnnouncement, decision: EnrolmentDecision) -> tuple[KnownPod, list[str]]:
        """The record of `pod`: the one there is, brought up to date, or a new one, failed until it has not."""
        namespace = self._kernel.open(pod.netns)
        try:
            await self._check_addresses(pod, namespace)
            replaced = await self._release_others(pod.uid, namespace.identity)
        except BaseException:
            namespace.close()
            raise
        rules = build_rules(choose_settings(pod, self._settings.defaults))
        known = self._pods.get(pod.uid)
        if known is not None and known.namespace.identity == namespace.identity:
            namespace.close()
            known.announcement, known.decision, known.rules = pod, decision, rules
            return known, replaced
        if known is not None:
            known.namespace.close()  # the pod was made anew; ztunnel swaps the namespaces when it is offered
        self._pods[pod.uid] = fresh = KnownPod(pod, decision, namespace, rules, PodState.FAILED)
        return fresh, replaced

    async def _check_addresses(self, pod: PodAnnouncement, namespace: NetworkNamespace) -> None:
        """A path that leads to a namespace without the pod's address is somebody else's (facts on the CNI, 4.4)."""
        present = await self._kernel.read_addresses(namespace)
        if pod.addresses and present.isdisjoint(pod.addresses):
            raise InvalidNamespaceError(
                f"network namespace {pod.netns!r} of pod {pod.namespace}/{pod.name} has none of its addresses"
                f" ({_join(pod.addresses)}); it has {_join(present)}"
            )

    async def _release_others(self, uid: str, identity: NamespaceIdentity) -> list[str]:
        """A namespace is one pod's identity. The newest announcement is right: the older pod is gone."""
        others = [other for other, known in self._pods.items() if known.namespace.identity == identity and other != uid]
        for other in others:
            log.warning("pod replaced in its namespace", extra=_fields(self._pods[other].announcement) | {"by": uid})
            await self._release(other)
        return others

    async def _offer(self, known: KnownPod) -> None:
        """Let the newest ztunnel have the pod. When none accepts, the pod stays captured and is offered again."""
        try:
            await self._ztunnels.add(known.announcement.uid)
        except TransientError as error:
            self._note_pending(known, str(error))

    def _note_pending(self, known: KnownPod, why: str) -> None:
        self._is_retry_wanted.set()
        if (known.state, known.error) != (PodState.CAPTURED, why):
            known.state, known.error = PodState.CAPTURED, why
            log.warning("pod waits for a ztunnel", extra=_fields(known.announcement) | {"why": why})

    async def _release(self, uid: str) -> None:
        """Forget the pod, so that a ztunnel that connects does not get it; remove its rules; let its namespace go."""
        known = self._pods.pop(uid, None)
        if known is None:
            return
        try:
            await self._kernel.remove(known.namespace, known.rules)
        except AmbitError as error:
            known.state, known.error = PodState.FAILED, f"not withdrawn: {error}"
            self._pods[uid] = known  # so that it is reported, and withdrawing it again tries again
            raise
        else:
            known.namespace.close()
            log.info("pod withdrawn", extra=_fields(known.announcement))
        finally:
            self._report_change()

    def _report_change(self) -> None:
        self._on_change([known for known in self._pods.values() if known.state is not PodState.FAILED])


def _describe(known: KnownPod) -> PodStatus:
    return PodStatus(known.announcement, known.decision, known.state, known.error)


def _fields(pod: PodAnnouncement) -> dict[str, str]:
    return {"pod": pod.name, "namespace": pod.namespace, "uid": pod.uid}


def _join(addresses: Iterable[IPv4Address | IPv6Address]) -> str:
    return ", ".join(sorted(str(address) for address in addresses)) or "none"
