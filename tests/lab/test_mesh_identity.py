"""Certificates of short life, renewed under traffic; and handshakes that need a post-quantum key exchange."""

import json
import time

from mesh import ports
from tests.support.chosen_mesh import Ztunnel, chosen_mesh
from tests.support.isolation import isolated
from tests.support.mesh import total

PORT = 8080
LIFETIME_SECONDS = 4
NODES = {"client": "node-1", "server": "node-2"}


def serial(ztunnel: Ztunnel, identity: str) -> str:
    dump = json.loads(ztunnel.fetch("/config_dump", ports.ZTUNNEL_ADMIN_PORT))
    (found,) = [one for one in dump["certificates"] if one["identity"] == identity]
    return str(found["certChain"][0]["serialNumber"])


@isolated
def test_certificates_of_seconds_are_renewed_while_traffic_flows() -> None:
    with chosen_mesh() as mesh:
        client, server = (mesh.add_pod(name, node=node) for name, node in NODES.items())
        mesh.tell(client.workload(), server.workload())
        # Tunnels are given up soon, so that new connections shake hands with the new certificates.
        settings = {"SECRET_TTL": f"{LIFETIME_SECONDS}s", "POOL_UNUSED_RELEASE_TIMEOUT": "100ms"}
        near, far = (mesh.start_ztunnel(node, **settings) for node in NODES.values())
        server.serve(PORT)
        serials, deadline = set(), time.monotonic() + 3 * LIFETIME_SECONDS
        with client.connect(server.address, PORT) as held:
            held.sendall(b"hello\n")
            assert held.recv(100)
            while time.monotonic() < deadline:
                answer = client.ask(server.address, PORT)
                assert answer.server == "server", (answer, near.log(), far.log())
                held.sendall(b"ping")
                assert held.recv(100) == b"ping", "a certificate's end does not end connections"
                serials.add(serial(near, client.identity))
        assert len(serials) >= 4, serials
        for ztunnel in (near, far):
            assert not [line for line in ztunnel.access_lines() if line.error]
            assert total(ztunnel.metrics(), "istio_tcp_connections_failed_total") == 0
            assert "certificate fetched" in ztunnel.log()


@isolated
def test_two_ztunnels_that_demand_a_post_quantum_exchange_understand_each_other() -> None:
    with chosen_mesh() as mesh:
        client, server = (mesh.add_pod(name, node=node) for name, node in NODES.items())
        mesh.tell(client.workload(), server.workload())
        near, _ = (mesh.start_ztunnel(node, COMPLIANCE_POLICY="pqc") for node in NODES.values())
        server.serve(PORT)
        assert client.ask(server.address, PORT).server == "server"
        line = near.wait_for_line(lambda line: line.direction == "outbound")
        assert line.destination_identity == server.identity
        opened = "istio_tcp_connections_opened_total"
        assert total(near.metrics(), opened, connection_security_policy="mutual_tls") == 1
