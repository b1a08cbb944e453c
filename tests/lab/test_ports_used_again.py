"""A client's port is used for one destination after the other, as busy clients do: none may have to wait.

ztunnel's end of the first connection is in TIME_WAIT then, as the server closed first. If both destinations led to the
same address of ztunnel, their clocks (TCP timestamps, offset by destination: RFC 7323, section 5.4) would seem to run
backwards, the kernel would drop the second SYN, and the client would send it again after a second.
"""

import socket
import threading
import time

import pytest

from ambit.demo.access_log import AccessLine
from tests.support.chosen_mesh import Pod, Ztunnel, chosen_mesh
from tests.support.chosen_resources import endpoint_of, service
from tests.support.isolation import isolated
from tests.support.mesh import eventually, total

PORT = 8080
CLIENT_PORT = 41_000
SERVICE_PORTS = (80, 81)
DESTINATIONS = 8
"""Half of the pairs have clocks that run backwards: seven steps let a wrong rule set pass once in 128 times."""
SYN_RETRANSMISSION_SECONDS = 1.0


def serve_and_close_first(server: Pod) -> None:
    """Answer each connection's first bytes, and be the one that closes first."""
    listener = server.run(lambda: socket.create_server(("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True))

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"bye\n")

    threading.Thread(target=serve, name="serve", daemon=True).start()


def connect(client: Pod, own: str, address: str, port: int) -> float:
    """The seconds that connecting from CLIENT_PORT took; returns when the server has ended the connection."""

    def run() -> float:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            connection.settimeout(10)
            connection.bind((own, CLIENT_PORT))
            started = time.monotonic()
            connection.connect((address, port))
            took = time.monotonic() - started
            connection.sendall(b"hello\n")
            while connection.recv(100):
                pass
            return took

    return client.run(run)


def read_counters(pod: Pod) -> dict[str, str]:
    """The pod's extended TCP counters (proc_net_netstat)."""
    names, values = pod.execute("grep", "^TcpExt:", "/proc/net/netstat").splitlines()
    return dict(zip(names.split(), values.split(), strict=True))


def outbound_lines(ztunnel: Ztunnel) -> list[AccessLine]:
    return [line for line in ztunnel.access_lines() if line.direction == "outbound"]


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
@isolated
def test_a_port_that_goes_to_another_service_does_not_wait(family: int) -> None:
    with chosen_mesh() as mesh:
        client, server = mesh.add_pod("client"), mesh.add_pod("server", node="node-2")
        prefix = ("203.0.113.", "2001:db8:1::")[family]
        vips = [f"{prefix}{number}" for number in range(1, DESTINATIONS // len(SERVICE_PORTS) + 1)]
        services = [service(f"web-{n}", vip, dict.fromkeys(SERVICE_PORTS, PORT)) for n, vip in enumerate(vips)]
        endpoint = server.workload()
        for one in services:
            endpoint_of(endpoint, one)
        mesh.tell(client.workload(), endpoint, *services)
        near = mesh.start_ztunnel()
        mesh.start_ztunnel("node-2")
        serve_and_close_first(server)
        own = client.addresses[family]
        took = [connect(client, own, vip, port) for vip in vips for port in SERVICE_PORTS]
        assert max(took) < SYN_RETRANSMISSION_SECONDS / 2, took
        counters = read_counters(client)
        assert (counters["TCPSynRetrans"], counters["PAWSTimewait"]) == ("0", "0")
        eventually(lambda: len(outbound_lines(near)) == DESTINATIONS)
        outbound = outbound_lines(near)
        client_socket = f"[{own}]:{CLIENT_PORT}" if family else f"{own}:{CLIENT_PORT}"
        assert {line.source for line in outbound} == {client_socket}, "the log tells the port that the client used"
        assert total(near.metrics(), "istio_tcp_connections_closed_total", reporter="source") == DESTINATIONS
