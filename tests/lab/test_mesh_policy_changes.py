"""What happens to connections that are open when policies come to apply to them, and while a policy is not known."""

import time

import pytest

from mesh.wire import authorization_pb2 as pb
from tests.support.chosen_mesh import chosen_mesh
from tests.support.isolation import isolated
from tests.support.mesh import total

PORT = 8080


def deny(name: str, match: pb.Match | None = None) -> pb.Authorization:
    """A DENY that counts where a workload lists it; it matches everything unless told otherwise."""
    clauses = [] if match is None else [pb.Clause(matches=[match])]
    scope, rules = pb.WORKLOAD_SELECTOR, [pb.Rule(clauses=clauses)]
    return pb.Authorization(name=name, namespace="test", scope=scope, action=pb.DENY, rules=rules)


def without_identity() -> pb.Match:
    anything = pb.StringMatch()
    anything.presence.SetInParent()
    return pb.Match(not_principals=[anything])


@pytest.mark.parametrize(
    ("is_meshed", "is_strict"),
    [pytest.param(True, False, id="policy-attached"), pytest.param(False, True, id="strict-attached")],
)
@isolated
def test_a_policy_that_comes_to_select_a_pod_cuts_its_connections(is_meshed: bool, is_strict: bool) -> None:
    with chosen_mesh() as mesh:
        server = mesh.add_pod("server", node="node-2")
        client = mesh.add_pod("client") if is_meshed else mesh.add_host("client")
        policy = deny("cut", without_identity() if is_strict else None)
        clients = [pod.workload() for pod in mesh.pods if pod.name == "client"]
        mesh.tell(*clients, server.workload(), policy)
        mesh.start_ztunnel()
        ztunnel = mesh.start_ztunnel("node-2")
        server.serve(PORT)
        with client.connect(server.address, PORT) as held:
            held.sendall(b"hello\n")
            assert held.recv(100)
            selected = server.workload()
            selected.authorization_policies.append("test/cut")
            told = time.monotonic()
            mesh.tell(selected)
            held.settimeout(5)
            try:
                assert held.recv(100) == b""
            except ConnectionError:
                pass
            assert time.monotonic() - told < 1.0
        line = ztunnel.wait_for_line(lambda line: line.direction == "inbound" and "test/cut" in line.error)
        assert "closed due to policy change" in line.error
        assert "(rule 0)" in line.error
        closed = "istio_tcp_connections_closed_total"
        assert total(ztunnel.metrics(), closed, reporter="destination", response_flags="DENY") == 1
        assert client.ask(server.address, PORT).error


@isolated
def test_a_pod_whose_policy_is_not_known_yet_is_not_reached() -> None:
    with chosen_mesh() as mesh:
        client, server = mesh.add_pod("client"), mesh.add_pod("server", node="node-2")
        selected = server.workload()
        selected.authorization_policies.append("test/late")
        mesh.tell(client.workload(), selected)
        mesh.start_ztunnel()
        ztunnel = mesh.start_ztunnel("node-2")
        server.serve(PORT)
        assert client.ask(server.address, PORT).error
        line = ztunnel.wait_for_line(lambda line: line.direction == "inbound")
        assert "policy test/late selects this workload but is not known" in line.error
        closed = "istio_tcp_connections_closed_total"
        assert total(ztunnel.metrics(), closed, reporter="destination", response_flags="DENY") == 1
        mesh.tell(deny("late", without_identity()))
        assert client.ask(server.address, PORT).server == "server"
