"""Double HBONE: services of another network, behind a real Envoy as that network's gateway (ztunnel.md 1.10).

network near                                         network far
client, node-1's ztunnel  --outer tunnel--> gateway  --bytes--> server:15008, node-2's ztunnel
                          --------------inner tunnel-------------->
"""

import os
from dataclasses import dataclass

from ambit.demo.access_log import AccessLine
from ambit.demo.polling import wait_for
from mesh.wire import authorization_pb2 as security
from mesh.wire import workload_pb2 as pb
from tests.support.chosen_mesh import ChosenMesh, Pod, Ztunnel, chosen_mesh
from tests.support.chosen_resources import endpoint_of, gateway_by_address, gateway_by_name, service
from tests.support.envoy import start_gateway
from tests.support.isolation import isolated
from tests.support.mesh import total

VIP = "203.0.113.1"
PORT = 8080
HOST = "web.test.svc.cluster.local"
AUTHORITY = f"{HOST}:80"


@dataclass(frozen=True, slots=True)
class Networks:
    """Both ends, once they stand."""

    mesh: ChosenMesh
    client: Pod
    gateway: Pod
    server: Pod
    web: pb.Service
    remote: pb.Workload
    near: Ztunnel
    far: Ztunnel

    def line(self, ztunnel: Ztunnel, direction: str) -> AccessLine:
        return ztunnel.wait_for_line(lambda line: line.direction == direction)


def connect_networks(
    mesh: ChosenMesh, *, by_name: bool = False, sans: bool = True, gateway_port: int = 15008, **far: str
) -> Networks:
    """A client on network near, a server on network far. The two controllers tell each other what istiod would: near
    knows of the server only that it is one workload behind the gateway, without an address."""
    client, gateway = mesh.add_pod("client"), mesh.add_proxy("gateway")
    server = mesh.add_pod("server", node="node-2")
    web = service("web", VIP, {80: PORT}, network="near")
    web.addresses.add(network="far", address=web.addresses[0].address)
    if sans:
        web.subject_alt_names.append(server.identity)
    entrance = service("gateway", "203.0.113.9", {15008: gateway_port}, network="near")
    at_gateway = endpoint_of(gateway.workload("near"), entrance)
    remote = endpoint_of(server.workload("far"), web)
    reference = gateway_by_name(entrance) if by_name else gateway_by_address(gateway.address, gateway_port, "near")
    remote.network_gateway.CopyFrom(reference)
    mesh.tell(client.workload("near"), remote, web, entrance, at_gateway)
    start_gateway(mesh, gateway, {AUTHORITY: (server.address, 15008)}, gateway_port)
    near_ztunnel, far_ztunnel = mesh.start_ztunnel(NETWORK="near"), mesh.start_ztunnel("node-2", NETWORK="far", **far)
    server.serve(PORT)
    return Networks(mesh, client, gateway, server, web, remote, near_ztunnel, far_ztunnel)


@isolated
def test_a_service_of_another_network_is_reached_through_its_gateway() -> None:
    with chosen_mesh() as mesh:
        networks = connect_networks(mesh)
        answer = networks.client.ask(VIP, 80)
        assert (answer.server, answer.text) == ("server", "hello"), (answer, networks.near.log())
        assert answer.client == networks.gateway.address
        near = networks.line(networks.near, "outbound")
        assert near.destination == f"{networks.gateway.address}:15008"
        assert (near.destination_workload, near.destination_identity) == ("server", networks.server.identity)
        assert (near.destination_service, near.error) == (HOST, "")
        assert (near.bytes_sent, near.bytes_received) == (6, len(f"server {answer.client} hello\n"))
        far = networks.line(networks.far, "inbound")
        # The address is the gateway's; who the client is comes from its baggage and its certificate.
        assert (far.source_address, far.source_workload) == (networks.gateway.address, "client")
        assert (far.source_identity, far.error) == (networks.client.identity, "")
        labels = {"destination_workload": "server", "destination_service": HOST, "reporter": "source"}
        metrics = networks.near.metrics()
        assert total(metrics, "istio_tcp_connections_opened_total", **labels) == 1
        assert total(metrics, "istio_tcp_connections_closed_total", **labels) == 1
        assert total(networks.far.metrics(), "istio_tcp_connections_opened_total", source_workload="client") == 1


@isolated
def test_a_gateway_may_be_a_service_that_maps_its_port() -> None:
    with chosen_mesh() as mesh:
        networks = connect_networks(mesh, by_name=True, gateway_port=15443)
        assert networks.client.ask(VIP, 80).server == "server"
        assert networks.line(networks.near, "outbound").destination == f"{networks.gateway.address}:15443"


@isolated
def test_half_closes_and_bulk_pass_through_both_layers() -> None:
    with chosen_mesh() as mesh:
        networks = connect_networks(mesh)
        data = bytes(range(256)) * 4096
        with networks.client.connect(VIP, 80) as connection:
            connection.sendall(b"hello\n")
            assert connection.recv(100).startswith(b"server ")
            received = b""
            for start in range(0, len(data), 65536):
                connection.sendall(data[start : start + 65536])
                while len(received) < start + 65536:
                    received += connection.recv(65536)
            assert received == data
            connection.shutdown(1)
            assert connection.recv(1) == b""
        line = networks.line(networks.near, "outbound")
        assert (line.bytes_sent, line.error) == (len(data) + 6, "")


@isolated
def test_connections_through_a_gateway_leave_nothing_behind() -> None:
    with chosen_mesh() as mesh:
        networks = connect_networks(mesh)
        assert networks.client.ask(VIP, 80).server == "server"

        def count_descriptors() -> tuple[int, ...]:
            return tuple(len(os.listdir(f"/proc/{each.process.pid}/fd")) for each in (networks.near, networks.far))

        networks.line(networks.far, "inbound")
        before = count_descriptors()
        for number in range(100):
            # One in two ends before it has said anything.
            with networks.client.connect(VIP, 80) as connection:
                if number % 2:
                    connection.sendall(b"hello\n")
                    assert connection.recv(100).startswith(b"server ")
        # The inner tunnels' last goodbyes take a moment; what is pooled is the one outer tunnel.
        assert wait_for(lambda: sum(count_descriptors()) <= sum(before), 10.0), (before, count_descriptors())


@isolated
def test_only_the_services_own_identities_are_believed_behind_a_gateway() -> None:
    with chosen_mesh() as mesh:
        networks = connect_networks(mesh)
        networks.web.subject_alt_names[:] = ["spiffe://cluster.local/ns/test/sa/somebody-else"]
        mesh.tell(networks.web)
        assert networks.client.ask(VIP, 80).error == "ConnectionResetError"
        line = networks.line(networks.near, "outbound")
        assert line.error.startswith("behind the gateway: ")
        assert networks.server.identity in line.error
        assert total(networks.near.metrics(), "istio_tcp_connections_failed_total", response_flags="TLS_FAILURE") == 1


@isolated
def test_a_service_without_identities_has_nobody_to_believe_behind_a_gateway() -> None:
    with chosen_mesh() as mesh:
        networks = connect_networks(mesh, sans=False)
        assert networks.client.ask(VIP, 80).error == "ConnectionResetError"
        assert f"service {HOST} names no identity" in networks.line(networks.near, "outbound").error


@isolated
def test_what_the_gateway_does_not_know_is_refused_by_it() -> None:
    with chosen_mesh() as mesh:
        networks = connect_networks(mesh)
        networks.web.ports.add(service_port=81, target_port=PORT)
        remote = networks.remote
        remote.services["test/" + HOST].ports.add(service_port=81, target_port=PORT)
        mesh.tell(networks.web, remote)
        assert networks.client.ask(VIP, 81).error == "ConnectionResetError"
        assert networks.line(networks.near, "outbound").error == "at the gateway: the destination's proxy answered 404"


@isolated
def test_a_policy_behind_the_gateway_is_told_apart_from_the_gateways() -> None:
    with chosen_mesh() as mesh:
        networks = connect_networks(mesh)
        deny = security.Authorization(
            name="deny",
            namespace="test",
            scope=security.NAMESPACE,
            action=security.DENY,
            rules=[security.Rule(clauses=[])],
        )
        mesh.tell(deny)
        assert networks.client.ask(VIP, 80).error == "ConnectionResetError"
        line = networks.line(networks.near, "outbound")
        assert line.error.startswith("behind the gateway: the destination's proxy answered 401")
        assert "test/deny" in networks.line(networks.far, "inbound").error
        assert total(networks.near.metrics(), "istio_tcp_connections_failed_total", response_flags="DENY") == 1


@isolated
def test_a_workload_of_another_network_cannot_be_dialled_by_its_address() -> None:
    with chosen_mesh() as mesh:
        networks = connect_networks(mesh)
        orphan = networks.remote
        orphan.ClearField("network_gateway")
        mesh.tell(orphan)
        assert networks.client.ask(VIP, 80).error == "ConnectionResetError"
        networks.near.wait_for_line(lambda line: "no gateway" in line.error or "has no endpoint" in line.error)


@isolated
def test_who_does_not_describe_its_workload_is_known_by_its_certificate_only() -> None:
    with chosen_mesh() as mesh:
        networks = connect_networks(mesh, ENABLE_RESPONSE_BAGGAGE="false")
        assert networks.client.ask(VIP, 80).server == "server"
        near, far = networks.line(networks.near, "outbound"), networks.line(networks.far, "inbound")
        assert (near.destination_workload, near.destination_identity) == ("", networks.server.identity)
        assert (far.source_workload, far.source_identity) == ("", networks.client.identity)
        labels = {"destination_workload": "unknown", "destination_principal": networks.server.identity}
        assert total(networks.near.metrics(), "istio_tcp_connections_opened_total", **labels) == 1


@isolated
def test_a_waypoint_in_another_network_is_reached_through_that_networks_gateway() -> None:
    with chosen_mesh() as mesh:
        client, gateway = mesh.add_pod("client"), mesh.add_proxy("gateway")
        waypoint = mesh.add_pod("waypoint", node="node-2")
        entrance = service("waypoint", "", {15008: 15008})
        entrance.subject_alt_names.append(waypoint.identity)
        web = service("web", VIP, {80: PORT}, network="near")
        web.waypoint.CopyFrom(gateway_by_name(entrance))
        remote = endpoint_of(waypoint.workload("far"), entrance)
        remote.network_gateway.CopyFrom(gateway_by_address(gateway.address, 15008, "near"))
        mesh.tell(client.workload("near"), gateway.workload("near"), remote, entrance, web)
        start_gateway(mesh, gateway, {AUTHORITY: (waypoint.address, 15008)})
        near, far = mesh.start_ztunnel(NETWORK="near"), mesh.start_ztunnel("node-2", NETWORK="far")
        waypoint.serve(PORT)
        assert client.ask(VIP, 80).server == "waypoint", near.log()
        line = near.wait_for_line(lambda line: line.direction == "outbound")
        assert (line.destination_workload, line.destination_identity) == ("waypoint", waypoint.identity)
        assert (line.destination_service, line.error) == (HOST, "")
        assert far.wait_for_line(lambda line: line.direction == "inbound").source_identity == client.identity
        labels = {"destination_workload": "waypoint", "destination_service": HOST}
        assert total(near.metrics(), "istio_tcp_connections_opened_total", **labels) == 1
