"""The lab's part in the mesh: enrolment before the first instruction, supervision, nothing readable between nodes."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambit.lab.client import Lab
from tests.support import labs
from tests.support.command_line import COMMAND
from tests.support.labs import as_source, eventually

MESHED = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: default, labels: {{istio.io/dataplane-mode: ambient}}}}
---
{labs.TWO_NODES}
"""

LATE_POD = """
apiVersion: v1
kind: Pod
metadata: {name: late}
spec: {nodeName: node-1, containers: [{name: idle, command: [sleep, infinity]}]}
"""

OUTSIDE_POD = """
apiVersion: v1
kind: Pod
metadata: {name: outsider, namespace: outside}
spec: {nodeName: node-1, containers: [{name: idle, command: [sleep, infinity]}]}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with labs.run_folder() as settings, Lab.up([as_source(MESHED)], settings=settings) as lab:
        yield lab


def fetch(lab: Lab, client: str, path: str = "/", namespace: str = "default") -> bool:
    url = f"http://{lab.status().service('web').addresses[0]}{path}"
    return lab.exec(client, "curl", "-sS", "-m", "2", "-o", "/dev/null", url, namespace=namespace).returncode == 0


def test_pods_of_the_mesh_are_enrolled_when_up_returns(lab: Lab) -> None:
    assert lab.warnings == []
    assert {(pod.name, pod.enrolled) for pod in lab.status().pods} == {("server", True), ("near", True), ("far", True)}
    assert "redirect to :15006" in lab.rules("server")


def test_what_a_meshed_client_sends_cannot_be_read_between_the_nodes(lab: Lab, tmp_path: Path) -> None:
    with lab.capture(tmp_path / "underlay.pcap"):
        assert fetch(lab, "far", "/marker-in-the-mesh")
    recorded = (tmp_path / "underlay.pcap").read_bytes()
    assert b"marker-in-the-mesh" not in recorded
    assert b"marker-in-the-mesh" in lab.logs("server").encode()


def test_pod_of_the_mesh_waits_while_its_agent_is_down(lab: Lab) -> None:
    lab.stop_process("cni/node-1")
    lab.apply(as_source(LATE_POD), as_source(OUTSIDE_POD), wait=False)
    assert eventually(lambda: lab.status().pod("outsider", "outside").ready), "it does not need the agent"
    late = lab.status().pod("late")
    assert (late.phase, late.ready, late.message) == ("Pending", False, "waiting for the agent of node-1")
    lab.start_process("cni/node-1")
    assert eventually(lambda: lab.status().pod("late").ready)
    assert eventually(lambda: lab.status().pod("late").enrolled)
    assert fetch(lab, "late")
    lab.delete(as_source(LATE_POD), as_source(OUTSIDE_POD))


def command(lab: Lab, *arguments: str) -> str:
    """What the command line prints."""
    environment = labs.environment_of(lab.settings)
    words = [*COMMAND, *arguments]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def open_connections(lab: Lab) -> set[tuple[str, str, str]]:
    """Node, pod and direction of each open connection."""
    dumps = json.loads(command(lab, "ztunnel-config", "connections", "-o", "json"))
    return {
        (node, state["info"]["name"], direction)
        for node, states in dumps.items()
        for state in states.values()
        for direction, connections in state["connections"].items()
        if connections
    }


def test_an_open_connection_is_shown_by_both_ztunnels(lab: Lab) -> None:
    server = lab.status().pod("server").addresses[0]
    wait = f"import socket; s = socket.create_connection(('{server}', 8080)); s.sendall(b'G'); s.recv(1)"
    expected = {("node-2", "far", "outbound"), ("node-1", "server", "inbound")}
    with lab.start("far", "python3", "-c", wait):
        assert eventually(lambda: open_connections(lab) == expected)
        assert "HBONE" in command(lab, "ztunnel-config", "connections", "--node", "node-2")
    assert eventually(lambda: not open_connections(lab))


def test_log_levels_of_one_node_change_and_are_put_back(lab: Lab) -> None:
    changed = command(lab, "ztunnel-log", "--node", "node-1", "--level", "access=debug")
    assert changed == "node-1: current log level is info,access=debug\n"
    assert "node-2: current log level is info\n" in command(lab, "ztunnel-log")
    assert "node-1: current log level is info\n" in command(lab, "ztunnel-log", "--reset")


@pytest.mark.parametrize("name", ["ztunnel/node-1", "cni/node-1"])
def test_killed_process_is_restarted_and_its_pods_work_again(lab: Lab, name: str) -> None:
    before = lab.status().process(name)
    lab.kill_process(name)
    assert eventually(lambda: lab.status().process(name).restarts == before.restarts + 1)
    assert eventually(lambda: lab.status().process(name).pid not in (None, before.pid))
    assert eventually(lambda: lab.status().pod("server").enrolled)
    assert eventually(lambda: fetch(lab, "far"))


def test_traffic_goes_on_without_the_controller(lab: Lab) -> None:
    assert eventually(lambda: fetch(lab, "far"))
    lab.stop_process("controller")
    assert lab.status().process("controller").state == "stopped"
    assert fetch(lab, "far")
    lab.start_process("controller")
    assert eventually(lambda: lab.status().process("controller").state == "running")


def test_label_moves_running_pods_out_of_the_mesh_and_back(lab: Lab) -> None:
    namespace = "{{apiVersion: v1, kind: Namespace, metadata: {{name: default, labels: {{{}}}}}}}"
    lab.apply(as_source(namespace.format("")))
    assert not any(pod.enrolled for pod in lab.status().pods)
    assert lab.apply(as_source(namespace.format("istio.io/dataplane-mode: ambient"))).warnings == []
    assert all(pod.enrolled for pod in lab.status().pods)
    assert eventually(lambda: fetch(lab, "far"))
