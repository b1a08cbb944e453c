"""A new ztunnel takes the place of an old one, and nobody who speaks through them notices."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from ambit.lab.client import LabError
from tests.support import mesh as build
from tests.support.mesh import PATIENCE_SECONDS, PORT, Mesh, eventually, total

RATE = 200
RESTARTS = 3


@pytest.fixture(name="background")
def background_thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def opened(mesh: Mesh, node: str) -> float:
    return total(mesh.metrics(node), "istio_tcp_connections_opened_total")


def result_of(acting: "Future[object]") -> dict[str, object]:
    result = acting.result(120.0)
    assert isinstance(result, dict)
    return result


@pytest.mark.parametrize("node", ["node-1", "node-2"], ids=["of-the-clients", "of-the-servers"])
def test_new_connections_lose_nothing_while_ztunnels_are_replaced(
    mesh: Mesh, background: ThreadPoolExecutor, node: str
) -> None:
    name = f"ztunnel/{node}"
    targets = [
        (mesh.service_address("east/server"), 80),
        (mesh.address("east/server", 6), PORT),
        (mesh.service_address("east/near", 6), 80),
    ]
    assert mesh.reaches("east/client", "east/server")
    first = mesh.lab.status().process(name)
    pacing = background.submit(mesh.act, "east/client", "pace", 60.0, targets=targets, count=RATE, seconds=8.0)
    for _ in range(RESTARTS):
        mesh.lab.replace_process(name)
        # The new one's counters begin at nothing: it serves.
        eventually(lambda: opened(mesh, node) > 0)
    assert pacing.running(), "requests ended before the ztunnels were replaced"
    result = result_of(pacing)
    errors = [f"{line.source} {line.destination} {line.error}" for line in mesh.access_lines(node) if line.error]
    assert result["failures"] == [], errors[-20:]
    assert result["requests"] == RATE * 8
    last = mesh.lab.status().process(name)
    assert last.pid != first.pid
    assert last.restarts == first.restarts
    eventually(lambda: mesh.lab.status().process(name).draining == 0, 15.0)


@pytest.mark.parametrize("node", ["node-1", "node-2"], ids=["of-the-client", "of-the-server"])
def test_an_open_connection_goes_on_until_the_drain_deadline(
    mesh: Mesh, background: ThreadPoolExecutor, node: str
) -> None:
    """The lab's deadline is Istio's, five seconds."""
    name = f"ztunnel/{node}"
    lines = len(mesh.access_lines(node))
    before = opened(mesh, node)
    server = mesh.address("east/server")
    holding = background.submit(mesh.act, "east/client", "hold", 60.0, host=server, port=PORT, seconds=40.0)
    eventually(lambda: opened(mesh, node) > before)
    mesh.lab.replace_process(name)
    replaced = time.time()
    assert mesh.lab.status().process(name).draining == 1
    assert mesh.reaches("east/client", "east/server")
    assert holding.running()
    result = result_of(holding)
    assert result["outcome"] != "still open"
    ended, echoed = result["ended"], result["echoed"]
    assert isinstance(ended, float)
    assert isinstance(echoed, int)
    assert 4.0 < ended - replaced < 8.0
    assert echoed > 50
    mesh.wait_for_line(node, lambda line: bool(line.error), lines)
    eventually(lambda: mesh.lab.status().process(name).draining == 0, PATIENCE_SECONDS)


def test_a_policy_ends_connections_of_a_ztunnel_that_drains(mesh: Mesh, background: ThreadPoolExecutor) -> None:
    before = opened(mesh, "node-2")
    server = mesh.address("east/server")
    holding = background.submit(mesh.act, "east/client", "hold", 60.0, host=server, port=PORT, seconds=40.0)
    eventually(lambda: opened(mesh, "node-2") > before)
    mesh.lab.replace_process("ztunnel/node-2")
    client: build.Document = {"principals": ["cluster.local/ns/east/sa/client"]}
    with mesh.applied(build.policy("no-client", "east", "DENY", build.rule(client))):
        denied = time.time()
        result = result_of(holding)
    ended = result["ended"]
    assert isinstance(ended, float)
    assert ended - denied < 2.0
    mesh.wait_for_line("node-2", lambda line: "closed due to policy change" in line.error)
    eventually(lambda: mesh.reaches("east/client", "east/server"))


def test_a_ztunnel_with_nobody_left_ends_at_once(mesh: Mesh) -> None:
    mesh.lab.replace_process("ztunnel/node-1")
    replaced = time.monotonic()
    eventually(lambda: mesh.lab.status().process("ztunnel/node-1").draining == 0)
    assert time.monotonic() - replaced < 3.0


def test_a_process_that_is_no_ztunnel_cannot_be_replaced(mesh: Mesh) -> None:
    with pytest.raises(LabError, match="only ztunnels can"):
        mesh.lab.replace_process("controller")
