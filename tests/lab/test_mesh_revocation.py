"""Certificates that are taken back: new connections in both directions, open ones, and lists that cannot be used."""

import json
import time
from pathlib import Path

import pytest

from ambit.demo.polling import wait_for
from mesh import ports
from tests.support.chosen_mesh import ChosenMesh, Pod, Ztunnel, chosen_mesh
from tests.support.isolation import isolated
from tests.support.mesh import total
from tests.support.mesh_certificates import Authority, forge_authority, read_authority, revoke

PORT = 8080
NODES = {"client": "node-1", "server": "node-2"}


def pair(mesh: ChosenMesh, **environment: str) -> tuple[Pod, Pod, dict[str, Ztunnel]]:
    """A client and a server on two nodes. Each node has a list of its own."""
    client, server = (mesh.add_pod(name, node=node) for name, node in NODES.items())
    mesh.tell(client.workload(), server.workload())
    ztunnels = {
        name: mesh.start_ztunnel(node, CRL_PATH=str(list_of(mesh, name)), **environment) for name, node in NODES.items()
    }
    server.serve(PORT)
    return client, server, ztunnels


def list_of(mesh: ChosenMesh, name: str) -> Path:
    return mesh.folder / f"{name}-crl.pem"


def authority(mesh: ChosenMesh) -> Authority:
    return read_authority(mesh.folder / "state")


def serial(ztunnel: Ztunnel, identity: str) -> int:
    dump = json.loads(ztunnel.fetch("/config_dump", ports.ZTUNNEL_ADMIN_PORT))
    (found,) = [one for one in dump["certificates"] if one["identity"] == identity]
    return int(found["certChain"][0]["serialNumber"])


def put(path: Path, text: str) -> None:
    """Replace a file as Kubernetes does: by a symbolic link that is swapped."""
    target = path.with_name(f"{path.name}.{time.monotonic_ns()}")
    target.write_text(text)
    link = path.with_name(f"{path.name}.link")
    link.symlink_to(target)
    link.replace(path)


def rejections(ztunnel: Ztunnel, reporter: str) -> float:
    return total(ztunnel.metrics(), "istio_crl_policy_rejections_total", reporter=reporter)


@pytest.mark.parametrize(
    ("judge", "revoked", "direction", "reporter"),
    [
        pytest.param("server", "client", "inbound", "destination", id="server-refuses-client"),
        pytest.param("client", "server", "outbound", "source", id="client-refuses-server"),
    ],
)
@isolated
def test_an_open_connection_and_new_ones_end_when_the_peer_is_revoked(
    judge: str, revoked: str, direction: str, reporter: str
) -> None:
    with chosen_mesh() as mesh:
        client, server, ztunnels = pair(mesh)
        pods = {"client": client, "server": server}
        with client.connect(server.address, PORT) as held:
            held.sendall(b"hello\n")
            assert held.recv(100)
            bad = serial(ztunnels[revoked], pods[revoked].identity)
            put(list_of(mesh, judge), revoke(forge_authority(authority(mesh).certificate), bad))
            ztunnels[judge].wait_for_log("revocation lists read")
            assert client.ask(server.address, PORT).server == "server", "somebody else signed the list"
            put(list_of(mesh, judge), revoke(authority(mesh), bad))
            held.settimeout(5)
            try:
                assert held.recv(100) == b""
            except ConnectionError:
                pass
            ztunnels[judge].wait_for_log("revoked=1")
        line = ztunnels[judge].wait_for_line(lambda line: line.direction == direction and "revoked" in line.error)
        assert (line.source_address, line.source_identity) == (client.address, client.identity)
        closed = "istio_tcp_connections_closed_total"
        assert total(ztunnels[judge].metrics(), closed, reporter=reporter, response_flags="CERT_REVOKED") == 1
        before = rejections(ztunnels[judge], reporter)
        assert client.ask(server.address, PORT).error
        assert rejections(ztunnels[judge], reporter) > before
        ztunnels[judge].wait_for_log(
            "the peer's certificate is revoked" if judge == "server" else "server's certificate"
        )
        put(list_of(mesh, judge), revoke(authority(mesh)))
        assert wait_for(lambda: client.ask(server.address, PORT).server == "server", 5.0)


@isolated
def test_lists_that_cannot_be_read_refuse_everybody_until_they_can() -> None:
    with chosen_mesh() as mesh:
        list_of(mesh, "server").write_text("nonsense")
        client, server, ztunnels = pair(mesh)
        assert client.ask(server.address, PORT).error
        assert "CRL_PATH" in ztunnels["server"].wait_for_log("revocation lists cannot be used")
        assert rejections(ztunnels["server"], "destination") > 0
        put(list_of(mesh, "server"), "")
        assert wait_for(lambda: client.ask(server.address, PORT).server == "server", 5.0)
