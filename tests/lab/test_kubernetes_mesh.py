"""Our ztunnels on a real Kubernetes API server, under a stock istiod and under our controller: neither is noticed."""

from collections.abc import Callable

import pytest

from ambit.demo.polling import wait_for
from tests.support.chosen_mesh import NODE, ROUTER_IPV4, Answer, chosen_mesh
from tests.support.control_planes import AmbitController, ControlPlane, Istiod
from tests.support.isolation import isolated
from tests.support.kubernetes import kubernetes
from tests.support.mesh import total

PORT, VIP = 8080, "10.96.7.7"
PATIENCE_SECONDS = 20.0


def wait_until(ask: Callable[[], Answer], is_wanted: Callable[[Answer], bool], log: Callable[[], str]) -> None:
    answers: list[Answer] = []

    def look() -> bool:
        answers[:] = [ask()]
        return is_wanted(answers[0])

    assert wait_for(look, PATIENCE_SECONDS), f"{answers}\n{log()}"


def is_served(answer: Answer) -> bool:
    return answer.server == "server"


def is_refused(answer: Answer) -> bool:
    return not answer.server


@pytest.mark.parametrize("kind", [Istiod, AmbitController])
@isolated
def test_a_control_plane_gives_certificates_services_and_policies(kind: type[ControlPlane]) -> None:
    with chosen_mesh() as mesh, kubernetes(ROUTER_IPV4) as cluster:
        client, server = mesh.add_pod("client"), mesh.add_pod("server", node="node-2")
        stranger = mesh.add_host("stranger")
        plane = kind(mesh, cluster, ROUTER_IPV4)
        plane.start()
        plane.add_namespace("test")
        plane.add_pod(client)
        plane.add_pod(server, app="web")
        spec = {"clusterIP": VIP, "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": PORT}]}
        metadata = {"name": "web", "namespace": "test"}
        cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
        near, far = plane.start_ztunnel(NODE), plane.start_ztunnel("node-2")
        server.serve(PORT)

        def logs() -> str:
            return f"{near.log()}\n{far.log()}\n{plane.log_file.read_text()[-4000:]}"

        # A service's address, through a tunnel with certificates that istiod signed.
        wait_until(lambda: client.ask(VIP, 80), is_served, logs)
        line = far.wait_for_line(lambda line: line.direction == "inbound" and not line.error)
        assert (line.source_identity, line.destination_identity) == (client.identity, server.identity)
        line = near.wait_for_line(lambda line: line.direction == "outbound" and not line.error)
        assert line.destination_service == "web.test.svc.cluster.local"
        opened = "istio_tcp_connections_opened_total"
        assert total(near.metrics(), opened, connection_security_policy="mutual_tls") >= 1

        # STRICT: who is outside of the mesh was served, and is no more.
        wait_until(lambda: stranger.ask(server.address, PORT), is_served, logs)
        strict = {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication"}
        metadata = {"name": "default", "namespace": "test"}
        cluster.apply({**strict, "metadata": metadata, "spec": {"mtls": {"mode": "STRICT"}}})
        wait_until(lambda: stranger.ask(server.address, PORT), is_refused, logs)
        assert is_served(client.ask(VIP, 80))

        # A policy that denies the client, and its end.
        rule = {"from": [{"source": {"principals": [client.identity.removeprefix("spiffe://")]}}]}
        spec = {"action": "DENY", "selector": {"matchLabels": {"app": "web"}}, "rules": [rule]}
        policy = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy"}
        cluster.apply({**policy, "metadata": {"name": "no-client", "namespace": "test"}, "spec": spec})
        wait_until(lambda: client.ask(VIP, 80), is_refused, logs)
        denied = far.wait_for_line(lambda line: line.direction == "inbound" and "no-client" in line.error)
        assert denied.source_identity == client.identity
        cluster.delete("security.istio.io/v1", "AuthorizationPolicy", "no-client", "test")
        wait_until(lambda: client.ask(VIP, 80), is_served, logs)

        # istiod's pods change under traffic: the service loses its only endpoint, and gets it again.
        cluster.delete("v1", "Pod", "server", "test")
        wait_until(lambda: client.ask(VIP, 80), is_refused, logs)
        plane.add_pod(server, app="web")
        wait_until(lambda: client.ask(VIP, 80), is_served, logs)
