"""A mesh of more workloads than fit into gRPC's usual 4 MiB, through a reconnect."""

import re
from collections.abc import Iterator
from ipaddress import IPv4Address

from mesh.wire import workload_pb2 as pb
from tests.support.chosen_mesh import Ztunnel, chosen_mesh
from tests.support.isolation import isolated
from tests.support.mesh import eventually, total

PORT = 8080
WORKLOADS = 60_000
GRPC_DEFAULT_BYTES = 4 << 20
FIRST_ADDRESS = IPv4Address("10.0.0.1")
UPDATE = re.compile(r"state updated\t.*accepted=\"(\d+)\".*type=\"[^\"]*Address\"")


def workloads() -> Iterator[pb.Workload]:
    for number in range(WORKLOADS):
        yield pb.Workload(
            uid=f"Kubernetes//Pod/somewhere/deployment-{number // 10}-5f6c7d8e9b-{number:05}",
            name=f"deployment-{number // 10}-5f6c7d8e9b-{number:05}",
            namespace="somewhere",
            addresses=[(FIRST_ADDRESS + number).packed],
            tunnel_protocol=pb.HBONE,
            node="elsewhere",
        )


def updates(ztunnel: Ztunnel) -> list[int]:
    """How many addresses each response brought."""
    return [int(count) for count in UPDATE.findall(ztunnel.log())]


@isolated
def test_sixty_thousand_workloads_come_once_and_stay_through_a_reconnect() -> None:
    with chosen_mesh() as mesh:
        client, server = mesh.add_pod("client"), mesh.add_pod("server", node="node-2")
        mesh.tell(client.workload(), server.workload(), *workloads())
        near = mesh.start_ztunnel(RUST_LOG="info,xds=debug")
        mesh.start_ztunnel("node-2")
        server.serve(PORT)
        assert client.ask(server.address, PORT).server == "server"
        assert sum(updates(near)) == WORKLOADS + 2
        before = len(updates(near))
        mesh.reconnect()
        late = server.workload()
        late.uid, late.name, late.addresses[0] = f"{late.uid}-late", "late", (FIRST_ADDRESS + WORKLOADS).packed
        mesh.tell(late)
        eventually(lambda: sum(updates(near)[before:]) > 0)
        assert sum(updates(near)[before:]) == 1, "the versions of all others came along: only what is new is sent"
        assert near.log().count("connected to the controller") == 2
        assert "no stream to the controller" in near.log()
        assert client.ask(server.address, PORT).server == "server"
        metrics = near.metrics()
        assert total(metrics, "istio_xds_connection_terminations_total", reason="Error") == 1
        address = "type.googleapis.com/istio.workload.Address"
        assert total(metrics, "istio_xds_message_total", url=address) == len(updates(near))
        assert total(metrics, "istio_xds_message_bytes_total", url=address) > GRPC_DEFAULT_BYTES
        assert not [line for line in near.access_lines() if line.error]
