"""A connection that nobody took goes to another endpoint of its service, once, and only before a byte was sent."""

from mesh.wire import workload_pb2 as pb
from tests.support.chosen_mesh import ChosenMesh, Pod, Ztunnel, chosen_mesh
from tests.support.chosen_resources import endpoint_of, service
from tests.support.isolation import isolated
from tests.support.mesh import total

VIP = "203.0.113.1"
PORT = 8080
ATTEMPTS = 20


def build(mesh: ChosenMesh, *dead: str, alive: str = "", plain: bool = False) -> tuple[Pod, Ztunnel]:
    """A client, and a service of endpoints of which only `alive` has anybody that listens."""
    client = mesh.add_pod("client")
    web = service("web", VIP, {80: PORT})
    workloads = [endpoint_of(mesh.add_proxy(name).workload(), web) for name in dead]
    if alive:
        server = mesh.add_proxy(alive) if plain else mesh.add_pod(alive, node="node-2")
        server.serve(PORT)
        workloads.append(endpoint_of(server.workload(), web))
    for workload in workloads if plain else ():
        workload.tunnel_protocol = pb.NONE
    mesh.tell(client.workload(), *workloads, web)
    near = mesh.start_ztunnel()
    if alive and not plain:
        mesh.start_ztunnel("node-2")
    return client, near


def assert_all_are_served(client: Pod, near: Ztunnel) -> None:
    # Each begins at the dead one with a chance of a half: none of so many once in a million times.
    assert {client.ask(VIP, 80).server for _ in range(ATTEMPTS)} == {"alive"}
    line = near.wait_for_line(lambda line: bool(line.error))
    assert (line.destination_workload, line.bytes_sent) == ("dead", 0)
    assert f"cannot connect to {line.destination}" in line.error
    taken = near.wait_for_line(lambda line: not line.error and line.destination_workload == "alive")
    assert line.error.endswith(f"; trying {taken.destination} instead")
    metrics = near.metrics()
    failed = total(metrics, "istio_tcp_connections_failed_total", reporter="source")
    assert failed == total(metrics, "istio_tcp_connections_failed_total", response_flags="CONNECT") > 0
    alive = total(metrics, "istio_tcp_connections_closed_total", destination_workload="alive", response_flags="-")
    assert alive == ATTEMPTS


@isolated
def test_an_endpoint_without_a_ztunnel_is_gone_round() -> None:
    with chosen_mesh() as mesh:
        client, near = build(mesh, "dead", alive="alive")
        assert_all_are_served(client, near)


@isolated
def test_an_endpoint_outside_of_the_mesh_that_does_not_listen_is_gone_round() -> None:
    with chosen_mesh() as mesh:
        client, near = build(mesh, "dead", alive="alive", plain=True)
        assert_all_are_served(client, near)


@isolated
def test_no_more_than_one_other_is_tried() -> None:
    with chosen_mesh() as mesh:
        client, near = build(mesh, "dead-1", "dead-2", "dead-3")
        assert client.ask(VIP, 80).error == "ConnectionResetError"
        near.wait_for_line(lambda line: bool(line.error) and "instead" not in line.error)
        lines = near.access_lines()
        assert len(lines) == 2
        assert lines[0].destination != lines[1].destination
        assert lines[0].error.endswith(f"; trying {lines[1].destination} instead")


@isolated
def test_a_pod_that_was_dialled_itself_has_no_other() -> None:
    with chosen_mesh() as mesh:
        client, dead = mesh.add_pod("client"), mesh.add_proxy("dead")
        mesh.tell(client.workload(), dead.workload())
        near = mesh.start_ztunnel()
        assert client.ask(dead.address, PORT).error == "ConnectionResetError"
        near.wait_for_line(lambda line: line.error.startswith("cannot connect to"))
        assert len(near.access_lines()) == 1
