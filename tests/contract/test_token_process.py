"""`ambit token` beside a running controller."""

import json
from pathlib import Path
from subprocess import CompletedProcess

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.command_line import run_ambit
from tests.support.controller_process import ControllerProcess, build_csr, create_certificate

IDENTITY = "spiffe://cluster.local/ns/demo/sa/default"
POD = """apiVersion: v1
kind: Pod
metadata: {name: web, namespace: demo}
spec: {nodeName: node-9, serviceAccountName: default}
"""


def ambit(file: Path, *arguments: str) -> CompletedProcess[str]:
    return run_ambit("token", *arguments, "-f", str(file))


def ask(controller: ControllerProcess, token: str) -> None:
    with controller.connect() as channel:
        csr = build_csr(ec.generate_private_key(ec.SECP256R1()), IDENTITY)
        create_certificate(channel, token, csr, IDENTITY)


def test_a_node_joins_and_is_cut_off_while_the_controller_runs(tmp_path: Path) -> None:
    with ControllerProcess(tmp_path) as controller:
        controller.write("pod.yaml", POD)
        controller.start()
        created = ambit(controller.tokens, "create", "node-9")
        assert created.returncode == 0, created.stderr
        token = created.stdout.strip()
        ask(controller, token)
        listed = json.loads(ambit(controller.tokens, "list", "-o", "json").stdout)
        assert [each["node"] for each in listed] == ["node-1", "node-2", "node-9"]
        assert token not in controller.tokens.read_text()
        assert "node-9" in ambit(controller.tokens, "list").stdout
        revoked = ambit(controller.tokens, "revoke", "node-9", "--id", listed[2]["id"])
        assert revoked.returncode == 0, revoked.stderr
        with pytest.raises(grpc.RpcError) as refusal:
            ask(controller, token)
        assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED
        again = ambit(controller.tokens, "revoke", "node-9")
        assert again.returncode == 1
        assert "node-9 has no token" in again.stderr
    controller.tokens.write_text("node-1 secret\n")
    broken = ambit(controller.tokens, "list")
    assert (broken.returncode, "secret" in broken.stderr) == (1, False)
    assert f"{controller.tokens}: line 1" in " ".join(broken.stderr.split())
    unusable = ambit(tmp_path, "create", "node-9")
    assert unusable.returncode == 1
    assert f"cannot use {tmp_path}" in " ".join(unusable.stderr.split())
