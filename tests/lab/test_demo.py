"""`ambit demo` proves its table, tells the truth when something is broken, and leaves nothing behind."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from ambit.lab.client import Lab
from ambit.lab.folder import running_labs
from ambit.lab.settings import LabSettings
from tests.support.command_line import COMMAND
from tests.support.labs import environment_of
from tests.support.mesh import PYTHON
from tests.support.unprivileged import ordinary_user

WARM_SECONDS = 60
"""It is done within 20 s on two idle cores; a test may share them."""


def run_demo(settings: LabSettings, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, "demo", *arguments],
        env=environment_of(settings) | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=WARM_SECONDS,
    )


def test_every_line_of_the_table_holds_and_nothing_is_left(settings: LabSettings) -> None:
    done = run_demo(settings, "-o", "json")
    result = json.loads(done.stdout)
    assert [row for row in result["rows"] if not row["ok"]] == []
    assert (done.returncode, result["ok"]) == (0, True)
    assert len(result["rows"]) >= 20
    assert running_labs(settings) == []
    assert not settings.run_folder.exists()


def test_without_a_working_client_the_table_says_so(settings: LabSettings, tmp_path: Path) -> None:
    (tmp_path / "python3").symlink_to(PYTHON)
    (tmp_path / "sleep").symlink_to(shutil.which("sleep") or "")
    done = run_demo(settings, "-o", "json", PATH=str(tmp_path))
    rows = {row["check"]: row for row in json.loads(done.stdout)["rows"]}
    assert done.returncode == 1
    assert not rows["across nodes, by service VIP"]["ok"]
    assert "curl" in rows["across nodes, by service VIP"]["measured"]
    assert not any(row["ok"] for check, row in rows.items() if "DENY" in check or "text" in check or "killed" in check)
    assert running_labs(settings) == []


def test_a_kept_demo_stands_and_another_is_refused_meanwhile(settings: LabSettings) -> None:
    kept = run_demo(settings, "--keep")
    assert kept.returncode == 0, kept.stdout + kept.stderr
    assert "all ok" in kept.stdout
    assert "ambit lab down" in kept.stderr
    assert running_labs(settings) == ["demo"]
    another = run_demo(settings)
    assert another.returncode == 1
    assert "already up" in another.stderr
    assert Lab.find("demo", settings).status().is_up


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
def test_an_interrupted_demo_takes_its_lab_down(settings: LabSettings, number: signal.Signals) -> None:
    command = [*COMMAND, "demo"]
    with subprocess.Popen(command, env=environment_of(settings), stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if "requests" in line:
                break
        os.kill(running.pid, number)
        running.stderr.read()
        assert running.wait(20) != 0
    assert running_labs(settings) == []
    assert not settings.run_folder.exists()


def test_the_demo_holds_without_root() -> None:
    with ordinary_user() as user:
        done = user.ambit("demo", "-o", "json")
        result = json.loads(done.stdout)
        assert [row for row in result["rows"] if not row["ok"]] == []
        assert done.returncode == 0
        assert user.labs == []
