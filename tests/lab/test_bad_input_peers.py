"""Peers that lie or do not stop: forged and ambiguous certificates, other pods' addresses, endless headers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

from ambit.demo.access_log import AccessLine
from tests.support.mesh import PORT, PYTHON, SUPPORT, Mesh, eventually
from tests.support.mesh_certificates import Credentials, build_request, forge_authority, issue, read_authority

CLIENT = "spiffe://cluster.local/ns/east/sa/client"
SERVER = "spiffe://cluster.local/ns/east/sa/server"
HEADER_LIMIT_BYTES = 1 << 30
MEMORY_MARGIN_BYTES = 4 << 20

Result = dict[str, object]


def call(mesh: Mesh, credentials: Credentials | None, **order: object) -> Result:
    """Speak HBONE to east/server by hand, from a pod outside of the mesh."""
    root = (mesh.lab.folder.mesh.controller_state / "root-cert.pem").read_text()
    given = {
        "host": mesh.address("east/server"),
        "port": 15008,
        "root": root,
        "certificate": credentials.certificate if credentials else "",
        "key": credentials.key if credentials else "",
        "authority": f"{mesh.address('east/server')}:{PORT}",
        **order,
    }
    script = str(SUPPORT / "mesh_hbone.py")
    done = mesh.lab.exec("client", PYTHON, script, namespace="plain", stdin=json.dumps(given).encode(), timeout=60)
    assert done.returncode == 0, done.stderr
    return cast(Result, json.loads(done.stdout))


@pytest.fixture
def lines(mesh: Mesh) -> int:
    """How many access lines the server's node has before the test."""
    return len(mesh.access_lines("node-2"))


def wait_for_failure(mesh: Mesh, after: int, reason: str = "") -> None:
    """Until the server's ztunnel tells of a connection of ours that failed so. Lines of earlier ones may come late."""
    client = mesh.address("plain/client")

    def is_it(line: AccessLine) -> bool:
        has_failed = line.direction == "inbound" and bool(line.error) and line.source_address == client
        return has_failed and reason in line.error

    mesh.wait_for_line("node-2", is_it, after)


def genuine(mesh: Mesh, *identities: str) -> Credentials:
    return issue(read_authority(mesh.lab.folder.mesh.controller_state), *identities)


def test_a_genuine_certificate_is_let_in(mesh: Mesh) -> None:
    """What the other tests of this file change one thing of."""
    result = call(mesh, genuine(mesh, CLIENT))
    assert (result["tls"], result["status"], result["error"]) == ("TLSv1.3", 200, "")


def test_a_forged_certificate_is_refused(mesh: Mesh, lines: int) -> None:
    forged = issue(forge_authority(read_authority(mesh.lab.folder.mesh.controller_state).certificate), CLIENT)
    result = call(mesh, forged)
    assert result["status"] == 0
    assert result["error"]
    wait_for_failure(mesh, lines, "invalid peer certificate")


@pytest.mark.parametrize(
    ("identities", "reason"),
    [
        pytest.param((CLIENT, SERVER), "several URI SANs", id="two-identities"),
        pytest.param((CLIENT, "https://example.com/"), "several URI SANs", id="another-uri"),
        pytest.param((), "no URI SAN", id="none"),
        pytest.param(("spiffe://example.com/ns/east/sa/client",), "not of trust domain", id="other-trust-domain"),
        pytest.param((f"{CLIENT}/",), "no identity of the mesh", id="trailing-slash"),
    ],
)
def test_a_certificate_without_one_identity_of_the_mesh_is_refused(
    mesh: Mesh, lines: int, identities: tuple[str, ...], reason: str
) -> None:
    result = call(mesh, genuine(mesh, *identities))
    assert result["status"] == 0
    assert result["error"]
    wait_for_failure(mesh, lines, reason)


def test_no_certificate_is_refused(mesh: Mesh, lines: int) -> None:
    result = call(mesh, None)
    assert result["status"] == 0
    assert result["error"]
    wait_for_failure(mesh, lines)


def test_another_protocol_than_http_2_is_refused(mesh: Mesh) -> None:
    assert call(mesh, genuine(mesh, CLIENT), alpn="http/1.1")["status"] == 0


@pytest.mark.parametrize("target", ["east/near", "west/client", "plain/server"])
def test_a_tunnel_to_another_pods_address_is_a_bad_request(mesh: Mesh, lines: int, target: str) -> None:
    result = call(mesh, genuine(mesh, CLIENT), authority=f"{mesh.address(target)}:{PORT}")
    assert result["status"] == 400
    wait_for_failure(mesh, lines)


@pytest.mark.parametrize(
    "authority", ["", "server", "127.0.0.1:7000", "[::1]:7000", "10.244.2.2:0", "10.244.2.2:99999"]
)
def test_an_authority_that_is_no_address_of_the_pod_is_refused(mesh: Mesh, authority: str) -> None:
    assert call(mesh, genuine(mesh, CLIENT), authority=authority)["status"] != 200


@pytest.mark.parametrize("port", [15001, 15006, 15008])
def test_a_tunnel_to_the_proxys_own_ports_is_refused(mesh: Mesh, port: int) -> None:
    result = call(mesh, genuine(mesh, CLIENT), authority=f"{mesh.address('east/server')}:{port}")
    assert result["status"] in (400, 503)


def test_an_endless_header_block_is_cut_off_within_bounded_memory(mesh: Mesh, lines: int) -> None:
    before = mesh.lab.status().process("ztunnel/node-2")
    result = call(mesh, genuine(mesh, CLIENT), endless=HEADER_LIMIT_BYTES)
    after = mesh.lab.status().process("ztunnel/node-2")
    assert result["status"] == 0
    assert cast(int, result["sent"]) < HEADER_LIMIT_BYTES / 16
    assert (after.pid, after.restarts) == (before.pid, before.restarts)
    assert (after.pss_bytes or 0) < (before.pss_bytes or 0) + MEMORY_MARGIN_BYTES
    wait_for_failure(mesh, lines, "ENHANCE_YOUR_CALM")
    assert mesh.reaches("east/client", "east/server")


def request_certificate(mesh: Mesh, token: str, identity: str) -> Result:
    order = {
        "address": "172.18.0.1:15012",
        "root": (mesh.lab.folder.mesh.controller_state / "root-cert.pem").read_text(),
        "token": token,
        "identity": identity,
        "csr": build_request(),
    }
    script = ["env", f"PYTHONPATH={SUPPORT.parents[1]}", sys.executable, "-P", "-m", "tests.support.mesh_csr"]
    done = subprocess.run(
        [*mesh.beside("controller"), *script],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return cast(Result, json.loads(done.stdout))


def node_token(mesh: Mesh, number: int) -> str:
    return (mesh.lab.folder.path / f"n{number}" / "token").read_text()


def test_an_agent_gets_identities_of_its_own_node_only(mesh: Mesh) -> None:
    assert request_certificate(mesh, node_token(mesh, 2), SERVER)["code"] == "OK"
    refused = request_certificate(mesh, node_token(mesh, 1), SERVER)
    assert refused["code"] == "PERMISSION_DENIED"
    assert "node-1" in f"{refused['details']}"
    eventually(lambda: "certificate refused" in mesh.lab.logs("controller"))


def test_an_agent_without_a_valid_token_gets_nothing(mesh: Mesh) -> None:
    assert request_certificate(mesh, "guessed", SERVER)["code"] == "UNAUTHENTICATED"


def test_tokens_and_keys_are_for_their_owner_alone(mesh: Mesh) -> None:
    folder = mesh.lab.folder
    secrets = [folder.mesh.node_tokens, folder.path / "n1" / "token", folder.mesh.controller_state / "root-key.pem"]
    assert [oct(Path(file).stat().st_mode & 0o777) for file in secrets] == ["0o600"] * 3
