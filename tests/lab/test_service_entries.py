"""ServiceEntries in a lab: names outside of Kubernetes are found, reached and counted by their names."""

from collections.abc import Iterator

import pytest

from tests.support import mesh
from tests.support.mesh import Document, Mesh, eventually, total

OBJECTS = (
    mesh.namespace("east"),
    mesh.namespace("plain", meshed=False),
    mesh.pod("client", "east", "node-1", "client"),
    mesh.pod("server", "east", "node-2", "server"),
    mesh.pod("server", "plain", "node-2"),
    mesh.service("server", "plain", {"app": "server"}),
)


@pytest.fixture(scope="module", name="meshed")
def standing_mesh() -> Iterator[Mesh]:
    with mesh.standing("entries", *OBJECTS) as standing:
        yield standing


def entry(host: str, port: int = 80, target: int = mesh.PORT, **spec: object) -> Document:
    ports = [{"number": port, "name": "tcp", "protocol": "TCP", "targetPort": target}]
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": host.split(".")[0], "namespace": "east"},
        "spec": {"hosts": [host], "ports": ports, **spec},
    }


def asks(meshed: Mesh, host: str) -> bool:
    return meshed.ask("east/client", host, 80) in meshed.pod("east/client").addresses


def opened(meshed: Mesh, host: str) -> float:
    return total(meshed.metrics("node-1"), "istio_tcp_connections_opened_total", destination_service=host)


def test_a_host_is_reached_by_resolving_its_endpoint(meshed: Mesh) -> None:
    endpoint = {"address": "server.plain.svc.cluster.local"}
    shop = entry("shop.example", resolution="DNS", endpoints=[endpoint], target=80)
    with meshed.applied(shop):
        before = len(meshed.access_lines("node-1"))
        assert eventually(lambda: asks(meshed, "shop.example"))
        line = meshed.wait_for_line("node-1", lambda line: line.destination_service == "shop.example", before)
        assert not line.error
        assert opened(meshed, "shop.example") == 1
    assert eventually(lambda: meshed.ask("east/client", "shop.example", 80) == "gaierror"), "its name has gone with it"


def test_a_host_that_is_served_by_pods_of_the_mesh_is_reached_through_a_tunnel(meshed: Mesh) -> None:
    inside = entry(
        "inside.example",
        location="MESH_INTERNAL",
        resolution="STATIC",
        workloadSelector={"labels": {"app": "server"}},
    )
    with meshed.applied(inside):
        before = len(meshed.access_lines("node-2"))
        assert eventually(lambda: asks(meshed, "inside.example"))
        line = meshed.wait_for_line("node-2", lambda line: line.source_workload == "client", before)
        assert line.source_identity == "spiffe://cluster.local/ns/east/sa/client"
        assert line.destination_service == "inside.example"


def test_a_host_with_an_address_of_its_own_is_passed_through_and_counted(meshed: Mesh) -> None:
    address = meshed.address("plain/server")
    fixed = entry("fixed.example", mesh.PORT, addresses=[address], resolution="NONE")
    with meshed.applied(fixed):
        answer = eventually(lambda: meshed.ask("east/client", "fixed.example"))
        assert answer in meshed.pod("east/client").addresses


def test_endpoints_with_addresses_share_by_weight(meshed: Mesh) -> None:
    east, plain = meshed.address("east/server"), meshed.address("plain/server")
    both = entry(
        "both.example",
        resolution="STATIC",
        endpoints=[{"address": east, "weight": 1}, {"address": plain, "weight": 1}],
    )
    with meshed.applied(both):
        assert eventually(lambda: asks(meshed, "both.example"))
        before = len(meshed.access_lines("node-1"))
        assert set(meshed.sweep("east/client", [("both.example", 80)] * 20)) <= set(meshed.pod("east/client").addresses)
        lines = [line for line in meshed.access_lines("node-1")[before:] if line.destination_service == "both.example"]
        assert {line.destination.rsplit(":", 1)[0] for line in lines} == {east, plain}


def test_a_service_without_selector_is_served_by_its_endpoint_slice(meshed: Mesh) -> None:
    bare: Document = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "bare", "namespace": "east"},
        "spec": {"ports": [{"name": "tcp", "port": 80}]},
    }
    endpoints: Document = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "bare-1", "namespace": "east", "labels": {"kubernetes.io/service-name": "bare"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [meshed.address("plain/server")]}],
        "ports": [{"name": "tcp", "port": mesh.PORT}],
    }
    with meshed.applied(bare, endpoints):
        before = len(meshed.access_lines("node-1"))
        assert eventually(lambda: asks(meshed, "bare"))
        line = meshed.wait_for_line("node-1", lambda line: line.destination_service.startswith("bare."), before)
        assert line.destination == f"{meshed.address('plain/server')}:{mesh.PORT}"
