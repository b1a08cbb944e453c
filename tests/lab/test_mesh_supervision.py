"""Processes end, and traffic goes on or comes back."""

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import mesh as build
from tests.support.mesh import Mesh, eventually, parse_metrics, total

RECOVERY_SECONDS = 15.0


@pytest.mark.parametrize("node", ["node-1", "node-2"], ids=["of-the-client", "of-the-server"])
def test_a_ztunnel_that_is_killed_comes_back_with_its_pods(mesh: Mesh, node: str) -> None:
    name = f"ztunnel/{node}"
    before = mesh.lab.status().process(name)
    assert mesh.reaches("east/client", "east/server")
    mesh.lab.kill_process(name)
    eventually(lambda: mesh.lab.status().process(name).restarts > before.restarts, RECOVERY_SECONDS)
    eventually(lambda: mesh.reaches("east/client", "east/server"), RECOVERY_SECONDS)
    assert mesh.reaches("east/client", "east/near")
    pods = [pod for pod in mesh.status.pods if pod.enrolled and pod.node == node]
    eventually(lambda: total(mesh.metrics(node), "workload_manager_active_proxy_count") == len(pods))


def test_without_controller_traffic_goes_on_and_its_return_sends_only_what_changed(mesh: Mesh) -> None:
    deny = build.policy("while-away", "east", "DENY", build.rule({"namespaces": ["west"]}), app="server")
    mesh.lab.stop_process("controller")
    try:
        assert mesh.lab.status().process("controller").pid is None
        for _ in range(3):
            assert mesh.reaches("east/client", "east/server")
        assert mesh.reaches("west/client", "east/near")
        mesh.lab.apply(build.source(deny))
    finally:
        mesh.lab.start_process("controller")
    try:
        # What was applied meanwhile arrives: proof that both agents have their streams again.
        eventually(lambda: not mesh.reaches("west/client", "east/server"), RECOVERY_SECONDS)
        metrics = eventually(lambda: _metrics_with_clients(mesh, 2), RECOVERY_SECONDS)
        sent = total(metrics, "ambit_xds_resources_sent_total")
        served = total(metrics, "ambit_xds_resources")
        # The policy, and the one workload that it is attached to, for each of two nodes.
        assert sent <= 4 < served
    finally:
        mesh.lab.delete(build.source(deny))
    eventually(lambda: mesh.reaches("west/client", "east/server"))


def test_a_controller_that_comes_back_as_it_was_is_given_a_summary_and_sends_nothing(mesh: Mesh) -> None:
    before = len(mesh.lab.logs("controller"))
    mesh.lab.stop_process("controller")
    mesh.lab.start_process("controller")
    metrics = eventually(lambda: _metrics_with_clients(mesh, 2), RECOVERY_SECONDS)
    assert total(metrics, "ambit_xds_resources_sent_total") == 0
    opened = [line for line in mesh.lab.logs("controller")[before:].splitlines() if "subscription opened" in line]
    # Two types for each of two nodes.
    assert len([line for line in opened if "sums_up=true" in line]) == 4, opened


def test_ztunnel_takes_as_many_descriptors_as_it_may_have() -> None:
    with _descriptors_limited_to(1024), build.standing("limited", build.namespace("empty"), nodes=1) as mesh:
        limits = Path(f"/proc/{mesh.status.process('ztunnel/node-1').pid}/limits").read_text()
    (line,) = (line for line in limits.splitlines() if line.startswith("Max open files"))
    soft, hard = line.split()[3:5]
    assert soft == hard


@contextmanager
def _descriptors_limited_to(most: int) -> Iterator[None]:
    """What an ordinary user's programs start with."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _metrics_with_clients(mesh: Mesh, count: int) -> list[build.Sample]:
    """The controller's metrics once so many agents are connected; empty before."""
    try:
        found = parse_metrics(mesh.fetch("controller", "http://127.0.0.1:15014/metrics"))
    except (AssertionError, subprocess.SubprocessError):
        return []
    return found if total(found, "pilot_xds") == count else []
