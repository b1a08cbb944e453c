"""ztunnel's side of ZDS over a real socket pair; the test plays the node agent."""

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from dataplane import AddWorkload
from mesh.kit.errors import AmbitError, TransientError
from mesh.wire import zds_pb2
from ztunnel.enrolment import READINESS_TASK, Enrolment, serve


class PodsOnly:
    """Remembers which pods are served; refuses those whose name starts with `bad`."""

    def __init__(self) -> None:
        self.served: dict[str, tuple[str, str, str]] = {}
        self.ready: dict[str, bool] = {}
        self.pending = 0

    def add_pod(self, pod: AddWorkload, netns: int, inherited: list[int]) -> None:
        assert not inherited
        os.close(netns)
        if pod.name.startswith("bad"):
            raise TransientError("port 15001 is taken")
        self.served[pod.uid] = (pod.namespace, pod.name, pod.service_account)

    def remove_pod(self, uid: str) -> None:
        self.served.pop(uid, None)

    def pods(self) -> list[str]:
        return list(self.served)

    def set_pending_pods(self, count: int) -> None:
        self.pending = count

    def set_ready(self, task: str, ready: bool) -> None:
        self.ready[task] = ready


class Agent:
    """The node agent's end of one connection."""

    def __init__(self, pods: PodsOnly, enrolment: Enrolment) -> None:
        self.pods = pods
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(5)
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._serve, args=(theirs, enrolment))
        self._thread.start()
        assert zds_pb2.ZdsHello.FromString(self._socket.recv(1024)).version == zds_pb2.V1

    def _serve(self, theirs: socket.socket, enrolment: Enrolment) -> None:
        with theirs:
            try:
                serve(theirs, enrolment, lambda: False)
            except (AmbitError, OSError) as error:
                self.failure = error

    def say(self, packet: bytes, descriptors: int = 0) -> str:
        """Send a packet with so many descriptors; returns the acknowledgement's error."""
        opened = [os.open("/proc/self/ns/net", os.O_RDONLY) for _ in range(descriptors)]
        socket.send_fds(self._socket, [packet], opened)
        for descriptor in opened:
            os.close(descriptor)
        return zds_pb2.WorkloadResponse.FromString(self._socket.recv(1024)).ack.error

    def add(self, uid: str, name: str, descriptors: int = 1) -> str:
        info = zds_pb2.WorkloadInfo(name=name, namespace="shop", service_account="web")
        add = zds_pb2.AddWorkload(uid=uid, workload_info=info)
        return self.say(zds_pb2.WorkloadRequest(add=add).SerializeToString(), descriptors)

    def keep(self, uid: str) -> str:
        return self.say(zds_pb2.WorkloadRequest(keep=zds_pb2.KeepWorkload(uid=uid)).SerializeToString())

    def delete(self, uid: str) -> str:
        request = zds_pb2.WorkloadRequest()
        getattr(request, "del").uid = uid  # `del` is a keyword
        return self.say(request.SerializeToString())

    def snapshot(self) -> str:
        return self.say(zds_pb2.WorkloadRequest(snapshot_sent=zds_pb2.SnapshotSent()).SerializeToString())

    def hang_up(self) -> None:
        self._socket.close()
        self._thread.join(5)
        assert not self._thread.is_alive()


@pytest.fixture
def pods() -> PodsOnly:
    return PodsOnly()


@pytest.fixture
def enrolment(pods: PodsOnly) -> Enrolment:
    return Enrolment(pods)  # type: ignore[arg-type]  # the native class is final; this is the part of it that is used


@pytest.fixture
def agent(pods: PodsOnly, enrolment: Enrolment) -> Iterator[Agent]:
    agent = Agent(pods, enrolment)
    yield agent
    agent.hang_up()


def test_pods_of_the_snapshot_are_served_and_make_the_process_ready(agent: Agent) -> None:
    assert agent.pods.ready == {READINESS_TASK: False}
    assert agent.add("u1", "web-1") == ""
    assert agent.pods.served == {"u1": ("shop", "web-1", "web")}
    assert agent.pods.ready == {READINESS_TASK: False}
    assert agent.snapshot() == ""
    assert agent.pods.ready == {READINESS_TASK: True}


def test_a_pod_that_cannot_be_served_is_pending_and_named(agent: Agent) -> None:
    assert "15001" in agent.add("u1", "bad-1")
    agent.snapshot()
    assert agent.pods.pending == 1
    assert agent.pods.ready == {READINESS_TASK: False}
    assert agent.delete("u1") == ""
    agent.add("u2", "web-2")
    assert agent.pods.pending == 0
    assert agent.pods.ready == {READINESS_TASK: True}


def test_a_reconnect_keeps_what_is_named_and_drops_what_is_not(
    agent: Agent, pods: PodsOnly, enrolment: Enrolment
) -> None:
    for uid in ("u1", "u2", "u3"):
        agent.add(uid, f"web-{uid}")
    agent.snapshot()
    agent.hang_up()
    assert set(pods.served) == {"u1", "u2", "u3"}, "pods are served while there is no agent"
    again = Agent(pods, enrolment)
    again.keep("u1")
    again.add("u2", "web-u2")
    assert set(pods.served) == {"u1", "u2", "u3"}
    again.snapshot()
    assert set(pods.served) == {"u1", "u2"}
    again.hang_up()


def test_a_deleted_pod_is_no_longer_served_and_an_unknown_one_is_fine(agent: Agent) -> None:
    agent.add("u1", "web-1")
    agent.snapshot()
    assert agent.delete("u1") == ""
    assert agent.delete("u1") == ""
    assert agent.pods.served == {}


@pytest.mark.parametrize(
    ("packet", "descriptors", "reason"),
    [
        pytest.param(b"\xff\xff\xff", 0, "does not parse", id="garbage"),
        pytest.param(b"", 1, "not known here", id="empty-request"),
        pytest.param(
            zds_pb2.WorkloadRequest(add=zds_pb2.AddWorkload(uid="u")).SerializeToString(), 1, "which pod", id="no-info"
        ),
        pytest.param(
            zds_pb2.WorkloadRequest(keep=zds_pb2.KeepWorkload(uid="u")).SerializeToString(),
            1,
            "descriptors",
            id="keep-with-descriptor",
        ),
    ],
)
def test_what_breaks_the_protocol_ends_the_conversation_with_the_reason(
    agent: Agent, packet: bytes, descriptors: int, reason: str
) -> None:
    assert reason in agent.say(packet, descriptors)
    agent.hang_up()
    assert reason in str(agent.failure)


def test_an_add_without_a_namespace_is_refused(agent: Agent) -> None:
    assert "network namespace" in agent.add("u1", "web-1", descriptors=0)


def test_a_second_snapshot_and_a_late_keep_are_refused(agent: Agent) -> None:
    agent.snapshot()
    assert "after the snapshot" in agent.keep("u1")


def test_no_descriptor_is_left_behind(agent: Agent) -> None:
    before = len(os.listdir("/proc/self/fd"))
    agent.add("u1", "web-1")
    agent.add("u2", "bad-2")
    agent.delete("u2")
    assert len(os.listdir("/proc/self/fd")) == before
