"""A mesh that is discovered on demand: a ztunnel knows its own node's pods, and asks for what they connect to."""

import json
from collections.abc import Iterator

import pytest

from ambit.lab.client import Lab
from tests.support.labs import run_folder
from tests.support.mesh import Document, Mesh, eventually, namespace, pod, service, source

ON_DEMAND: Document = {
    "apiVersion": "ambit.dev/v1alpha1",
    "kind": "Lab",
    "metadata": {"name": "demand"},
    "spec": {
        "nodes": [{"name": "node-1"}, {"name": "node-2"}],
        "ztunnel": {"env": {"XDS_ON_DEMAND": "true", "ISTIO_META_DNS_CAPTURE": "false"}},
    },
}

OBJECTS = (
    ON_DEMAND,
    namespace("east"),
    namespace("plain", meshed=False),
    pod("client", "east", "node-1", "client"),
    pod("server", "east", "node-2", "server"),
    pod("other", "east", "node-2", "other"),
    pod("outside", "plain", "node-2"),
    service("server", "east", {"app": "server"}),
    service("late", "east", {"app": "late"}),
)


@pytest.fixture(name="mesh")
def standing_mesh() -> Iterator[Mesh]:
    with run_folder() as settings, Lab.up([source(*OBJECTS)], "demand", settings=settings) as up:
        yield Mesh(up, up.status())


def known(mesh: Mesh, kind: str) -> set[str]:
    """The names of what the client's ztunnel knows."""
    dump = json.loads(mesh.fetch("ztunnel/node-1", "http://127.0.0.1:15000/config_dump"))
    return {each["name"] for each in dump[kind]}


def test_what_is_connected_to_is_asked_for_and_nothing_else(mesh: Mesh) -> None:
    assert known(mesh, "workloads") == {"client"}
    assert known(mesh, "services") == set()
    assert mesh.ask("east/client", mesh.service_address("east/server"), 80) in mesh.pod("east/client").addresses
    assert known(mesh, "services") == {"server"}
    assert known(mesh, "workloads") == {"client", "server"}
    line = mesh.wait_for_line("node-2", lambda line: line.source_workload == "client")
    assert line.source_identity == "spiffe://cluster.local/ns/east/sa/client", "the first connection was plaintext"
    assert mesh.reaches("east/client", "east/other")
    assert known(mesh, "workloads") == {"client", "server", "other"}
    assert mesh.reaches("east/client", "plain/outside"), "what is outside of the mesh is reached as it is"


def test_what_was_asked_for_is_followed_also_by_a_controller_that_comes_back(mesh: Mesh) -> None:
    address = mesh.service_address("east/late")
    assert mesh.ask("east/client", address, 80) not in mesh.pod("east/client").addresses, "nobody serves it"
    mesh.lab.stop_process("controller")
    mesh.lab.start_process("controller")
    mesh.lab.apply(source(pod("late", "east", "node-2", "late")))
    assert eventually(lambda: mesh.ask("east/client", address, 80) in mesh.pod("east/client").addresses)
    assert known(mesh, "workloads") == {"client", "late"}


def test_without_the_controller_what_is_known_is_served_and_nothing_else_passes(mesh: Mesh) -> None:
    assert mesh.reaches("east/client", "east/server")
    mesh.lab.stop_process("controller")
    assert mesh.reaches("east/client", "east/server")
    before = len(mesh.access_lines("node-1"))
    assert not mesh.reaches("east/client", "plain/outside"), "it may be a pod of the mesh for all that is known"
    line = mesh.wait_for_line("node-1", lambda line: "has not said" in line.error, before)
    assert mesh.address("plain/outside") in line.error
