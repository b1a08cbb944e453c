"""`ambit certificates revoke` in a lab: what it names is refused within seconds, and nothing else."""

import json
import subprocess

from mesh import ports
from tests.support import mesh as objects
from tests.support.command_line import COMMAND
from tests.support.labs import environment_of
from tests.support.mesh import Mesh, eventually, standing, total

CLIENT = "spiffe://cluster.local/ns/east/sa/client"


def find_serial(mesh: Mesh, node: str, identity: str) -> str:
    dump = json.loads(mesh.fetch(f"ztunnel/{node}", f"http://127.0.0.1:{ports.ZTUNNEL_ADMIN_PORT}/config_dump"))
    [found] = [each for each in dump["certificates"] if each["identity"] == identity]
    return str(found["certChain"][0]["serialNumber"])


def revoke(mesh: Mesh, serial: str) -> None:
    state = str(mesh.lab.folder.mesh.controller_state)
    command = [*COMMAND, "certificates", "revoke", serial, "--state-dir", state]
    subprocess.run(command, check=True, timeout=30, env=environment_of(mesh.lab.settings))


def test_a_revoked_client_is_refused_and_others_are_not() -> None:
    given = (
        objects.namespace("east"),
        objects.pod("client", "east", "node-1", "client"),
        objects.pod("other", "east", "node-1", "other"),
        objects.pod("server", "east", "node-2", "server"),
    )
    with standing("revoked", *given) as mesh:
        assert mesh.reaches("east/client", "east/server")
        assert mesh.reaches("east/other", "east/server")
        revoke(mesh, find_serial(mesh, "node-1", CLIENT))
        eventually(lambda: not mesh.reaches("east/client", "east/server"))
        assert mesh.reaches("east/other", "east/server")
        line = mesh.wait_for_line("node-1", lambda line: bool(line.error))
        assert line.source_identity == CLIENT
        assert total(mesh.metrics("node-2"), "istio_crl_policy_rejections_total", reporter="destination") > 0
