"""The dialogue of an enrolment: what is asked of the kernel and of ztunnel, in which order, and what when they say no.

No kernel and no sockets: plain files stand for the network namespaces, scripted peers for the kernel and for ztunnel.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest

from cni.agent.announcement import PodAnnouncement
from cni.agent.eligibility import EnrolmentDecision
from cni.agent.enrolment import Enrolment, EnrolmentSettings, KnownPod, PodState, UnknownPodError
from cni.agent.zds_connection import ZtunnelRefusedPodError, ZtunnelUnavailableError
from cni.kernel.namespaces import InvalidNamespaceError, NamespaceIdentity, NetworkNamespace
from cni.kernel.netlink import KernelRefusedError
from cni.kernel.rules import PodSettings, RuleSet, build_rules
from tests.support.pods import announce, open_stand_in
from tests.support.waiting import until

REFUSED = KernelRefusedError("add table", 1)


@dataclass
class Script:
    """A kernel and a ztunnel that note what they are asked, and answer as the test says."""

    said: list[str] = field(default_factory=list)
    kernel_error: KernelRefusedError | None = None
    removal_error: KernelRefusedError | None = None
    ztunnel_error: str | None = None
    has_ztunnel: bool = True
    addresses: frozenset[IPv4Address | IPv6Address] = frozenset()
    applied: dict[NamespaceIdentity, RuleSet] = field(default_factory=dict)
    enrolment: Enrolment | None = None

    def note(self, what: str, about: NetworkNamespace | str) -> None:
        name = about if isinstance(about, str) else Path(about.path).name
        self.said.append(f"{what} {name}")

    def take(self) -> list[str]:
        """What was said since the last time."""
        said, self.said = self.said, []
        return said

    def open(self, path: str) -> NetworkNamespace:
        if not os.path.exists(path):
            raise InvalidNamespaceError(f"{path}: no such file")
        namespace = open_stand_in(path)
        self.note("open", namespace)
        return namespace

    async def read_addresses(self, namespace: NetworkNamespace) -> frozenset[IPv4Address | IPv6Address]:
        return self.addresses

    async def apply(self, namespace: NetworkNamespace, rules: RuleSet) -> None:
        self.note("apply", namespace)
        await asyncio.sleep(0)
        if self.kernel_error:
            raise self.kernel_error
        self.applied[namespace.identity] = rules

    async def remove(self, namespace: NetworkNamespace, rules: RuleSet) -> None:
        self.note("remove", namespace)
        await asyncio.sleep(0)
        if self.removal_error:
            raise self.removal_error
        self.applied.pop(namespace.identity, None)

    async def is_installed(self, namespace: NetworkNamespace, rules: RuleSet) -> bool:
        return self.applied.get(namespace.identity) == rules


@dataclass
class ScriptedZtunnels:
    """The ztunnels' side of the script."""

    script: Script

    async def add(self, uid: str) -> None:
        self.script.note("add", uid)
        await asyncio.sleep(0)
        if not self.script.has_ztunnel:
            raise ZtunnelUnavailableError("no ztunnel is connected")
        assert self.script.enrolment is not None
        known = self.script.enrolment.find_captured(uid)
        assert known is not None, "ztunnel is offered only what is captured"
        self.script.enrolment.record_answer(known, self.script.ztunnel_error or "")
        if self.script.ztunnel_error:
            raise ZtunnelRefusedPodError(f"ztunnel refused it: {self.script.ztunnel_error}")

    async def remove(self, uid: str) -> None:
        self.script.note("del", uid)


@dataclass
class Stage:
    """An enrolment on its script."""

    folder: Path
    script: Script = field(default_factory=Script)
    journal: list[list[str]] = field(default_factory=list)
    settings: EnrolmentSettings = field(default_factory=EnrolmentSettings)

    def __post_init__(self) -> None:
        ztunnels = ScriptedZtunnels(self.script)
        self.enrolment = Enrolment(self.settings, self.script, ztunnels, self._write_journal)
        self.script.enrolment = self.enrolment

    def announce(self, uid: str, namespace: str = "", labels: dict[str, str] | None = None) -> PodAnnouncement:
        """A pod whose namespace is called `ns-UID` unless told otherwise."""
        path = self.folder / (namespace or f"ns-{uid}")
        path.touch()
        return announce(uid, path, labels)

    def state_of(self, uid: str) -> PodState | None:
        return {status.pod.uid: status.state for status in self.enrolment.list_pods()}.get(uid)

    def _write_journal(self, pods: Sequence[KnownPod]) -> None:
        self.journal.append([known.announcement.uid for known in pods])


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def test_a_pod_is_enrolled_only_after_its_rules_stand_and_ztunnel_accepted(stage: Stage) -> None:
    status = await stage.enrolment.announce(stage.announce("a"))
    assert stage.script.take() == ["open ns-a", "apply ns-a", "add a"]
    assert (status.state, status.decision, status.error) == (PodState.ENROLLED, EnrolmentDecision.POD_LABEL, None)
    assert stage.journal == [["a"]]


async def test_a_pod_outside_the_mesh_is_left_alone(stage: Stage) -> None:
    status = await stage.enrolment.announce(stage.announce("a", labels={}))
    assert stage.script.take() == []
    assert (status.state, status.decision) == (None, EnrolmentDecision.NOT_LABELLED)
    assert stage.enrolment.list_pods() == []


async def test_the_same_announcement_again_asserts_everything_again(stage: Stage) -> None:
    await stage.enrolment.announce(stage.announce("a"))
    stage.script.take()
    status = await stage.enrolment.announce(stage.announce("a"))
    assert stage.script.take() == ["open ns-a", "apply ns-a", "add a"]
    assert status.state is PodState.ENROLLED
    assert len(stage.enrolment.list_pods()) == 1


async def test_a_pods_annotations_choose_its_rules(stage: Stage) -> None:
    pod = replace(stage.announce("a"), annotations={"ambient.istio.io/bypass-inbound-capture": "true"})
    await stage.enrolment.announce(pod)
    assert await stage.enrolment.inspect_rules("a") == (build_rules(PodSettings(bypass_inbound_capture=True)), True)


async def test_a_missing_namespace_is_an_error_and_leaves_nothing(stage: Stage) -> None:
    with pytest.raises(InvalidNamespaceError, match="no such file"):
        await stage.enrolment.announce(announce("a", stage.folder / "absent"))
    assert (stage.script.take(), stage.enrolment.list_pods()) == ([], [])


async def test_a_namespace_without_the_pods_address_is_refused_before_it_is_touched(stage: Stage) -> None:
    stage.script.addresses = frozenset({ip_address("192.0.2.9")})
    pod = replace(stage.announce("a"), addresses=(ip_address("192.0.2.7"), ip_address("2001:db8::7")))
    with pytest.raises(InvalidNamespaceError, match=r"none of its addresses .*192\.0\.2\.7.*it has 192\.0\.2\.9"):
        await stage.enrolment.announce(pod)
    assert stage.script.take() == ["open ns-a"]


async def test_when_the_kernel_refuses_ztunnel_hears_nothing_and_the_failure_is_reported(stage: Stage) -> None:
    stage.script.kernel_error = REFUSED
    with pytest.raises(KernelRefusedError):
        await stage.enrolment.announce(stage.announce("a"))
    assert stage.script.take() == ["open ns-a", "apply ns-a"]
    (status,) = stage.enrolment.list_pods()
    assert (status.state, status.error) == (PodState.FAILED, str(REFUSED))
    assert stage.enrolment.list_captured() == []
    stage.script.kernel_error = None
    assert (await stage.enrolment.announce(stage.announce("a"))).state is PodState.ENROLLED


async def test_an_enrolled_pod_whose_rules_cannot_be_asserted_stays_with_ztunnel(stage: Stage) -> None:
    await stage.enrolment.announce(stage.announce("a"))
    stage.script.kernel_error = REFUSED
    with pytest.raises(KernelRefusedError):
        await stage.enrolment.announce(stage.announce("a"))
    (status,) = stage.enrolment.list_pods()
    assert (status.state, status.error) == (PodState.ENROLLED, str(REFUSED))
    assert stage.enrolment.list_captured() == ["a"]


async def test_without_a_ztunnel_the_pod_is_captured_and_waits(stage: Stage) -> None:
    stage.script.has_ztunnel = False
    status = await stage.enrolment.announce(stage.announce("a"))
    assert (status.state, status.error) == (PodState.CAPTURED, "no ztunnel is connected")
    assert stage.enrolment.list_captured() == ["a"]
    assert stage.script.applied


async def test_a_pod_that_ztunnel_refused_is_offered_until_it_is_accepted(stage: Stage) -> None:
    stage.script.ztunnel_error = "port in use"
    status = await stage.enrolment.announce(stage.announce("a"))
    assert (status.state, status.error) == (PodState.CAPTURED, "ztunnel refused it: port in use")
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            stage.script.ztunnel_error = None
        await asyncio.sleep(0)

    await watch_until(stage, pause, lambda: stage.state_of("a") is PodState.ENROLLED)
    assert stage.script.take()[3:] == ["add a"] * 3
    assert pauses == [stage.settings.retry_seconds] * 3


async def test_a_snapshot_answer_enrols_a_waiting_pod(stage: Stage) -> None:
    stage.script.has_ztunnel = False
    await stage.enrolment.announce(stage.announce("a"))
    known = stage.enrolment.find_captured("a")
    assert known is not None
    stage.enrolment.record_answer(known, "")
    assert stage.state_of("a") is PodState.ENROLLED


async def test_a_withdrawal_forgets_first_then_removes_rules_then_tells_ztunnel(stage: Stage) -> None:
    await stage.enrolment.announce(stage.announce("a"))
    stage.script.take()
    await stage.enrolment.withdraw("a")
    assert stage.script.take() == ["remove ns-a", "del a"]
    assert (stage.enrolment.list_captured(), stage.script.applied, stage.journal[-1]) == ([], {}, [])


async def test_withdrawing_an_unknown_pod_is_fine(stage: Stage) -> None:
    await stage.enrolment.withdraw("a")
    assert stage.script.take() == []


async def test_a_pod_that_loses_its_label_is_withdrawn(stage: Stage) -> None:
    await stage.enrolment.announce(stage.announce("a"))
    stage.script.take()
    status = await stage.enrolment.announce(stage.announce("a", labels={}))
    assert stage.script.take() == ["remove ns-a", "del a"]
    assert (status.state, stage.enrolment.list_pods()) == (None, [])


async def test_rules_that_cannot_be_removed_are_reported_and_tried_again(stage: Stage) -> None:
    await stage.enrolment.announce(stage.announce("a"))
    stage.script.removal_error = REFUSED
    with pytest.raises(KernelRefusedError):
        await stage.enrolment.withdraw("a")
    assert stage.script.take()[-2:] == ["remove ns-a", "del a"]
    assert (stage.state_of("a"), stage.enrolment.list_captured()) == (PodState.FAILED, [])
    stage.script.removal_error = None
    await stage.enrolment.withdraw("a")
    assert (stage.script.take(), stage.enrolment.list_pods()) == (["remove ns-a", "del a"], [])


async def test_a_pod_made_anew_under_its_uid_brings_its_new_namespace(stage: Stage) -> None:
    await stage.enrolment.announce(stage.announce("a", "first"))
    await stage.enrolment.announce(stage.announce("a", "second"))
    assert stage.script.take()[3:] == ["open second", "apply second", "add a"]
    known = stage.enrolment.find_captured("a")
    assert known is not None
    assert Path(known.namespace.path).name == "second"


async def test_the_newest_pod_of_a_namespace_replaces_the_older(stage: Stage) -> None:
    await stage.enrolment.announce(stage.announce("a", "shared"))
    await stage.enrolment.announce(stage.announce("b", "shared"))
    assert stage.script.take()[3:] == ["open shared", "remove shared", "apply shared", "del a", "add b"]
    assert [status.pod.uid for status in stage.enrolment.list_pods()] == ["b"]


async def test_an_answer_about_a_pod_that_is_gone_changes_nothing(stage: Stage) -> None:
    stage.script.has_ztunnel = False
    await stage.enrolment.announce(stage.announce("a"))
    old = stage.enrolment.find_captured("a")
    assert old is not None
    await stage.enrolment.withdraw("a")
    await stage.enrolment.announce(stage.announce("a"))
    stage.enrolment.record_answer(old, "")
    assert stage.state_of("a") is PodState.CAPTURED


async def test_a_restarted_agent_knows_its_pods_before_any_ztunnel_asks(stage: Stage) -> None:
    pod = stage.announce("a")
    with open_stand_in(pod.netns) as namespace:
        await stage.enrolment.restore(pod, namespace.identity)
    assert stage.script.take() == ["open ns-a", "open ns-a", "apply ns-a"]
    assert (stage.state_of("a"), stage.enrolment.list_captured()) == (PodState.CAPTURED, ["a"])


async def test_a_path_that_leads_elsewhere_by_now_is_not_restored(stage: Stage) -> None:
    pod = stage.announce("a")
    with pytest.raises(InvalidNamespaceError, match="no longer"):
        await stage.enrolment.restore(pod, NamespaceIdentity(1, 2))
    assert (stage.script.take(), stage.enrolment.list_pods()) == (["open ns-a"], [])


async def test_the_rules_of_an_unknown_pod_are_an_error(stage: Stage) -> None:
    with pytest.raises(UnknownPodError, match="'a' is not enrolled"):
        await stage.enrolment.inspect_rules("a")


async def test_pods_that_come_at_once_change_the_kernel_one_at_a_time(stage: Stage) -> None:
    pods = [stage.announce(uid) for uid in "abcdef"]
    await asyncio.gather(*(stage.enrolment.announce(pod) for pod in pods))
    kernel = [said for said in stage.script.take() if not said.startswith("add")]
    assert kernel == [line for uid in "abcdef" for line in (f"open ns-{uid}", f"apply ns-{uid}")]
    assert all(status.state is PodState.ENROLLED for status in stage.enrolment.list_pods())


async def test_no_end_of_a_pod_leaves_a_descriptor_behind(stage: Stage) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for error in (None, REFUSED):
        stage.script.kernel_error = error
        for namespace in ("first", "second"):
            with suppress(KernelRefusedError):
                await stage.enrolment.announce(stage.announce("a", namespace))
        with suppress(KernelRefusedError):
            await stage.enrolment.announce(stage.announce("b", "second"))
        await stage.enrolment.withdraw("a")
        await stage.enrolment.withdraw("b")
    assert len(os.listdir("/proc/self/fd")) == before


async def watch_until(stage: Stage, pause: Callable[[float], Awaitable[None]], condition: Callable[[], bool]) -> None:
    """Run the retries until `condition` holds."""
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(stage.enrolment.watch_pending(pause))
        await until(condition)
        watching.cancel()
