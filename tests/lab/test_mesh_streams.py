"""What a connection through the mesh owes the two programs at its ends: every byte, each end's end, a prompt no."""

import hashlib

import pytest

from tests.support.mesh import PATIENCE_SECONDS, PORT, Mesh, eventually, total

TRANSFER_BYTES = 64 << 20

WAYS = [
    pytest.param("east/client", "east/server", 4, "node-2", id="across-nodes-ipv4"),
    pytest.param("east/client", "east/near", 6, "node-1", id="on-one-node-ipv6"),
]


@pytest.mark.parametrize(("client", "server", "family", "node"), WAYS)
def test_a_large_upload_arrives_whole_and_is_answered_after_its_end(
    mesh: Mesh, client: str, server: str, family: int, node: str
) -> None:
    lines = len(mesh.access_lines(node))
    before = total(mesh.metrics(node), "istio_tcp_received_bytes_total", reporter="destination")
    result = mesh.act(client, "upload", host=mesh.address(server, family), port=PORT, bytes=TRANSFER_BYTES)
    assert isinstance(result, dict)
    assert result["received"] == result["sent"]
    length = TRANSFER_BYTES + len("take\n")
    line = mesh.wait_for_line(node, lambda line: line.direction == "inbound" and line.bytes_received == length, lines)
    assert not line.error
    assert total(mesh.metrics(node), "istio_tcp_received_bytes_total", reporter="destination") - before >= length


@pytest.mark.parametrize(("client", "server", "family", "node"), WAYS)
def test_a_large_download_arrives_whole_and_the_client_may_go_on_after_its_end(
    mesh: Mesh, client: str, server: str, family: int, node: str
) -> None:
    lines = len(mesh.access_lines(node))
    host, after = mesh.address(server, family), f"after {client} {family}"
    result = mesh.act(client, "download", host=host, port=PORT, bytes=TRANSFER_BYTES, after=after)
    assert isinstance(result, dict)
    assert (result["bytes"], result["received"]) == (TRANSFER_BYTES, result["sent"])
    namespace, name = server.split("/")
    arrived = f"after end: {hashlib.sha256(after.encode()).hexdigest()}"
    eventually(lambda: arrived in mesh.lab.logs(name, namespace))
    length = TRANSFER_BYTES + 32
    line = mesh.wait_for_line(node, lambda line: line.direction == "inbound" and line.bytes_sent == length, lines)
    assert not line.error


@pytest.mark.parametrize("server", ["east/server", "east/near"], ids=["across-nodes", "on-one-node"])
def test_a_port_that_nobody_listens_on_is_refused_promptly(mesh: Mesh, server: str) -> None:
    node = mesh.pod(server).node
    lines = len(mesh.access_lines(node))
    result = mesh.act("east/client", "refused", host=mesh.address(server), port=7999)
    assert isinstance(result, dict)
    assert result["outcome"] in ("ConnectionRefusedError", "ConnectionResetError", "closed")
    assert result["seconds"] < PATIENCE_SECONDS / 2
    line = mesh.wait_for_line(node, lambda line: line.direction == "inbound" and bool(line.error), lines)
    assert line.destination_workload == server.split("/")[1]
    failed = total(
        mesh.metrics(node), "istio_tcp_connections_failed_total", reporter="destination", response_flags="CONNECT"
    )
    assert failed >= 1


def test_a_service_leads_to_every_address_family(mesh: Mesh) -> None:
    for service in ("east/server", "east/near"):
        for family in (4, 6):
            answer = mesh.ask("east/client", mesh.service_address(service, family), 80)
            assert answer in mesh.pod("east/client").addresses


def test_traffic_to_a_pod_outside_of_the_mesh_goes_through_as_it_is(mesh: Mesh) -> None:
    lines = len(mesh.access_lines("node-1"))
    assert mesh.reaches("east/client", "plain/server")
    line = mesh.wait_for_line(
        "node-1", lambda line: line.direction == "outbound" and line.destination_workload == "server", lines
    )
    assert not line.destination_identity
