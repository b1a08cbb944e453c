"""Two pods of one node speak without a tunnel: same policies, both sides' reports, nothing claimed that is not so."""

import threading
import time
from collections.abc import Iterator

import pytest

from ambit.demo.access_log import AccessLine
from tests.support import mesh as build
from tests.support.mesh import PATIENCE_SECONDS, PORT, Document, Mesh, eventually, total

CLIENT = "spiffe://cluster.local/ns/east/sa/client"
NEAR = "spiffe://cluster.local/ns/east/sa/near"
LABEL = "ambit.dev/node-local"


def opened(mesh: Mesh, security: str, reporter: str, node: str = "node-1") -> float:
    return total(
        mesh.metrics(node),
        "istio_tcp_connections_opened_total",
        reporter=reporter,
        connection_security_policy=security,
        source_principal=CLIENT,
        destination_principal=NEAR,
    )


def new_lines(mesh: Mesh, after: int, count: int) -> list[AccessLine]:
    """The access lines after the first `after`, once there are at least `count`."""
    return eventually(lambda: lines if len(lines := mesh.access_lines("node-1")[after:]) >= count else [])


class Holding:
    """A connection that a pod keeps busy until somebody ends it."""

    def __init__(self, mesh: Mesh, client: str, host: str) -> None:
        self._result: object = None
        self._thread = threading.Thread(target=self._hold, args=(mesh, client, host))
        self._thread.start()

    def _hold(self, mesh: Mesh, client: str, host: str) -> None:
        self._result = mesh.act(client, "hold", 60.0, host=host, port=PORT, seconds=40.0)

    def outcome(self) -> str:
        """How it ended; fails when it does not."""
        self._thread.join(PATIENCE_SECONDS)
        assert isinstance(self._result, dict)
        self.ended = float(self._result["ended"])
        return str(self._result["outcome"])


@pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("by", ["address", "service"])
def test_both_sides_report_a_connection_without_a_tunnel(mesh: Mesh, family: int, by: str) -> None:
    host, port = mesh.address("east/near", family), PORT
    if by == "service":
        host, port = mesh.service_address("east/near", family), 80
    before = {reporter: opened(mesh, "node_local", reporter) for reporter in ("source", "destination")}
    tunnelled = {reporter: opened(mesh, "mutual_tls", reporter) for reporter in ("source", "destination")}
    after = len(mesh.access_lines("node-1"))
    assert mesh.ask("east/client", host, port) == mesh.address("east/client", family)
    for reporter, count in before.items():
        assert opened(mesh, "node_local", reporter) == count + 1
        assert opened(mesh, "mutual_tls", reporter) == tunnelled[reporter]
    lines = new_lines(mesh, after, 2)
    assert sorted(line.direction for line in lines) == ["inbound", "outbound"]
    for line in lines:
        assert (line.source_identity, line.destination_identity, line.error) == (CLIENT, NEAR, "")
        assert line.source_address == mesh.address("east/client", family)
        assert line.destination.endswith(f":{PORT}")
        if by == "service":
            assert line.destination_service == "near.east.svc.cluster.local"


def test_a_policy_ends_open_connections_and_names_itself_at_both_ends(mesh: Mesh) -> None:
    after = len(mesh.access_lines("node-1"))
    before = opened(mesh, "node_local", "source")
    holding = Holding(mesh, "east/client", mesh.address("east/near"))
    eventually(lambda: opened(mesh, "node_local", "source") > before)
    deny = build.policy("no-client", "east", "DENY", build.rule({"principals": [CLIENT.removeprefix("spiffe://")]}))
    denied = time.time()
    with mesh.applied(deny):
        assert holding.outcome() != "still open"
        assert holding.ended - denied < 2.0
        lines = new_lines(mesh, after, 2)
        assert {line.direction for line in lines} == {"inbound", "outbound"}
        for line in lines:
            assert line.error == "closed due to policy change: explicitly denied by: east/no-client (rule 0)"
        eventually(lambda: not mesh.reaches("east/client", "east/near"))
        for reporter in ("source", "destination"):
            assert total(
                mesh.metrics("node-1"),
                "istio_tcp_connections_failed_total",
                reporter=reporter,
                response_flags="DENY",
                connection_security_policy="node_local",
            )
    eventually(lambda: mesh.reaches("east/client", "east/near"))


def test_strict_is_content_with_it(mesh: Mesh) -> None:
    with mesh.applied(build.peer_authentication("east", "STRICT")):
        eventually(lambda: not mesh.reaches("plain/client", "east/near"))
        before = opened(mesh, "node_local", "source")
        assert mesh.reaches("east/client", "east/near")
        assert opened(mesh, "node_local", "source") == before + 1


def test_a_pod_that_calls_its_own_service_reaches_itself(mesh: Mesh) -> None:
    answer = mesh.ask("east/near", mesh.service_address("east/near"), 80)
    assert answer == mesh.address("east/near")


def with_label(document: Document, value: str) -> Document:
    metadata = document["metadata"]
    assert isinstance(metadata, dict)
    labels = metadata["labels"]
    assert isinstance(labels, dict)
    return {**document, "metadata": {**metadata, "labels": {**labels, LABEL: value}}}


@pytest.fixture(name="choosy", scope="module")
def choosy_mesh() -> Iterator[Mesh]:
    """A lab of one node: in `guarded` tunnels are demanded, but for one pod; in `open` one pod demands them."""
    objects = (
        with_label(build.namespace("guarded"), "disabled"),
        build.namespace("open"),
        build.pod("server", "guarded", "node-1"),
        with_label(build.pod("exempt", "guarded", "node-1"), "enabled"),
        build.pod("client", "open", "node-1"),
        build.pod("server", "open", "node-1"),
        with_label(build.pod("careful", "open", "node-1"), "disabled"),
    )
    with build.standing("choosy", *objects, nodes=1) as standing:
        yield standing


@pytest.mark.parametrize(
    ("client", "server", "security"),
    [
        pytest.param("open/client", "open/server", "node_local", id="nobody-minds"),
        pytest.param("open/client", "guarded/server", "mutual_tls", id="the-servers-namespace-does"),
        pytest.param("guarded/server", "open/server", "mutual_tls", id="the-clients-namespace-does"),
        pytest.param("open/client", "guarded/exempt", "node_local", id="a-pod-goes-before-its-namespace"),
        pytest.param("open/careful", "open/server", "mutual_tls", id="the-client-does"),
        pytest.param("open/client", "open/careful", "mutual_tls", id="the-server-does"),
    ],
)
def test_either_end_can_demand_a_tunnel(choosy: Mesh, client: str, server: str, security: str) -> None:
    name = "istio_tcp_connections_opened_total"
    before = total(choosy.metrics("node-1"), name, connection_security_policy=security)
    everything = total(choosy.metrics("node-1"), name)
    assert choosy.reaches(client, server)
    # Both sides report, and both the same.
    assert total(choosy.metrics("node-1"), name, connection_security_policy=security) == before + 2
    assert total(choosy.metrics("node-1"), name) == everything + 2


def test_a_namespace_that_changes_its_mind_changes_new_connections(choosy: Mesh) -> None:
    name = "istio_tcp_connections_opened_total"

    def is_tunnelled() -> bool:
        before = total(choosy.metrics("node-1"), name, connection_security_policy="mutual_tls")
        assert choosy.reaches("open/client", "open/server")
        return total(choosy.metrics("node-1"), name, connection_security_policy="mutual_tls") > before

    assert not is_tunnelled()
    choosy.lab.apply(build.source(with_label(build.namespace("open"), "disabled")))
    try:
        eventually(is_tunnelled)
    finally:
        choosy.lab.apply(build.source(build.namespace("open")))
    eventually(lambda: not is_tunnelled())


def test_the_removal_of_the_server_ends_the_connection(choosy: Mesh) -> None:
    doomed = build.source(build.pod("doomed", "open", "node-1"))
    choosy.lab.apply(doomed)
    after = len(choosy.access_lines("node-1"))
    before = total(choosy.metrics("node-1"), "istio_tcp_connections_opened_total", destination_workload="doomed")
    server = choosy.lab.status().pod("doomed", "open").addresses[0]
    holding = Holding(choosy, "open/client", server)
    eventually(
        lambda: (
            total(choosy.metrics("node-1"), "istio_tcp_connections_opened_total", destination_workload="doomed")
            == before + 2
        )
    )
    choosy.lab.delete(doomed)
    assert holding.outcome() != "still open"
    lines = eventually(lambda: found if len(found := choosy.access_lines("node-1")[after:]) == 2 else [])
    assert {line.destination_workload for line in lines} == {"doomed"}
