"""The lab that most mesh tests share: two nodes, two namespaces in the mesh, one outside of it.

    node-1: east/client east/other east/near plain/client      node-2: east/server west/client plain/server

Each test leaves it as it found it.
"""

from collections.abc import Iterator

import pytest

from tests.support import mesh
from tests.support.mesh import Mesh

OBJECTS = (
    mesh.namespace("east"),
    mesh.namespace("west"),
    mesh.namespace("plain", meshed=False),
    mesh.pod("client", "east", "node-1", "client"),
    mesh.pod("other", "east", "node-1", "other"),
    mesh.pod("near", "east", "node-1", "near"),
    mesh.pod("server", "east", "node-2", "server"),
    mesh.pod("client", "west", "node-2", "client"),
    mesh.pod("client", "plain", "node-1"),
    mesh.pod("server", "plain", "node-2"),
    mesh.service("server", "east", {"app": "server"}),
    mesh.service("near", "east", {"app": "near"}),
    mesh.service("empty", "east", {"app": "nobody"}),
    mesh.service("deaf", "east", {"app": "server"}, target=7999),
)


@pytest.fixture(scope="session", name="mesh")
def shared_mesh() -> Iterator[Mesh]:
    """The shared lab, up as long as the session lasts."""
    with mesh.standing("shared", *OBJECTS) as standing:
        yield standing
