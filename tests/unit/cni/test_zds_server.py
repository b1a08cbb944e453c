"""ZDS over its real socket, with a client that plays ztunnel. Plain files stand for the network namespaces."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.agent.enrolment import KnownPod
from cni.agent.zds_connection import (
    MAX_WAITING_REQUESTS,
    ZdsProtocolError,
    ZtunnelRefusedPodError,
    ZtunnelUnavailableError,
    check_hello,
    parse_ack,
)
from cni.agent.zds_server import ZdsServer, ZdsSettings
from mesh.wire import zds_pb2
from tests.support.pods import know
from tests.support.waiting import until
from tests.support.zds_client import Request, ZdsClient

SNAPSHOT_SENT = Request("snapshot_sent")


@dataclass
class Pods:
    """The pods that ztunnel has to know, and what it answered."""

    folder: Path
    known: dict[str, KnownPod] = field(default_factory=dict)
    answers: list[tuple[str, str]] = field(default_factory=list)

    def put(self, uid: str) -> Request:
        """Know a pod; return the request that ztunnel gets for it."""
        self.known[uid] = known = know(uid, self.folder / uid)
        pod = known.announcement
        return Request("add", uid, (pod.name, pod.namespace, pod.service_account), known.namespace.identity.inode)

    def drop(self, uid: str) -> None:
        self.known.pop(uid).namespace.close()

    def list_captured(self) -> list[str]:
        return list(self.known)

    def find_captured(self, uid: str) -> KnownPod | None:
        return self.known.get(uid)

    def record_answer(self, offered: KnownPod, error: str) -> None:
        self.answers.append((offered.announcement.uid, error))


@dataclass(frozen=True)
class Agent:
    """A running server."""

    path: str
    server: ZdsServer
    pods: Pods

    async def connect(self, hello: bytes | None = None) -> ZdsClient:
        return await ZdsClient.connect(self.path, hello)

    async def connect_ready(self) -> ZdsClient:
        """A ztunnel that has its snapshot, and is the newest."""
        client = await self.connect()
        await client.expect_snapshot()
        return client


@asynccontextmanager
async def run_agent(folder: Path, answer_seconds: float = 5.0, request_seconds: float = 10.0) -> AsyncIterator[Agent]:
    settings = ZdsSettings(str(folder / "zds.sock"), answer_seconds, request_seconds, max_connections=3)
    server, pods = ZdsServer(settings), Pods(folder)
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.serve(pods))
        await until(Path(settings.path).exists)
        yield Agent(settings.path, server, pods)
        serving.cancel()
    for known in pods.known.values():
        known.namespace.close()
    assert not Path(settings.path).exists()


async def test_a_ztunnel_gets_every_pod_and_then_the_end_of_the_snapshot(tmp_path: Path) -> None:
    async with run_agent(tmp_path) as agent:
        added = [agent.pods.put("a"), agent.pods.put("b")]
        with await agent.connect() as ztunnel:
            assert [await ztunnel.expect(), await ztunnel.expect()] == added
            assert await ztunnel.expect() == SNAPSHOT_SENT
        assert agent.pods.answers == [("a", ""), ("b", "")]


async def test_without_pods_the_snapshot_is_empty_but_sent(tmp_path: Path) -> None:
    async with run_agent(tmp_path) as agent:
        with await agent.connect() as ztunnel:
            assert await ztunnel.expect() == SNAPSHOT_SENT


async def test_the_next_request_waits_for_the_last_ack(tmp_path: Path) -> None:
    async with run_agent(tmp_path) as agent:
        first, second = agent.pods.put("a"), agent.pods.put("b")
        with await agent.connect() as ztunnel:
            assert await ztunnel.receive() == first
            for _ in range(20):
                await asyncio.sleep(0)
            assert not ztunnel.has_request()
            await ztunnel.acknowledge()
            assert await ztunnel.receive() == second


async def test_a_ztunnel_counts_from_its_hello(tmp_path: Path) -> None:
    async with run_agent(tmp_path) as agent:
        agent.pods.put("a")
        silent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with silent, await agent.connect_ready() as ztunnel:
            silent.connect(agent.path)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(agent.server.add("a"))
                await ztunnel.expect()
            assert agent.server.count_ztunnels() == 1


async def test_a_refused_pod_does_not_end_the_snapshot(tmp_path: Path) -> None:
    async with run_agent(tmp_path) as agent:
        agent.pods.put("a")
        agent.pods.put("b")
        with await agent.connect() as ztunnel:
            await ztunnel.expect(error="port 15008 in use")
            await ztunnel.expect()
            assert await ztunnel.expect() == SNAPSHOT_SENT
        assert agent.pods.answers == [("a", "port 15008 in use"), ("b", "")]


async def test_a_new_pod_is_added_with_its_namespace(tmp_path: Path) -> None:
    async with run_agent(tmp_path) as agent:
        with await agent.connect_ready() as ztunnel:
            added = agent.pods.put("a")
            async with asyncio.TaskGroup() as tasks:
                adding = tasks.create_task(agent.server.add("a"))
                request = await ztunnel.receive()
                assert request == added
                assert not adding.done()  # enrolled only once ztunnel has said so
                await ztunnel.acknowledge()
        assert agent.pods.answers == [("a", "")]


async def test_a_pod_that_ztunnel_refuses_is_reported_with_its_reason(tmp_path: Path) -> None:
    async with run_agent(tmp_path) as agent:
        with await agent.connect_ready() as ztunnel:
            agent.pods.put("a")
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(ztunnel.expect(error="no such namespace"))
                with pytest.raises(ZtunnelRefusedPodError, match="no such namespace"):
                    await agent.server.add("a")


async def test_a_pod_that_comes_during_the_snapshot_follows_it(tmp_path: Path) -> None:
    async with run_agent(tmp_path) as agent:
        first = agent.pods.put("a")
        with await agent.connect() as ztunnel:
            assert await ztunnel.receive() == first
            late = agent.pods.put("b")
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(agent.server.add("b"))
                await asyncio.sleep(0)
                await ztunnel.acknowledge()
                assert [await ztunnel.expect(), await ztunnel.expect()] == [SNAPSHOT_SENT, late]


async def test_a_pod_that_goes_during_the_snapshot_is_left_out(tmp_path: Path) -> None:
    async with run_agent(tmp_path) as agent:
        agent.pods.put("a")
        agent.pods.put("b")
        with await agent.connect() as ztunnel:
            await ztunnel.receive()
            agent.pods.drop("b")
            await ztunnel.acknowledge()
            assert await ztunnel.receive() == SNAPSHOT_SENT


async def test_a_namespace_closed_while_it_is_offered_is_not_mistaken_for_another(tmp_path: Path) -> None:
    async with run_agent(tmp_path) as agent:
        added = agent.pods.put("a")
        with await agent.connect() as ztunnel:
            await until(ztunnel.has_request)
            agent.pods.drop("a")
            agent.pods.put("b")  # takes the file descriptor that was just closed
            assert await ztunnel.expect() == added


async def test_an_add_goes_to_the_newest_ztunnel_only_and_a_removal_to_all(tmp_path: Path) -> None:
    async with run_agent(tmp_path) as agent:
        with await agent.connect_ready() as old, await agent.connect_ready() as new:
            added = agent.pods.put("a")
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(agent.server.add("a"))
                assert await new.expect() == added
            assert not old.has_request()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(agent.server.remove("a"))
                assert [await old.expect(), await new.expect()] == [Request("del", "a"), Request("del", "a")]


async def test_when_the_newest_ztunnel_goes_the_older_one_serves(tmp_path: Path) -> None:
    async with run_agent(tmp_path) as agent:
        with await agent.connect_ready() as old:
            (await agent.connect_ready()).close()
            await until(lambda: agent.server.count_ztunnels() == 1)
            added = agent.pods.put("a")
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(agent.server.add("a"))
                assert await old.expect() == added


async def test_a_ztunnel_that_connects_again_gets_the_snapshot_at_once(tmp_path: Path) -> None:
    async with run_agent(tmp_path) as agent:
        added = agent.pods.put("a")
        for _ in range(3):
            with await agent.connect() as ztunnel:
                assert await ztunnel.expect_snapshot() == [added]


async def test_a_ztunnel_that_dies_fails_what_it_was_asked(tmp_path: Path) -> None:
    async with run_agent(tmp_path) as agent:
        with await agent.connect_ready() as ztunnel:
            agent.pods.put("a")
            agent.pods.put("b")
            async with asyncio.TaskGroup() as tasks:
                asked = [tasks.create_task(outcome(agent.server.add(uid))) for uid in ("a", "b")]
                await ztunnel.receive()
                ztunnel.close()
            assert [type(task.result()) for task in asked] == [ZtunnelUnavailableError] * 2
        assert agent.pods.answers == []


async def test_a_removal_without_any_ztunnel_is_done(tmp_path: Path) -> None:
    async with run_agent(tmp_path) as agent:
        await agent.server.remove("a")


HELLO = zds_pb2.ZdsHello(version=zds_pb2.V1).SerializeToString()
NO_ACK = zds_pb2.WorkloadResponse().SerializeToString() or b"\x12\x00"  # a field that nobody knows


@pytest.mark.parametrize(
    "hello",
    [b"\xff\xff", b"GET / HTTP/1.1\r\n\r\n", b"\x08\x02", HELLO + b"\0" * 2000],
    ids=["garbage", "HTTP", "version 2", "too long"],
)
async def test_who_is_no_ztunnel_is_disconnected_and_told_nothing(tmp_path: Path, hello: bytes) -> None:
    async with run_agent(tmp_path) as agent:
        agent.pods.put("a")
        with await agent.connect(hello) as stranger:
            assert await stranger.receive() is None
        assert agent.server.count_ztunnels() == 0
        with await agent.connect() as ztunnel:  # and the agent goes on
            await ztunnel.expect_snapshot()


@pytest.mark.parametrize("answer", [b"\xff\xff", NO_ACK, b"\0" * 2000], ids=["garbage", "no ack", "too long"])
async def test_an_answer_that_is_no_ack_ends_the_connection_and_enrols_nobody(tmp_path: Path, answer: bytes) -> None:
    async with run_agent(tmp_path) as agent:
        agent.pods.put("a")
        with await agent.connect() as ztunnel:
            await ztunnel.receive()
            await ztunnel.send(answer)
            assert await ztunnel.receive() is None
        assert agent.pods.answers == []


@pytest.mark.parametrize("parse", [check_hello, parse_ack], ids=["hello", "ack"])
@given(packet=st.binary(max_size=64))
def test_no_packet_does_worse_than_ending_its_connection(parse: Callable[[bytes], object], packet: bytes) -> None:
    with suppress(ZdsProtocolError):
        parse(packet)


async def test_a_packet_that_nothing_asked_for_ends_the_connection(tmp_path: Path) -> None:
    async with run_agent(tmp_path) as agent:
        with await agent.connect_ready() as ztunnel:
            await ztunnel.acknowledge()
            assert await ztunnel.receive() is None


async def test_a_ztunnel_that_says_nothing_is_disconnected(tmp_path: Path) -> None:
    async with run_agent(tmp_path, answer_seconds=0.01) as agent:
        silent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        silent.connect(agent.path)
        assert await ZdsClient(silent).receive() is None
        silent.close()


async def test_a_ztunnel_that_does_not_acknowledge_is_disconnected_and_the_pod_waits(tmp_path: Path) -> None:
    async with run_agent(tmp_path, answer_seconds=0.1) as agent:
        with await agent.connect_ready() as ztunnel:
            agent.pods.put("a")
            with pytest.raises(ZtunnelUnavailableError, match="before it answered"):
                await agent.server.add("a")
            assert await ztunnel.receive() is not None
            assert await ztunnel.receive() is None


async def test_an_answer_after_the_callers_patience_still_counts(tmp_path: Path) -> None:
    async with run_agent(tmp_path, request_seconds=0.01) as agent:
        with await agent.connect_ready() as ztunnel:
            agent.pods.put("a")
            with pytest.raises(ZtunnelUnavailableError, match=r"no answer within 0\.01 s"):
                await agent.server.add("a")
            await ztunnel.expect()
            await until(lambda: agent.pods.answers == [("a", "")])


async def test_more_requests_than_fit_are_refused_at_once(tmp_path: Path) -> None:
    async with run_agent(tmp_path) as agent:
        with await agent.connect_ready() as ztunnel:
            agent.pods.put("a")
            async with asyncio.TaskGroup() as tasks:
                asked = [tasks.create_task(outcome(agent.server.add("a"))) for _ in range(MAX_WAITING_REQUESTS + 10)]
                await until(lambda: any(task.done() for task in asked))
                ztunnel.close()
            assert any("pods waiting" in str(task.result()) for task in asked)


async def test_more_connections_than_fit_wait_for_their_turn(tmp_path: Path) -> None:
    async with run_agent(tmp_path) as agent:
        first, second, third = [await agent.connect_ready() for _ in range(3)]
        with second, third, await agent.connect() as fourth:
            first.close()
            assert await fourth.expect() == SNAPSHOT_SENT


async def test_an_agent_that_stops_closes_its_connections(tmp_path: Path) -> None:
    async with run_agent(tmp_path) as agent:
        ztunnel = await agent.connect_ready()
    with ztunnel:
        assert await ztunnel.receive() is None


async def test_a_thousand_connections_leave_no_descriptor_behind(tmp_path: Path) -> None:
    async with run_agent(tmp_path) as agent:
        agent.pods.put("a")
        (await agent.connect_ready()).close()
        await until(lambda: agent.server.count_ztunnels() == 0)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(1000):
            with await agent.connect() as ztunnel:
                await ztunnel.receive()
        await until(lambda: agent.server.count_ztunnels() == 0)
        assert len(os.listdir("/proc/self/fd")) == before


async def outcome(asked: Coroutine[None, None, None]) -> object:
    """What `asked` raised."""
    try:
        await asked
    except ZtunnelUnavailableError as error:
        return error
    return None
