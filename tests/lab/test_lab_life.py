"""A lab comes up, stands alone, and goes without a trace, however it ends."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from ambit.lab.client import Lab, LabError
from ambit.lab.control import BrokenConversationError
from ambit.lab.settings import LabSettings
from mesh.kit.errors import RefusedError
from tests.support import labs
from tests.support.command_line import COMMAND
from tests.support.labs import as_source, eventually

NEVER_LISTENS = """
apiVersion: v1
kind: Pod
metadata: {name: deaf}
spec: {containers: [{name: deaf, command: [sleep, infinity], ports: [{containerPort: 9}]}]}
"""


def test_status_tells_nodes_pods_services_and_processes(settings: LabSettings) -> None:
    with Lab.up([as_source(labs.TWO_NODES)], settings=settings) as lab:
        status = lab.status()
    assert (status.lab, status.is_up) == ("two", True)
    assert [node.name for node in status.nodes] == ["node-1", "node-2"]
    assert status.nodes[1].labels == {"topology.kubernetes.io/zone": "b"}
    server = status.pod("server")
    assert (server.node, server.phase, server.ready) == ("node-1", "Running", True)
    assert server.addresses == ["10.244.1.2", "fd00:10:244:1::2"]
    web = status.service("web")
    assert (web.addresses, web.endpoints) == (["10.96.0.10", "fd00:10:96::a"], 1)
    assert (web.ports[0].port, web.ports[0].target_port) == (80, 8080)
    assert {process.name for process in status.processes} == {
        "controller", "ztunnel/node-1", "ztunnel/node-2", "cni/node-1", "cni/node-2",
    }  # fmt: skip


def test_down_leaves_nothing(settings: LabSettings) -> None:
    links = labs.links_of_this_machine()
    lab = Lab.up([as_source(labs.TWO_NODES)], settings=settings)
    footprint = labs.footprint(lab)
    assert len(footprint.namespaces) >= 4, "the supervisor's, and one for each pod"
    assert labs.mounts_below(settings.run_folder) == [], "mounts of the lab are seen by nobody else"
    assert labs.links_of_this_machine() == links, "links of the lab are seen by nobody else"
    assert lab.down()
    assert footprint.has_vanished()
    assert not settings.run_folder.exists()


def test_down_twice_is_fine(settings: LabSettings) -> None:
    lab = Lab.up(settings=settings)
    assert lab.down()
    assert not lab.down()


def test_killed_supervisor_takes_everything_with_it(settings: LabSettings) -> None:
    lab = Lab.up([as_source(labs.TWO_NODES)], settings=settings)
    footprint = labs.footprint(lab)
    os.kill(footprint.supervisor, signal.SIGKILL)
    assert eventually(footprint.has_vanished)
    with pytest.raises(RefusedError, match="not running"):
        lab.status()
    assert lab.down(), "its folder was still there"
    assert not settings.run_folder.exists()


def test_lab_goes_down_under_a_capture_and_a_command(settings: LabSettings, tmp_path: Path) -> None:
    lab = Lab.up([as_source(labs.ONE_POD)], settings=settings)
    footprint = labs.footprint(lab)
    capture = lab.capture(tmp_path / "underlay.pcap")
    with (
        (tmp_path / "out").open("w+b") as out,
        lab.start("idle", "sleep", "4004", streams=(out.fileno(), out.fileno(), out.fileno())) as command,
    ):
        assert lab.down()
        assert footprint.has_vanished()
        with pytest.raises(BrokenConversationError):
            command.wait()
    with pytest.raises(BrokenConversationError):
        capture.end()


def test_up_after_a_crash_starts_afresh(settings: LabSettings) -> None:
    lab = Lab.up([as_source(labs.TWO_NODES)], settings=settings)
    os.kill(labs.footprint(lab).supervisor, signal.SIGKILL)
    with Lab.up([as_source(labs.ONE_POD)], name="two", settings=settings) as lab:
        assert [pod.name for pod in lab.status().pods] == ["idle"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_up_that_ends_half_way_leaves_nothing(settings: LabSettings, number: signal.Signals) -> None:
    up = subprocess.Popen(
        [*COMMAND, "lab", "up", "-f", "-"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=labs.environment_of(settings),
        text=True,
    )
    assert up.stdin is not None
    assert up.stderr is not None
    with up:
        up.stdin.write(NEVER_LISTENS)
        up.stdin.close()
        assert "node-1" in up.stderr.readline()
        footprint = labs.footprint(Lab("lab", settings))
        up.send_signal(number)
    assert up.returncode in (-signal.SIGKILL, 130)
    assert eventually(footprint.has_vanished)
    assert eventually(lambda: not (settings.run_folder / "lab").exists())


def test_up_twice_names_the_lab_and_the_next_step(settings: LabSettings) -> None:
    with Lab.up(name="mine", settings=settings) as lab:
        with pytest.raises(RefusedError, match=r"lab mine is already up; .*ambit lab down --lab mine"):
            Lab.up(name="mine", settings=settings)
        assert lab.status().is_up, "the lab that stands is not touched"


def test_two_labs_stand_side_by_side(settings: LabSettings) -> None:
    with (
        Lab.up([as_source(labs.TWO_NODES)], name="a", settings=settings) as first,
        Lab.up([as_source(labs.TWO_NODES)], name="b", settings=settings) as second,
    ):
        addresses = [lab.status().pod("server").addresses for lab in (first, second)]
        assert addresses[0] == addresses[1], "each has the whole address space"
        first.delete_object("pod", "server")
        url = f"http://{addresses[1][0]}:8080/"
        assert second.exec("far", "curl", "-sS", "-o", "/dev/null", url).returncode == 0
        assert first.exec("far", "curl", "-sS", "-m", "2", "-o", "/dev/null", url).returncode != 0
        with pytest.raises(RefusedError, match=r"several labs are running \(a, b\)"):
            Lab.find(settings=settings)


def test_invalid_manifest_is_refused_and_nothing_stands(settings: LabSettings) -> None:
    text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {nodeName: nowhere, containers: [{name: c}]}\n"
    with pytest.raises(LabError, match=r"test.yaml:4:\d+: Pod default/p: spec.containers\[0\].command: must be given"):
        Lab.up([as_source(text)], settings=settings)
    assert not settings.run_folder.exists()


def test_yaml_syntax_error_names_file_and_line(settings: LabSettings) -> None:
    with pytest.raises(LabError, match=r"test.yaml:2"):
        Lab.up([as_source("kind: Pod\n  bad: [\n")], settings=settings)


def test_port_that_nobody_listens_on_is_a_warning(settings: LabSettings) -> None:
    with Lab.up([as_source(NEVER_LISTENS)], settings=settings) as lab:
        assert "pod default/deaf declares port 9, but nothing listens there" in lab.warnings
