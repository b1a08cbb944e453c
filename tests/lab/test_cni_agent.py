"""The node agent as a process, with a real pod's namespace, announced over its socket, and a client as ztunnel."""

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path

import aiohttp
import pytest

from cni.kernel import nftables
from cni.kernel.namespaces import run_in_namespace
from cni.kernel.pods import are_pod_rules_installed
from cni.kernel.rules import PodSettings, build_rules
from tests.support.isolation import isolated
from tests.support.pod_network import POD_IPV4, POD_IPV6, Pod, build_pod, connect, listen, make_namespace, port_of
from tests.support.zds_client import Request, ZdsClient

REPOSITORY = Path(__file__).parents[2]
DEFAULT = build_rules(PodSettings())
DEADLINE_SECONDS = 20.0


def describe(pod: Pod, **changes: object) -> dict[str, object]:
    """The announcement of a pod that belongs into the mesh."""
    return {
        "uid": "8f1e",
        "name": "web-1",
        "namespace": "shop",
        "service_account": "web",
        "addresses": [POD_IPV4, POD_IPV6],
        "netns": pod.namespace.path,
        "labels": {"istio.io/dataplane-mode": "ambient"},
        **changes,
    }


def pod_request(pod: Pod) -> Request:
    return Request("add", "8f1e", ("web-1", "shop", "web"), pod.namespace.identity.inode)


@dataclass
class Agent:
    """A running agent, and its API."""

    folder: Path
    process: asyncio.subprocess.Process
    http: aiohttp.ClientSession

    async def announce(self, body: object) -> tuple[int, dict[str, object]]:
        async with self.http.post("http://agent/pods", json=body) as answer:
            return answer.status, await answer.json()

    async def withdraw(self, uid: str) -> int:
        async with self.http.delete(f"http://agent/pods/{uid}") as answer:
            return answer.status

    async def get(self, path: str) -> tuple[int, object]:
        async with self.http.get(f"http://agent{path}") as answer:
            return answer.status, await answer.json()

    async def list_pods(self) -> list[tuple[object, object, object]]:
        _, pods = await self.get("/pods")
        assert isinstance(pods, list)
        return [(pod["uid"], pod["enrolled"], pod["pending"]) for pod in pods]

    async def connect(self) -> ZdsClient:
        """Play ztunnel."""
        return await ZdsClient.connect(str(self.folder / "zds.sock"))

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return await self.process.wait()


@asynccontextmanager
async def run_agent(folder: Path, **environment: str) -> AsyncIterator[Agent]:
    """Start an agent in `folder`, and wait until it takes announcements."""
    variables = {
        "NODE_NAME": "node-1",
        "ZTUNNEL_UDS_ADDRESS": str(folder / "zds.sock"),
        "AMBIT_AGENT_SOCKET": str(folder / "agent.sock"),
        "PYTHONPATH": str(REPOSITORY),
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "cni", "agent", env=variables | environment)
    connector = aiohttp.UnixConnector(str(folder / "agent.sock"))
    try:
        async with aiohttp.ClientSession(connector=connector) as http:
            await until(lambda: is_ready(http))
            yield Agent(folder, process, http)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def is_ready(http: aiohttp.ClientSession) -> bool:
    try:
        async with http.get("http://agent/healthz/ready") as answer:
            return answer.status == 200
    except aiohttp.ClientConnectionError:
        return False


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask another process until `condition` holds."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await condition():  # noqa: ASYNC110 - another process: nothing here could wake us
            await asyncio.sleep(0.01)


Scenario = Callable[[Pod, Path], Coroutine[None, None, None]]


def with_pod(scenario: Scenario) -> Callable[[], None]:
    """Run an async test in namespaces of its own, with a pod and a folder for sockets."""

    @wraps(scenario)
    def run() -> None:
        with tempfile.TemporaryDirectory() as folder, build_pod() as pod:
            asyncio.run(scenario(pod, Path(folder)))

    del run.__wrapped__  # so that pytest does not take the parameters for fixtures
    return isolated(run)


@with_pod
async def test_a_pod_is_enrolled_with_its_own_namespace_and_captured(pod: Pod, folder: Path) -> None:
    async with run_agent(folder) as agent:
        with await agent.connect() as ztunnel:
            assert await ztunnel.expect() == Request("snapshot_sent")
            async with asyncio.TaskGroup() as tasks:
                announcing = tasks.create_task(agent.announce(describe(pod)))
                assert await ztunnel.expect() == pod_request(pod)
            status, outcome = announcing.result()
            assert (status, outcome["enrolled"], outcome["pending"]) == (200, True, False)
            assert await agent.list_pods() == [("8f1e", True, False)]
        assert are_pod_rules_installed(pod.namespace, DEFAULT)
        outside = listen(socket.AF_INET)
        with pytest.raises(ConnectionRefusedError):  # captured, and no ztunnel listens
            pod.run(lambda: connect(socket.AF_INET, ("192.0.2.1", port_of(outside))))


@with_pod
async def test_without_ztunnel_a_pod_is_closed_and_pending_until_one_connects(pod: Pod, folder: Path) -> None:
    async with run_agent(folder) as agent:
        status, outcome = await agent.announce(describe(pod))
        assert (status, outcome["enrolled"], outcome["pending"]) == (200, False, True)
        assert "no ztunnel is connected" in str(outcome["error"])
        assert are_pod_rules_installed(pod.namespace, DEFAULT)
        with await agent.connect() as ztunnel:
            assert await ztunnel.expect_snapshot() == [pod_request(pod)]
            assert await agent.list_pods() == [("8f1e", True, False)]


@with_pod
async def test_a_pod_that_ztunnel_refuses_is_pending_and_offered_again(pod: Pod, folder: Path) -> None:
    async with run_agent(folder) as agent:
        with await agent.connect() as ztunnel:
            await ztunnel.expect_snapshot()
            async with asyncio.TaskGroup() as tasks:
                announcing = tasks.create_task(agent.announce(describe(pod)))
                await ztunnel.expect(error="port 15008 is in use")
            assert announcing.result()[1]["error"] == "ztunnel refused it: port 15008 is in use"
            assert await agent.list_pods() == [("8f1e", False, True)]
            assert await ztunnel.expect() == pod_request(pod)
            await until(lambda: _is(agent, [("8f1e", True, False)]))


async def _is(agent: Agent, pods: list[tuple[object, object, object]]) -> bool:
    return await agent.list_pods() == pods


@with_pod
async def test_a_withdrawn_pod_has_nothing_left_and_ztunnel_is_told(pod: Pod, folder: Path) -> None:
    async with run_agent(folder) as agent:
        await agent.announce(describe(pod))
        with await agent.connect() as ztunnel:
            await ztunnel.expect_snapshot()
            async with asyncio.TaskGroup() as tasks:
                withdrawing = tasks.create_task(agent.withdraw("8f1e"))
                assert await ztunnel.expect() == Request("del", "8f1e")
            assert withdrawing.result() == 200
        assert (await agent.list_pods(), pod.run(nftables.read_table_names)) == ([], ())
        assert await agent.withdraw("8f1e") == 200


@with_pod
async def test_the_rules_are_shown_and_checked_against_the_kernel(pod: Pod, folder: Path) -> None:
    async with run_agent(folder) as agent:
        await agent.announce(describe(pod))
        status, shown = await agent.get("/pods/8f1e/rules")
        assert isinstance(shown, dict)
        assert (status, shown["installed"]) == (200, True)
        assert '0x407f :15001 comment "outbound"' in shown["rules"]
        pod.run(nftables.remove_tables)
        assert (await agent.get("/pods/8f1e/rules"))[1] == shown | {"installed": False}
        assert (await agent.get("/pods/absent/rules"))[0] == 404


@with_pod
async def test_a_pod_outside_the_mesh_is_not_touched(pod: Pod, folder: Path) -> None:
    async with run_agent(folder) as agent:
        status, outcome = await agent.announce(describe(pod, labels={}))
        assert (status, outcome) == (200, {"enrolled": False, "pending": False, "decision": "not_labelled"})
        assert pod.run(nftables.read_table_names) == ()


@with_pod
async def test_bad_announcements_are_refused_by_name(pod: Pod, folder: Path) -> None:
    async with run_agent(folder) as agent:
        cases: list[tuple[object, str, str]] = [
            ([], "invalid_announcement", "not a JSON object"),
            (describe(pod, uid=""), "invalid_announcement", "uid: "),
            (describe(pod, netns="/proc/self/ns/uts"), "invalid_namespace", "not a network namespace"),
            (describe(pod, netns="/proc/1/fd/99999"), "invalid_namespace", "is the pod running?"),
            (describe(pod, netns="/proc/self/ns/net"), "invalid_namespace", "the node's own"),
            (describe(pod, addresses=["203.0.113.9"]), "invalid_namespace", "203.0.113.9"),
        ]
        for body, reason, message in cases:
            status, refusal = await agent.announce(body)
            assert (status, refusal["reason"]) == (400, reason)
            assert message in str(refusal["error"])
        assert (await agent.list_pods(), pod.run(nftables.read_table_names)) == ([], ())


@with_pod
async def test_an_agent_that_stops_leaves_the_pods_closed_and_no_socket(pod: Pod, folder: Path) -> None:
    async with run_agent(folder) as agent:
        await agent.announce(describe(pod))
        with await agent.connect() as ztunnel:
            await ztunnel.expect_snapshot()
            assert await agent.stop() == 0
            assert await ztunnel.receive() is None
    assert are_pod_rules_installed(pod.namespace, DEFAULT)
    assert [path.name for path in folder.iterdir()] == ["agent.pods.json"]


@with_pod
async def test_an_agent_that_was_killed_knows_its_pods_when_it_is_back(pod: Pod, folder: Path) -> None:
    async with run_agent(folder) as agent:
        await agent.announce(describe(pod))
        await agent.stop(signal.SIGKILL)
    async with run_agent(folder) as agent:
        with await agent.connect() as ztunnel:
            assert await ztunnel.expect_snapshot() == [pod_request(pod)]
            async with asyncio.TaskGroup() as tasks:  # its source announces it again: all is as it was
                announcing = tasks.create_task(agent.announce(describe(pod)))
                assert await ztunnel.expect() == pod_request(pod)
            assert announcing.result()[1]["enrolled"] is True


@with_pod
async def test_an_agent_does_not_take_over_a_pod_that_went_while_it_was_away(pod: Pod, folder: Path) -> None:
    path = folder / "netns"
    path.symlink_to(pod.namespace.path)
    async with run_agent(folder) as agent:
        await agent.announce(describe(pod, netns=str(path)))
        await agent.stop()
    path.unlink()
    with make_namespace() as another:
        path.symlink_to(another.path)
        async with run_agent(folder) as agent:
            assert await agent.list_pods() == []
        assert run_in_namespace(another, nftables.read_table_names) == ()


@with_pod
async def test_a_second_agent_at_the_same_sockets_says_so_and_ends(pod: Pod, folder: Path) -> None:
    async with run_agent(folder) as agent:
        environment = {"NODE_NAME": "node-1", "PYTHONPATH": str(REPOSITORY)} | {
            "ZTUNNEL_UDS_ADDRESS": str(folder / "zds.sock"),
            "AMBIT_AGENT_SOCKET": str(folder / "agent.sock"),
        }
        command = [sys.executable, "-m", "cni", "agent"]
        second = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
        output, _ = await second.communicate()
        assert second.returncode == 1
        assert b"another process listens at" in output
        assert (await agent.announce(describe(pod)))[0] == 200


@with_pod
async def test_enrolling_a_hundred_times_leaks_nothing(pod: Pod, folder: Path) -> None:
    async with run_agent(folder) as agent:
        await agent.announce(describe(pod))
        await agent.withdraw("8f1e")
        before = count_open(agent)
        for _ in range(100):
            await agent.announce(describe(pod))
            await agent.withdraw("8f1e")
        assert count_open(agent) <= before + 1  # the connection that is being closed


def count_open(agent: Agent) -> int:
    return len(os.listdir(f"/proc/{agent.process.pid}/fd"))
