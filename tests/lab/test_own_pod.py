"""ztunnel as a pod of the mesh: its metrics are scraped through a tunnel to itself (ztunnel.md 6.8)."""

import subprocess
from ipaddress import ip_address

from mesh import ports
from mesh.wire import authorization_pb2 as security
from mesh.wire import workload_pb2 as pb
from tests.support.chosen_mesh import Ztunnel, chosen_mesh
from tests.support.isolation import isolated
from tests.support.mesh import parse_metrics, total

NAMES = {"POD_NAMESPACE": "mesh-system", "POD_NAME": "ztunnel-x", "SERVICE_ACCOUNT": "ztunnel"}


def own_workload(ztunnel: Ztunnel) -> pb.Workload:
    """What xDS says of a ztunnel's own pod."""
    return pb.Workload(
        uid="Kubernetes//Pod/mesh-system/ztunnel-x",
        name="ztunnel-x",
        namespace="mesh-system",
        addresses=[ip_address(address).packed for address in ztunnel.host.addresses],
        tunnel_protocol=pb.HBONE,
        service_account="ztunnel",
        node=ztunnel.host.name,
        canonical_name="ztunnel",
        workload_name="ztunnel",
    )


@isolated
def test_metrics_are_scraped_through_the_mesh_and_policies_hold_there_too() -> None:
    with chosen_mesh() as mesh:
        scraper = mesh.add_pod("scraper")
        mesh.tell(scraper.workload())
        mesh.start_ztunnel()
        far = mesh.start_ztunnel("node-2", **NAMES)
        mesh.tell(own_workload(far))
        url = f"http://{far.host.address}:{ports.ZTUNNEL_METRICS_PORT}/metrics"
        command = ["curl", "--silent", "--show-error", "--fail", "--max-time", "10", url]
        page = scraper.execute(*command)
        labels = {"source_workload": "scraper", "destination_workload": "ztunnel"}
        # The page tells of the very connection that it came through.
        assert total(parse_metrics(page), "istio_tcp_connections_opened_total", **labels) == 1
        line = far.wait_for_line(lambda line: line.direction == "inbound")
        assert (line.source_identity, line.destination_identity, line.error) == (
            scraper.identity,
            "spiffe://cluster.local/ns/mesh-system/sa/ztunnel",
            "",
        )
        # Whatever else listens beside it is not served.
        far.host.serve(8080)
        assert scraper.ask(far.host.address, 8080).error == "ConnectionResetError"
        far.wait_for_line(lambda line: "only ports [15020, 15021] of ztunnel itself" in line.error)
        deny = security.Authorization(
            name="deny",
            namespace="mesh-system",
            scope=security.NAMESPACE,
            action=security.DENY,
            rules=[security.Rule(clauses=[])],
        )
        mesh.tell(deny)
        done = subprocess.run(scraper.command(*command), capture_output=True, check=False, timeout=30)
        assert done.returncode != 0
        assert (
            "mesh-system/deny" in far.wait_for_line(lambda line: "denied" in line.error or "/deny" in line.error).error
        )


@isolated
def test_without_names_ztunnel_is_no_pod() -> None:
    with chosen_mesh() as mesh:
        mesh.tell(mesh.add_pod("somebody").workload())
        ztunnel = mesh.start_ztunnel()
        listening = ztunnel.host.execute("ss", "--tcp", "--listening", "--numeric", "--no-header")
        assert f":{ports.ZTUNNEL_METRICS_PORT} " in listening
        assert f":{ports.HBONE_PORT} " not in listening
