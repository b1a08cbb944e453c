"""Where connections go, and what a CONNECT may ask for, on states that our controller makes none of (ztunnel.md 2)."""

import json
import sys
from pathlib import Path
from typing import cast

import pytest

from mesh.wire import workload_pb2 as pb
from tests.support import mesh_hbone
from tests.support.chosen_mesh import ChosenMesh, Host, Pod, chosen_mesh
from tests.support.chosen_resources import endpoint_of, gateway_by_name, service
from tests.support.isolation import isolated
from tests.support.mesh import total
from tests.support.mesh_certificates import issue, read_authority

VIP = "203.0.113.1"
PORT = 8080
HOST = "web.test.svc.cluster.local"
CLIENT = "spiffe://cluster.local/ns/test/sa/client"
HBONE_CLIENT = str(Path(mesh_hbone.__file__))


def connect(mesh: ChosenMesh, peer: Host, server: Pod, authority: str) -> int:
    """The status that the server's ztunnel answers to a CONNECT made by hand, with a genuine certificate."""
    credentials = issue(read_authority(mesh.authority), CLIENT)
    order = {
        "host": server.address,
        "port": 15008,
        "root": (mesh.authority / "root-cert.pem").read_text(),
        "certificate": credentials.certificate,
        "key": credentials.key,
        "authority": authority,
    }
    result = json.loads(peer.execute(sys.executable, "-P", HBONE_CLIENT, stdin=json.dumps(order)))
    assert result["tls"] == "TLSv1.3", result
    return cast(int, result["status"])


@isolated
def test_a_connect_may_ask_for_the_pod_and_its_services_only() -> None:
    """The matrix of what a client with a valid certificate might try."""
    with chosen_mesh() as mesh:
        peer, server, other = mesh.add_host("peer"), mesh.add_pod("server"), mesh.add_pod("other")
        web = service("web", VIP, {80: PORT, 81: 0, 82: 0, 83: 15001, 84: 15008})
        hidden = service("hidden", "203.0.113.2", {80: PORT}, namespace="elsewhere")
        hidden.visibility = pb.Service.NAMESPACE
        serving = endpoint_of(server.workload(), web, {80: PORT, 81: PORT})
        mesh.tell(serving, other.workload(), web, hidden)
        ztunnel = mesh.start_ztunnel()
        server.serve(PORT)
        other.serve(PORT)
        for authority, status, reason in (
            (f"{server.address}:{PORT}", 200, ""),
            (f"{HOST}:80", 200, ""),
            (f"{HOST.upper()}:80", 200, ""),
            (f"{HOST}:81", 200, ""),
            (f"{HOST}:82", 503, "has no port 82 that workload"),
            (f"{HOST}:99", 503, "has no port 99 that workload"),
            (f"{HOST}:83", 503, "port 15001 is ztunnel's own"),
            (f"{HOST}:84", 503, "port 15008 is ztunnel's own"),
            ("gone.test.svc.cluster.local:80", 503, "there is no service gone.test.svc.cluster.local"),
            ("hidden.elsewhere.svc.cluster.local:80", 503, "there is no service hidden.elsewhere"),
            (f"{server.address}:15001", 503, "port 15001 is ztunnel's own"),
            (f"{server.address}:15006", 503, "port 15006 is ztunnel's own"),
            (f"{server.address}:15008", 503, "port 15008 is ztunnel's own"),
            (f"{server.address}:9", 503, "the application does not answer"),
            (f"127.0.0.1:{PORT}", 400, "127.0.0.1:8080 is not"),
            ("127.0.0.1:15000", 400, "127.0.0.1:15000 is not"),
            (f"[::1]:{PORT}", 400, "[::1]:8080 is not"),
            (f"{other.address}:{PORT}", 400, f"{other.address}:8080 is not {server.address}"),
            (f"{VIP}:80", 400, f"{VIP}:80 is not {server.address}"),
            (f"localhost:{PORT}", 503, "there is no service localhost"),
            ("metadata.google.internal:80", 503, "there is no service metadata.google.internal"),
            (server.address, 400, "bad CONNECT"),
            (f"{server.address}:0", 400, "bad CONNECT"),
            (f"{server.address}:65536", 400, "bad CONNECT"),
            ("/etc/passwd:80", 400, "bad CONNECT"),
        ):
            seen = len(ztunnel.access_lines())
            assert connect(mesh, peer, server, authority) == status, authority
            line = ztunnel.wait_for_line(lambda line: line.direction == "inbound", seen)
            if reason:
                assert reason in line.error, authority
        assert total(ztunnel.metrics(), "ambit_tcp_early_failures_total", reporter="destination") == 20
        opened = total(ztunnel.metrics(), "istio_tcp_connections_opened_total", destination_workload="server")
        assert opened == 5
        assert total(ztunnel.metrics(), "istio_tcp_connections_opened_total", destination_workload="other") == 0


@isolated
def test_a_pod_that_is_not_the_waypoint_does_not_take_its_connections() -> None:
    with chosen_mesh() as mesh:
        peer, waypoint, bystander = mesh.add_host("peer"), mesh.add_pod("waypoint"), mesh.add_pod("bystander")
        entrance, web = service("waypoint", "203.0.113.9", {15008: 15008}), service("web", VIP, {80: PORT})
        web.waypoint.CopyFrom(gateway_by_name(entrance))
        behind = mesh.add_proxy("behind").workload()
        behind.waypoint.CopyFrom(gateway_by_name(entrance))
        mesh.tell(endpoint_of(waypoint.workload(), entrance), bystander.workload(), behind, entrance, web)
        ztunnel = mesh.start_ztunnel()
        waypoint.serve(80)
        bystander.serve(80)
        address = ".".join(str(byte) for byte in behind.addresses[0])
        for authority in (f"{VIP}:80", f"{address}:80"):
            assert connect(mesh, peer, waypoint, authority) == 200, authority
            assert connect(mesh, peer, bystander, authority) == 400, authority
        line = ztunnel.wait_for_line(lambda line: "waypoint" in line.error)
        assert "workload Kubernetes//Pod/test/bystander is not its waypoint" in line.error


@isolated
def test_a_pod_reaches_itself_through_its_service() -> None:
    with chosen_mesh() as mesh:
        pod = mesh.add_pod("pod")
        web = service("web", VIP, {80: PORT})
        mesh.tell(endpoint_of(pod.workload(), web), web)
        ztunnel = mesh.start_ztunnel()
        pod.serve(PORT)
        answer = pod.ask(VIP, 80)
        assert (answer.server, answer.client) == ("pod", pod.address)
        line = ztunnel.wait_for_line(lambda line: line.direction == "inbound")
        assert (line.source_identity, line.destination_identity) == (pod.identity, pod.identity)
        assert ztunnel.wait_for_line(lambda line: line.direction == "outbound").destination_service == HOST


@isolated
def test_what_the_mesh_does_not_know_is_passed_through() -> None:
    with chosen_mesh() as mesh:
        client, outside = mesh.add_pod("client"), mesh.add_host("outside")
        mesh.tell(client.workload())
        ztunnel = mesh.start_ztunnel()
        outside.serve(PORT)
        for address in outside.addresses:
            seen = len(ztunnel.access_lines())
            answer = client.ask(address, PORT)
            assert (answer.server, answer.client) in (("outside", own) for own in client.addresses)
            line = ztunnel.wait_for_line(lambda line: line.direction == "outbound", seen)
            assert (line.source_workload, line.destination_workload, line.destination_identity) == ("client", "", "")
        labels = {"destination_workload": "unknown", "connection_security_policy": "unknown"}
        assert total(ztunnel.metrics(), "istio_tcp_connections_opened_total", **labels) == 2


@pytest.mark.parametrize("mode", ["failover", "strict"])
@isolated
def test_endpoints_are_chosen_by_where_they_are(mode: str) -> None:
    with chosen_mesh() as mesh:
        client, close, far = mesh.add_pod("client"), mesh.add_pod("close"), mesh.add_pod("far")
        web = service("web", VIP, {80: PORT})
        web.load_balancing.routing_preference.extend([pb.LoadBalancing.REGION, pb.LoadBalancing.ZONE])
        web.load_balancing.mode = pb.LoadBalancing.STRICT if mode == "strict" else pb.LoadBalancing.FAILOVER
        workloads = {}
        for pod, zone in ((client, "a"), (close, "a"), (far, "b")):
            workload = pod.workload() if pod is client else endpoint_of(pod.workload(), web)
            workload.locality.CopyFrom(pb.Locality(region="r", zone=zone))
            workloads[pod.name] = workload
        mesh.tell(*workloads.values(), web)
        ztunnel = mesh.start_ztunnel()
        close.serve(PORT)
        far.serve(PORT)
        assert {client.ask(VIP, 80).server for _ in range(20)} == {"close"}
        workloads["close"].status = pb.UNHEALTHY
        mesh.tell(workloads["close"])
        answer = client.ask(VIP, 80)
        if mode == "failover":
            assert answer.server == "far"
        else:
            assert answer.error == "ConnectionResetError"
            assert "no healthy upstream" in ztunnel.wait_for_line(lambda line: bool(line.error)).error
            assert total(ztunnel.metrics(), "ambit_tcp_early_failures_total", reporter="source") == 1
        web.load_balancing.health_policy = pb.LoadBalancing.ALLOW_ALL
        mesh.tell(web)
        assert client.ask(VIP, 80).server == "close", "a service that wants all of them has them back"
