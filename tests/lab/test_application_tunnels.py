"""Pods that have an application tunnel: a waypoint behind ztunnel ("sandwich") that learns its clients from a PROXY
header, read here by a real Envoy and a real HAProxy, or takes another port (ztunnel.md 3.3)."""

from dataclasses import dataclass

from ambit.demo.polling import wait_for
from mesh.wire import workload_pb2 as pb
from tests.support.chosen_mesh import ChosenMesh, Pod, Ztunnel, chosen_mesh
from tests.support.chosen_resources import endpoint_of, gateway_by_name, service
from tests.support.envoy import start_proxy_reader
from tests.support.isolation import isolated
from tests.support.mesh import total

VIP, VIP_IPV6 = "203.0.113.1", "2001:db8:1::1"
PORT = 15088
HOST = "web.test.svc.cluster.local"


@dataclass(frozen=True, slots=True)
class Sandwich:
    """A client and the waypoint of the service that it asks for."""

    client: Pod
    waypoint: Pod
    far: Ztunnel


def build(mesh: ChosenMesh, protocol: pb.ApplicationTunnel.Protocol, port: int = PORT, **environment: str) -> Sandwich:
    client, waypoint = mesh.add_pod("client"), mesh.add_pod("waypoint", node="node-2")
    entrance = service("waypoint", "203.0.113.9", {15008: 15008})
    web = service("web", VIP, {80: 8080})
    web.addresses.add(address=service("web", VIP_IPV6).addresses[0].address)
    web.waypoint.CopyFrom(gateway_by_name(entrance))
    captured = endpoint_of(waypoint.workload(), entrance)
    captured.application_tunnel.CopyFrom(pb.ApplicationTunnel(protocol=protocol, port=port))
    mesh.tell(client.workload(), captured, entrance, web)
    mesh.start_ztunnel()
    return Sandwich(client, waypoint, mesh.start_ztunnel("node-2", **environment))


def read(client: Pod, url: str) -> dict[str, str]:
    """What the reader says of a connection, by curl."""
    page = client.execute("curl", "--silent", "--show-error", "--max-time", "10", url)
    return dict(line.split(" ", 1) for line in page.splitlines())


@isolated
def test_a_waypoint_learns_client_destination_identity_and_service() -> None:
    with chosen_mesh() as mesh:
        sandwich = build(mesh, pb.ApplicationTunnel.PROXY)
        start_proxy_reader(mesh, sandwich.waypoint, PORT)
        found = read(sandwich.client, f"http://{VIP}/")
        assert found["source"].startswith(f"{sandwich.client.address}:"), found
        assert found["destination"] == f"{VIP}:80"
        assert (found["identity"], found["service"]) == (sandwich.client.identity, HOST)
        found = read(sandwich.client, f"http://[{VIP_IPV6}]/")
        assert found["source"].startswith(f"[{sandwich.client.addresses[1]}]:"), found
        assert (found["destination"], found["service"]) == (f"[{VIP_IPV6}]:80", HOST)
        line = sandwich.far.wait_for_line(lambda line: line.direction == "inbound")
        assert (line.source_identity, line.destination_workload, line.error) == (
            sandwich.client.identity,
            "waypoint",
            "",
        )
        opened = total(sandwich.far.metrics(), "istio_tcp_connections_opened_total", destination_workload="waypoint")
        assert opened == 2


@isolated
def test_haproxy_reads_the_header() -> None:
    with chosen_mesh() as mesh:
        sandwich = build(mesh, pb.ApplicationTunnel.PROXY)
        configuration = mesh.folder / "haproxy.cfg"
        told = "source %[src]:%[src_port]\\ndestination %[dst]:%[dst_port]\\n"
        configuration.write_text(f"""
defaults
  mode http
  timeout client 10s
  timeout server 10s
  timeout connect 10s
frontend reader
  bind 127.0.0.1:{PORT} accept-proxy
  http-request return status 200 content-type text/plain lf-string "{told}"
""")
        log = mesh.run(sandwich.waypoint, "haproxy", "-f", str(configuration), "-db")
        listening = ["ss", "--tcp", "--listening", "--numeric", "--no-header"]
        assert wait_for(lambda: f":{PORT}" in sandwich.waypoint.execute(*listening), 10.0), log.read_text()
        found = read(sandwich.client, f"http://{VIP}/")
        assert found["source"].startswith(f"{sandwich.client.address}:"), found
        assert found["destination"] == f"{VIP}:80"


@isolated
def test_the_application_may_be_dialled_at_the_pods_address() -> None:
    with chosen_mesh() as mesh:
        sandwich = build(mesh, pb.ApplicationTunnel.PROXY, LOCALHOST_APP_TUNNEL="false")
        start_proxy_reader(mesh, sandwich.waypoint, PORT)
        assert read(sandwich.client, f"http://{VIP}/")["identity"] == sandwich.client.identity


@isolated
def test_a_tunnel_without_header_changes_the_port_only() -> None:
    with chosen_mesh() as mesh:
        sandwich = build(mesh, pb.ApplicationTunnel.NONE)
        sandwich.waypoint.serve(PORT)
        answer = sandwich.client.ask(VIP, 80)
        assert (answer.server, answer.client, answer.text) == ("waypoint", sandwich.client.address, "hello")


@isolated
def test_an_application_that_does_not_listen_is_told_as_such() -> None:
    with chosen_mesh() as mesh:
        sandwich = build(mesh, pb.ApplicationTunnel.PROXY)
        assert sandwich.client.ask(VIP, 80).error == "ConnectionResetError"
        line = sandwich.far.wait_for_line(lambda line: line.direction == "inbound")
        assert "the application does not answer: cannot connect to 127.0.0.1:15088" in line.error
