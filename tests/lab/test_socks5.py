"""SOCKS5 on a pod's loopback: the same ways as captured connections, and no success before there is one."""

import socket
import subprocess
from dataclasses import dataclass
from functools import partial

import pytest

from ambit.demo.access_log import AccessLine
from ambit.demo.polling import wait_for
from mesh.ports import SOCKS5_PORT
from mesh.wire import authorization_pb2 as security
from tests.support.chosen_mesh import ChosenMesh, Host, Pod, Ztunnel, chosen_mesh
from tests.support.chosen_resources import endpoint_of, service
from tests.support.isolation import isolated
from tests.support.mesh import total

VIP = "203.0.113.1"
HOST = "web.test.svc.cluster.local"
PORT = 8080
SOCKS = ("127.0.0.1", SOCKS5_PORT)
GREETING = b"\x05\x01\x00"


@dataclass(frozen=True, slots=True)
class Site:
    client: Pod
    server: Pod
    outside: Host
    near: Ztunnel


def build(mesh: ChosenMesh) -> Site:
    """A client with SOCKS5, a server on another node, and a host outside of the mesh; both serve a page."""
    client, server = mesh.add_pod("client"), mesh.add_pod("server", node="node-2")
    outside = mesh.add_host("outside")
    web = service("web", VIP, {80: PORT, 81: 8181})
    mesh.tell(client.workload(), endpoint_of(server.workload(), web), web)
    near = mesh.start_ztunnel(UNSTABLE_ENABLE_SOCKS5="true")
    mesh.start_ztunnel("node-2", UNSTABLE_ENABLE_SOCKS5="true")
    for place in (server, outside):
        folder = mesh.folder / f"pages-{place.name}"
        folder.mkdir()
        (folder / "name").write_text(place.name)
        command = ("python3", "-m", "http.server", "--bind", "::", "--directory", str(folder), str(PORT))
        log = mesh.run(place, *command, name="pages")
        assert wait_for(partial(listens, place), 10.0), log.read_text()
    return Site(client, server, outside, near)


def has_failed(line: AccessLine) -> bool:
    return bool(line.error)


def listens(place: Host) -> bool:
    return f":{PORT} " in place.execute("ss", "--tcp", "--listening", "--numeric", "--no-header")


def curl(client: Pod, option: str, url: str) -> tuple[str, int]:
    """What curl gets through the proxy, and its exit status."""
    command = ["curl", "--silent", "--max-time", "10", option, "{}:{}".format(*SOCKS), url]
    done = subprocess.run(client.command(*command), capture_output=True, text=True, check=False, timeout=30)
    return done.stdout, done.returncode


def request(client: Pod, message: bytes) -> bytes:
    """What the proxy answers to a greeting and then `message`: the second answer, empty when it just closes."""
    with client.connect(*SOCKS) as connection:
        connection.sendall(GREETING)
        assert connection.recv(2) == b"\x05\x00"
        connection.sendall(message)
        answer = b""
        while part := connection.recv(100):
            answer += part
            if len(answer) >= 10:
                break
        return answer


def connect_to(address: str, port: int) -> bytes:
    return b"\x05\x01\x00\x01" + socket.inet_aton(address) + port.to_bytes(2, "big")


@isolated
def test_addresses_and_names_are_reached_the_ways_that_captured_connections_go() -> None:
    with chosen_mesh() as mesh:
        site = build(mesh)
        client, server = site.client, site.server
        for option, url in (
            ("--socks5", f"http://{VIP}/name"),
            ("--socks5", f"http://{server.address}:{PORT}/name"),
            ("--socks5", f"http://[{server.addresses[1]}]:{PORT}/name"),
            ("--socks5-hostname", f"http://{HOST}/name"),
        ):
            assert curl(client, option, url) == ("server", 0), (url, site.near.log())
        assert curl(client, "--socks5", f"http://{site.outside.address}:{PORT}/name") == ("outside", 0)
        line = site.near.wait_for_line(lambda line: line.destination_service == HOST)
        assert (line.destination_identity, line.error) == (server.identity, "")
        opened = total(site.near.metrics(), "istio_tcp_connections_opened_total", reporter="source")
        assert opened == 5


@isolated
def test_a_name_that_the_mesh_does_not_have_is_unreachable() -> None:
    with chosen_mesh() as mesh:
        site = build(mesh)
        _, status = curl(site.client, "--socks5-hostname", "http://gone.test.svc.cluster.local/")
        assert status == 97  # CURLE_PROXY
        name = b"gone.test.svc.cluster.local"
        answer = request(site.client, b"\x05\x01\x00\x03" + bytes([len(name)]) + name + b"\x00\x50")
        assert answer[1] == 4
        assert "there is no service gone.test.svc.cluster.local" in site.near.wait_for_line(has_failed).error


@isolated
def test_success_is_told_only_when_the_connection_stands() -> None:
    with chosen_mesh() as mesh:
        site = build(mesh)
        assert request(site.client, connect_to(VIP, 80))[1] == 0
        # Nobody listens on the service's other port: the server's ztunnel answers 503.
        assert request(site.client, connect_to(VIP, 81))[1] == 5
        assert request(site.client, connect_to(site.outside.address, 9))[1] == 5
        deny = security.Authorization(
            name="deny",
            namespace="test",
            scope=security.NAMESPACE,
            action=security.DENY,
            rules=[security.Rule(clauses=[])],
        )
        mesh.tell(deny)
        assert request(site.client, connect_to(VIP, 80))[1] == 2
        site.near.wait_for_line(lambda line: "answered 401" in line.error)


@isolated
def test_ztunnels_own_ports_are_no_destination() -> None:
    with chosen_mesh() as mesh:
        site = build(mesh)
        for port in (15001, 15006, 15008, 15080):
            seen = len(site.near.access_lines())
            assert request(site.client, connect_to("127.0.0.1", port))[1] == 4
            found = site.near.wait_for_line(has_failed, seen)
            assert found.destination == f"127.0.0.1:{port}"
            assert "is ztunnel itself" in found.error


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        pytest.param(b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", b"", id="socks4"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", b"", id="http"),
        pytest.param(b"\x05\x01\x02", b"\x05\xff", id="passwords-only"),
        pytest.param(GREETING + b"\x05\x02\x00\x01\x00\x00\x00\x00\x00\x50", b"\x05\x00\x05\x07", id="bind"),
        pytest.param(GREETING + b"\x05\x01\x00\x09\x00", b"\x05\x00\x05\x08", id="unknown-address-kind"),
    ],
)
@isolated
def test_what_is_not_a_connect_of_socks5_is_refused(message: bytes, answer: bytes) -> None:
    with chosen_mesh() as mesh:
        client = mesh.add_pod("client")
        mesh.tell(client.workload())
        ztunnel = mesh.start_ztunnel(UNSTABLE_ENABLE_SOCKS5="true")
        with client.connect(*SOCKS) as connection:
            connection.sendall(message)
            received = b""
            try:
                while part := connection.recv(100):
                    received += part
            except ConnectionResetError:
                pass  # what was not read is reset, as TCP has it
            assert received.startswith(answer)
            assert bool(received) == bool(answer)
        assert "socks5: " in ztunnel.wait_for_line(has_failed).error


@isolated
def test_it_is_off_unless_it_is_wanted() -> None:
    with chosen_mesh() as mesh:
        client = mesh.add_pod("client")
        mesh.tell(client.workload())
        mesh.start_ztunnel()
        with pytest.raises(ConnectionRefusedError):
            client.connect(*SOCKS)
