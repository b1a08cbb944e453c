"""Pods find services by their names: in the mesh by their ztunnel, outside of it by the lab's name server."""

from collections.abc import Iterator

import pytest

from ambit.lab.client import Lab
from tests.support import mesh
from tests.support.mesh import total

LOOK_UP = "import socket, sys; print(*sorted({found[4][0] for found in socket.getaddrinfo(sys.argv[1], 80)}))"
MANY = 40
"""Pods of a headless service: their addresses need more than the 512 bytes of a datagram."""


@pytest.fixture(scope="module", name="meshed")
def standing_mesh() -> Iterator[mesh.Mesh]:
    objects = (
        mesh.namespace("east"),
        mesh.namespace("plain", meshed=False),
        mesh.pod("client", "east", "node-1", "client"),
        mesh.pod("server", "east", "node-2", "server"),
        mesh.pod("client", "plain", "node-1"),
        mesh.service("server", "east", {"app": "server"}),
    )
    with mesh.standing("names", *objects) as standing:
        yield standing


def idle_pod(name: str) -> mesh.Document:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "east", "labels": {"app": "many"}},
        "spec": {"nodeName": "node-1", "containers": [{"name": "idle", "command": ["sleep", "infinity"]}]},
    }


def look_up(lab: Lab, namespace: str, name: str) -> list[str]:
    """The addresses that the C library of a program in the client's pod finds."""
    found = lab.exec("client", "python3", "-c", LOOK_UP, name, namespace=namespace)
    return found.stdout.split()


@pytest.mark.parametrize("name", ["server", "server.east", "server.east.svc", "server.east.svc.cluster.local"])
def test_a_pod_of_the_mesh_finds_a_service_by_every_form_of_its_name(meshed: mesh.Mesh, name: str) -> None:
    before = total(meshed.metrics("node-1"), "istio_dns_requests_total")
    addresses = meshed.lab.status().service("server", "east").addresses
    assert look_up(meshed.lab, "east", name) == sorted(addresses)
    assert total(meshed.metrics("node-1"), "istio_dns_requests_total") > before, "its ztunnel was not asked"


@pytest.mark.parametrize("name", ["server.east", "server.east.svc.cluster.local"])
def test_a_pod_outside_of_the_mesh_finds_services_too(meshed: mesh.Mesh, name: str) -> None:
    addresses = meshed.lab.status().service("server", "east").addresses
    assert look_up(meshed.lab, "plain", name) == sorted(addresses)
    assert look_up(meshed.lab, "plain", "server") == [], "it is a name of another namespace"


@pytest.mark.parametrize("client", ["east", "plain"])
def test_a_name_that_leads_nowhere_is_told_at_once(meshed: mesh.Mesh, client: str) -> None:
    answer = meshed.lab.exec("client", "python3", "-c", LOOK_UP, "nobody.example", namespace=client, timeout=4.0)
    assert "Name or service not known" in answer.stderr


def test_a_request_by_name_goes_through_the_mesh(meshed: mesh.Mesh) -> None:
    before = len(meshed.access_lines("node-2"))
    assert meshed.ask("east/client", "server", 80) in meshed.pod("east/client").addresses
    line = meshed.wait_for_line("node-2", lambda line: line.source_workload == "client", before)
    assert line.source_identity == "spiffe://cluster.local/ns/east/sa/client"


@pytest.mark.parametrize("client", ["east", "plain"])
def test_a_headless_service_is_found_by_its_pods_and_by_no_name_when_it_is_gone(meshed: mesh.Mesh, client: str) -> None:
    headless: mesh.Document = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "many", "namespace": "east"},
        "spec": {"clusterIP": "None", "selector": {"app": "many"}, "ports": [{"port": 80}]},
    }
    with meshed.applied(*(idle_pod(f"many-{number}") for number in range(MANY)), headless):
        status = meshed.lab.status()
        addresses = [ip for number in range(MANY) for ip in status.pod(f"many-{number}", "east").addresses]
        assert mesh.eventually(lambda: look_up(meshed.lab, client, "many.east") == sorted(addresses))
    assert mesh.eventually(lambda: look_up(meshed.lab, client, "many.east") == [])
