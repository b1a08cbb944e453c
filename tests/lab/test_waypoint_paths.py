"""Ways through waypoints, as far as L4 goes: a real Envoy is the waypoint of a service or of a pod.

client on node-1  --HBONE, client's identity-->  waypoint  --HBONE, waypoint's identity-->  server on node-2
"""

from dataclasses import dataclass

import pytest

from mesh.wire import workload_pb2 as pb
from tests.support.chosen_mesh import ChosenMesh, Pod, Ztunnel, chosen_mesh
from tests.support.chosen_resources import endpoint_of, gateway_by_address, gateway_by_name, service
from tests.support.envoy import Tunnel, start_waypoint
from tests.support.isolation import isolated
from tests.support.mesh import total

VIP, WAYPOINT_VIP = "203.0.113.1", "203.0.113.9"
PORT = 8080
HOST = "web.test.svc.cluster.local"


@dataclass(slots=True)
class Site:
    client: Pod
    waypoint: Pod
    server: Pod
    web: pb.Service
    entrance: pb.Service
    serving: pb.Workload
    near: Ztunnel
    far: Ztunnel

    def references(self) -> dict[str, pb.GatewayAddress]:
        """How the waypoint can be named."""
        return {
            "hostname": gateway_by_name(self.entrance),
            "service-address": gateway_by_address(WAYPOINT_VIP),
            "pod-address": gateway_by_address(self.waypoint.address),
        }


def build(mesh: ChosenMesh, *, captured: bool = False) -> Site:
    """A service with one server and a pod for its waypoint. `captured`: that has a ztunnel of its own before it."""
    client, server = mesh.add_pod("client"), mesh.add_pod("server", node="node-2")
    waypoint = mesh.add_pod("waypoint", node="node-2") if captured else mesh.add_proxy("waypoint", node="node-2")
    entrance = service("waypoint", WAYPOINT_VIP, {15008: 15008})
    web = service("web", VIP, {80: PORT})
    serving = endpoint_of(server.workload(), web)
    mesh.tell(client.workload(), endpoint_of(waypoint.workload(), entrance), serving, entrance, web)
    site = Site(client, waypoint, server, web, entrance, serving, mesh.start_ztunnel(), mesh.start_ztunnel("node-2"))
    server.serve(PORT)
    return site


def start_envoy(mesh: ChosenMesh, site: Site) -> None:
    tunnel = Tunnel(site.server.address, f"{site.server.address}:{PORT}", site.server.identity)
    start_waypoint(mesh, site.waypoint, {f"{VIP}:80": tunnel, f"{site.server.address}:{PORT}": tunnel})


@pytest.mark.parametrize("how", ["hostname", "service-address", "pod-address"])
@isolated
def test_a_service_is_reached_through_its_waypoint(how: str) -> None:
    with chosen_mesh() as mesh:
        site = build(mesh)
        start_envoy(mesh, site)
        site.web.waypoint.CopyFrom(site.references()[how])
        mesh.tell(site.web)
        answer = site.client.ask(VIP, 80)
        # Envoy's connection is its own: the server sees the waypoint as its client.
        assert (answer.server, answer.client) == ("server", site.waypoint.address), site.near.log()
        line = site.near.wait_for_line(lambda line: line.direction == "outbound")
        assert line.destination == f"{site.waypoint.address}:15008"
        assert (line.destination_workload, line.destination_identity) == ("waypoint", site.waypoint.identity)
        assert (line.destination_service, line.error) == (HOST, "")
        assert f'dst.hbone_addr="{VIP}:80"' in site.near.log()
        assert (
            site.far.wait_for_line(lambda line: line.direction == "inbound").source_identity == site.waypoint.identity
        )
        labels = {"destination_workload": "waypoint", "destination_service": HOST}
        assert total(site.near.metrics(), "istio_tcp_connections_opened_total", **labels) == 1


@pytest.mark.parametrize("how", ["hostname", "service-address", "pod-address"])
@isolated
def test_a_pod_is_reached_through_its_waypoint_by_its_address_only(how: str) -> None:
    with chosen_mesh() as mesh:
        site = build(mesh)
        start_envoy(mesh, site)
        site.serving.waypoint.CopyFrom(site.references()[how])
        mesh.tell(site.serving)
        answer = site.client.ask(site.server.address, PORT)
        assert (answer.server, answer.client) == ("server", site.waypoint.address), site.near.log()
        line = site.near.wait_for_line(lambda line: line.direction == "outbound")
        assert (line.destination_workload, line.destination_service) == ("waypoint", "")
        assert f'dst.hbone_addr="{site.server.address}:{PORT}"' in site.near.log()
        # A service is addressed: its pods' waypoint has no part in it.
        assert site.client.ask(VIP, 80).client == site.client.address


@isolated
def test_an_unknown_waypoint_is_not_gone_round() -> None:
    with chosen_mesh() as mesh:
        site = build(mesh)
        gone = service("gone")
        site.web.waypoint.CopyFrom(gateway_by_name(gone))
        site.serving.waypoint.CopyFrom(gateway_by_name(gone))
        mesh.tell(site.web, site.serving)
        for host, port in ((VIP, 80), (site.server.address, PORT)):
            seen = len(site.near.access_lines())
            assert site.client.ask(host, port).error == "ConnectionResetError"
            line = site.near.wait_for_line(lambda line: bool(line.error), seen)
            assert (
                f"the waypoint of {host}:{port}, test/gone.test.svc.cluster.local port 15008, is not known"
                in line.error
            )
        early = total(site.near.metrics(), "ambit_tcp_early_failures_total", reporter="source")
        assert early == 2
        assert site.far.access_lines() == []


@isolated
def test_a_waypoint_that_is_another_is_not_believed() -> None:
    """The service's address leads to the waypoint's, but who answers there has another identity."""
    with chosen_mesh() as mesh:
        site = build(mesh)
        start_envoy(mesh, site)
        impostor = endpoint_of(site.waypoint.workload(), site.entrance)
        impostor.service_account = "the-real-waypoint"
        site.web.waypoint.CopyFrom(gateway_by_name(site.entrance))
        mesh.tell(impostor, site.web)
        assert site.client.ask(VIP, 80).error == "ConnectionResetError"
        line = site.near.wait_for_line(lambda line: line.direction == "outbound")
        assert "the-real-waypoint" in line.error
        assert total(site.near.metrics(), "istio_tcp_connections_failed_total", response_flags="TLS_FAILURE") == 1


@isolated
def test_a_captured_waypoint_takes_what_names_it_and_goes_on_directly() -> None:
    """A waypoint behind a ztunnel: connections for what it is the waypoint of are let in, and its own are not sent back
    to it."""
    with chosen_mesh() as mesh:
        site = build(mesh, captured=True)
        site.waypoint.serve(80)
        assert site.client.ask(VIP, 80).server == "server", "it is not the waypoint yet"
        site.web.waypoint.CopyFrom(gateway_by_name(site.entrance))
        site.serving.waypoint.CopyFrom(gateway_by_name(site.entrance))
        mesh.tell(site.web, site.serving)
        assert site.client.ask(VIP, 80).server == "waypoint"
        assert site.waypoint.ask(VIP, 80).server == "server"
        assert site.waypoint.ask(site.server.address, PORT).server == "server"
        inbound = site.far.wait_for_line(lambda line: line.destination_workload == "waypoint")
        assert (inbound.source_identity, inbound.error) == (site.client.identity, "")


@isolated
def test_weighted_waypoints_share_the_connections() -> None:
    with chosen_mesh() as mesh:
        site = build(mesh, captured=True)
        other = mesh.add_pod("other", node="node-2")
        mesh.enrol(site.far, other)
        site.waypoint.serve(80)
        other.serve(80)
        for pod, weight in ((site.waypoint, 1), (other, 1)):
            site.web.weighted_waypoints.add(destination=gateway_by_address(pod.address), weight=weight)
        mesh.tell(other.workload(), site.web)
        answers = [site.client.ask(VIP, 80).server for _ in range(40)]
        # Both of 40 fair draws: wrong once in 2^39.
        assert set(answers) == {"waypoint", "other"}
        site.web.weighted_waypoints[0].weight = 0
        mesh.tell(site.web)
        assert {site.client.ask(VIP, 80).server for _ in range(10)} == {"other"}
