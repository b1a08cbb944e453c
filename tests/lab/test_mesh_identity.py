"""Certificates of short life, renewed under traffic; and handshakes that need a post-quantum key exchange."""

import base64
import json
import time
from collections.abc import Callable
from typing import Any  # JSON

from cryptography import x509

from mesh import ports
from tests.support.chosen_mesh import Ztunnel, chosen_mesh
from tests.support.isolation import isolated
from tests.support.mesh import total
from tests.support.mesh_certificates import Authority, make_authority, read_authority, write_authority

PORT = 8080
LIFETIME_SECONDS = 4
NODES = {"client": "node-1", "server": "node-2"}


def certificate(ztunnel: Ztunnel, identity: str) -> dict[str, Any]:
    """The entry of an identity in the dump."""
    dump = json.loads(ztunnel.fetch("/config_dump", ports.ZTUNNEL_ADMIN_PORT))
    (found,) = [one for one in dump["certificates"] if one["identity"] == identity]
    assert isinstance(found, dict)
    return found


def serial(ztunnel: Ztunnel, identity: str) -> str:
    return str(certificate(ztunnel, identity)["certChain"][0]["serialNumber"])


def parse(dumped: list[dict[str, str]]) -> list[x509.Certificate]:
    return [x509.load_pem_x509_certificate(base64.b64decode(one["pem"])) for one in dumped]


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
def test_a_root_is_replaced_while_traffic_flows() -> None:
    with chosen_mesh() as mesh:
        client, server = (mesh.add_pod(name, node=node) for name, node in NODES.items())
        mesh.tell(client.workload(), server.workload())
        # Tunnels are given up soon, and the clients' node renews less often: old and new certificates meet.
        pool = {"POOL_UNUSED_RELEASE_TIMEOUT": "100ms"}
        near = mesh.start_ztunnel(NODES["client"], SECRET_TTL=f"{2 * LIFETIME_SECONDS}s", **pool)
        far = mesh.start_ztunnel(NODES["server"], SECRET_TTL=f"{LIFETIME_SECONDS}s", **pool)
        server.serve(PORT)
        old, new = read_authority(mesh.authority), make_authority("new")
        intermediate = make_authority("intermediate", new)
        plugged_in = mesh.authority / "cacerts"
        plugged_in.mkdir()
        ends = ((near, client.identity), (far, server.identity))

        def ask_until(is_true: Callable[[Ztunnel, str], bool]) -> None:
            deadline = time.monotonic() + 4 * LIFETIME_SECONDS
            while not all(is_true(*end) for end in ends):
                assert time.monotonic() < deadline, [certificate(*end) for end in ends]
                assert client.ask(server.address, PORT).server == "server", (near.log(), far.log())

        def plug_in(signer: Authority, *trusted: Authority) -> None:
            """Sign with another, and wait until both ends trust these roots."""
            write_authority(plugged_in, signer, trusted, [intermediate] if signer is intermediate else [])
            serials = {one.certificate.serial_number for one in trusted}
            ask_until(lambda *end: {root.serial_number for root in parse(certificate(*end)["rootCerts"])} == serials)

        def is_signed_by_intermediate(ztunnel: Ztunnel, identity: str) -> bool:
            leaf, *rest = parse(certificate(ztunnel, identity)["certChain"])
            return leaf.issuer == intermediate.certificate.subject and rest == [intermediate.certificate]

        plug_in(old, old)
        plug_in(old, old, new)
        plug_in(intermediate, old, new)
        ask_until(is_signed_by_intermediate)
        plug_in(intermediate, new)
        assert client.ask(server.address, PORT).server == "server"
        for ztunnel, _ in ends:
            assert not [line for line in ztunnel.access_lines() if line.error]
            assert total(ztunnel.metrics(), "istio_tcp_connections_failed_total") == 0


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
