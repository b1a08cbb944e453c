"""AuthorizationPolicy and PeerAuthentication, judged by who gets an answer, and what log and metrics say of it."""

import json
import time
from pathlib import Path

import pytest

from ambit.demo.access_log import AccessLine
from tests.support import mesh as build
from tests.support.mesh import POD_PROGRAM, PORT, PYTHON, Document, Mesh, eventually, total

SERVER = "east/server"
CLIENTS = ("east/client", "east/other", "west/client", "plain/client")

EAST_CLIENT = "cluster.local/ns/east/sa/client"


def who_reaches(mesh: Mesh, server: str = SERVER) -> set[str]:
    return {client for client in CLIENTS if mesh.reaches(client, server)}


def denials(mesh: Mesh, node: str = "node-2") -> float:
    return total(
        mesh.metrics(node), "istio_tcp_connections_closed_total", reporter="destination", response_flags="DENY"
    )


def is_refusal_of(mesh: Mesh, client: str, line: AccessLine) -> bool:
    return line.direction == "inbound" and bool(line.error) and line.source_address in mesh.pod(client).addresses


def test_without_policies_everybody_is_answered(mesh: Mesh) -> None:
    assert who_reaches(mesh) == set(CLIENTS)


ALLOWED = [
    pytest.param({"principals": [EAST_CLIENT]}, [], {"east/client"}, id="principal"),
    pytest.param({"principals": ["cluster.local/ns/*"]}, [], {"east/client", "east/other", "west/client"}, id="prefix"),
    pytest.param({"namespaces": ["west"]}, [], {"west/client"}, id="namespace"),
    pytest.param({"ipBlocks": ["10.244.2.0/24"]}, [], {"west/client"}, id="ip-block"),
    pytest.param({"notNamespaces": ["west"]}, [], {"east/client", "east/other", "plain/client"}, id="not-namespace"),
    pytest.param(None, [str(PORT)], set(CLIENTS), id="port"),
    pytest.param(None, ["1"], set[str](), id="other-port"),
    pytest.param({"principals": [EAST_CLIENT]}, ["1"], set[str](), id="principal-and-other-port"),
]


@pytest.mark.parametrize(("source", "ports", "allowed"), ALLOWED)
def test_allow_lets_in_whom_it_names_and_nobody_else(
    mesh: Mesh, source: Document | None, ports: list[str], allowed: set[str]
) -> None:
    before, lines = denials(mesh), len(mesh.access_lines("node-2"))
    policy = build.policy("chosen", "east", "ALLOW", build.rule(source, ports), app="server")
    with mesh.applied(policy):
        eventually(lambda: who_reaches(mesh) == allowed)
        for client in set(CLIENTS) - allowed:
            mesh.wait_for_line("node-2", lambda line, client=client: is_refusal_of(mesh, client, line), lines)  # type: ignore[misc]
        if allowed != set(CLIENTS):
            assert denials(mesh) > before
        assert mesh.reaches("east/client", "east/near"), "the policy selects one server only"
    eventually(lambda: who_reaches(mesh) == set(CLIENTS))


def test_deny_refuses_whom_it_names_by_its_name(mesh: Mesh) -> None:
    before, lines = denials(mesh), len(mesh.access_lines("node-2"))
    policy = build.policy("no-client", "east", "DENY", build.rule({"principals": [EAST_CLIENT]}), app="server")
    with mesh.applied(policy):
        eventually(lambda: not mesh.reaches("east/client", SERVER))
        assert who_reaches(mesh) == set(CLIENTS) - {"east/client"}
        line = mesh.wait_for_line("node-2", lambda line: is_refusal_of(mesh, "east/client", line), lines)
        assert "east/no-client" in line.error
        assert line.source_identity == f"spiffe://{EAST_CLIENT}"
        mesh.wait_for_line("node-1", lambda line: line.direction == "outbound" and "east/no-client" in line.error)
        assert denials(mesh) > before
    eventually(lambda: mesh.reaches("east/client", SERVER))


OF_REQUESTS = {"operation": {"methods": ["GET"]}}
BEYOND = [
    pytest.param({"action": "ALLOW"}, None, set[str](), id="nobody-is-allowed"),
    pytest.param({"action": "ALLOW"}, {"namespaces": ["east"]}, set[str](), id="nor-whom-it-names"),
    pytest.param({"action": "DENY"}, None, set[str](), id="all-are-denied"),
    pytest.param({"action": "DENY"}, {"namespaces": ["west"]}, set(CLIENTS) - {"west/client"}, id="whom-it-names"),
    pytest.param({"action": "CUSTOM", "provider": {"name": "nobody"}}, None, set[str](), id="nobody-is-asked"),
]


@pytest.mark.parametrize(("spec", "source", "reaching"), BEYOND)
def test_what_is_of_requests_is_refused_where_nobody_sees_them(
    mesh: Mesh, spec: Document, source: Document | None, reaching: set[str]
) -> None:
    rule: Document = {"to": [OF_REQUESTS], **({"from": [{"source": source}]} if source else {})}
    selector = {"selector": {"matchLabels": {"app": "server"}}}
    policy: Document = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "of-requests", "namespace": "east"},
        "spec": {**selector, **spec, "rules": [rule]},
    }
    with mesh.applied(policy):
        eventually(lambda: who_reaches(mesh) == reaching)
        assert mesh.reaches("east/client", "east/near"), "the policy selects one server only"
    eventually(lambda: who_reaches(mesh) == set(CLIENTS))


def test_a_policy_in_dry_run_is_logged_and_counted_and_lets_pass(mesh: Mesh) -> None:
    policy = build.policy("rehearsed", "east", "DENY", build.rule({"principals": [EAST_CLIENT]}), app="server")
    metadata = policy["metadata"]
    assert isinstance(metadata, dict)
    metadata["annotations"] = {"istio.io/dry-run": "true"}
    counter = {"policy": "east/rehearsed", "outcome": "would_deny"}

    def counted() -> float:
        return total(mesh.metrics("node-2"), "ambit_policy_dry_runs_total", **counter)

    mesh.fetch("ztunnel/node-2", "http://127.0.0.1:15000/logging?level=debug", method="POST")
    before = counted()
    try:
        with mesh.applied(policy):
            eventually(lambda: mesh.reaches("east/client", SERVER) and counted() > before)
            assert who_reaches(mesh) == set(CLIENTS)
            log = mesh.lab.logs("ztunnel/node-2")
            (line, *_) = [line for line in log.splitlines() if "would_deny" in line]
            assert "east/rehearsed" in line
            assert EAST_CLIENT in line
            after = counted()
            assert mesh.reaches("west/client", SERVER)
            assert counted() == after, "the policy names somebody else"
    finally:
        mesh.fetch("ztunnel/node-2", "http://127.0.0.1:15000/logging?level=info", method="POST")


def test_deny_cuts_an_established_connection_within_a_second(mesh: Mesh, tmp_path: Path) -> None:
    order = json.dumps({"host": mesh.address(SERVER), "port": PORT, "seconds": 5})
    policy = build.policy("cut", "east", "DENY", build.rule({"principals": [EAST_CLIENT]}), app="server")
    lines = len(mesh.access_lines("node-2"))
    with (tmp_path / "cut").open("w+") as cut, (tmp_path / "kept").open("w+") as kept:
        commands = [(cut, "client", "east"), (kept, "client", "west")]
        running = [
            mesh.lab.start(
                pod, PYTHON, str(POD_PROGRAM), "hold", order, namespace=namespace, streams=(0, file.fileno(), 2)
            )
            for file, pod, namespace in commands
        ]
        with running[0] as first, running[1]:
            eventually(lambda: "works" in (tmp_path / "cut").read_text() and "works" in (tmp_path / "kept").read_text())
            applied = time.time()
            with mesh.applied(policy):
                assert first.wait(10) == 0
                held = json.loads((tmp_path / "cut").read_text().splitlines()[-1])
                assert held["outcome"] != "still open"
                assert held["ended"] - applied < 1.0
                line = mesh.wait_for_line("node-2", lambda line: is_refusal_of(mesh, "east/client", line), lines)
                assert "east/cut" in line.error
                assert "outcome" not in (tmp_path / "kept").read_text(), "the other client's connection lives on"
    eventually(lambda: mesh.reaches("east/client", SERVER))


def test_strict_refuses_plaintext(mesh: Mesh) -> None:
    before, lines = denials(mesh), len(mesh.access_lines("node-2"))
    with mesh.applied(build.peer_authentication("east", "STRICT")):
        eventually(lambda: who_reaches(mesh) == set(CLIENTS) - {"plain/client"})
        line = mesh.wait_for_line("node-2", lambda line: is_refusal_of(mesh, "plain/client", line), lines)
        assert not line.source_identity
        assert denials(mesh) > before
    eventually(lambda: mesh.reaches("plain/client", SERVER))


def test_permissive_of_a_namespace_wins_over_strict_of_the_mesh(mesh: Mesh) -> None:
    documents = (build.peer_authentication("istio-system", "STRICT"), build.peer_authentication("east", "PERMISSIVE"))
    with mesh.applied(*documents):
        eventually(lambda: not mesh.reaches("plain/client", "west/client"))
        assert mesh.reaches("plain/client", SERVER)
    eventually(lambda: mesh.reaches("plain/client", "west/client"))
