"""The fixture itself: a mesh in a state of the test's choosing carries traffic, and tells of it."""

from mesh.wire import workload_pb2 as pb
from tests.support.chosen_mesh import chosen_mesh
from tests.support.chosen_resources import endpoint_of, service
from tests.support.isolation import isolated
from tests.support.mesh import total


@isolated
def test_a_service_of_chosen_state_is_reached_across_two_nodes() -> None:
    with chosen_mesh() as mesh:
        client, server = mesh.add_pod("client"), mesh.add_pod("server", node="node-2")
        web = service("web", "203.0.113.1", {80: 8080})
        mesh.tell(client.workload(), endpoint_of(server.workload(), web), web)
        near, far = mesh.start_ztunnel(), mesh.start_ztunnel("node-2")
        server.serve(8080)
        answer = client.ask("203.0.113.1", 80)
        assert (answer.server, answer.client, answer.text) == ("server", client.address, "hello"), answer
        line = near.wait_for_line(lambda line: line.direction == "outbound")
        assert (line.destination_service, line.destination_identity) == (web.hostname, server.identity)
        assert far.wait_for_line(lambda line: line.direction == "inbound").source_identity == client.identity
        assert total(near.metrics(), "istio_tcp_connections_opened_total", reporter="source") == 1


@isolated
def test_what_a_ztunnel_refuses_is_said() -> None:
    with chosen_mesh() as mesh:
        client = mesh.add_pod("client")
        mesh.tell(client.workload())
        mesh.start_ztunnel()
        legacy = client.workload()
        legacy.uid, legacy.tunnel_protocol = "another", pb.LEGACY_ISTIO_MTLS
        (refused,) = mesh.offer(legacy)
        assert "another" in refused["error"]
