"""Running a command in a pod behaves as running it here."""

import os
import pty
import signal
import subprocess
from collections.abc import Iterator

import pytest

from ambit.lab.client import Lab
from mesh.kit.errors import AmbitError
from tests.support import labs
from tests.support.command_line import COMMAND
from tests.support.labs import eventually


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with labs.run_folder() as settings, Lab.up([labs.as_source(labs.ONE_POD)], settings=settings) as lab:
        yield lab


def test_streams_and_status_are_the_commands(lab: Lab) -> None:
    answer = lab.exec("idle", "sh", "-c", "cat; echo wrong >&2; exit 7", stdin=b"given")
    assert (answer.stdout, answer.stderr, answer.returncode) == ("given", "wrong\n", 7)


def test_signal_is_reported_as_a_shell_does(lab: Lab) -> None:
    assert lab.exec("idle", "sh", "-c", "kill -TERM $$").returncode == 128 + signal.SIGTERM


def test_program_that_does_not_exist_is_127(lab: Lab) -> None:
    answer = lab.exec("idle", "no-such-program")
    assert answer.returncode == 127
    assert "no-such-program: no such program" in answer.stderr


def test_program_that_may_not_run_is_126(lab: Lab) -> None:
    assert lab.exec("idle", "/etc/hostname").returncode == 126


def test_unknown_pod_is_refused(lab: Lab) -> None:
    with pytest.raises(AmbitError, match="there is no pod 'nobody' in namespace 'default'"):
        lab.exec("nobody", "true")


def test_command_that_takes_too_long_is_killed(lab: Lab) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        lab.exec("idle", "sh", "-c", "sleep 4001 & sleep 4001", timeout=0.3)
    assert eventually(lambda: not _is_running("4001"))


def test_command_ends_with_its_client(lab: Lab) -> None:
    client = subprocess.Popen(
        [*COMMAND, "lab", "exec", "idle", "--", "sleep", "4002"], env=labs.environment_of(lab.settings)
    )
    with client:
        assert eventually(lambda: _is_running("4002"))
        client.kill()
    assert eventually(lambda: not _is_running("4002"))


def test_interactive_command_has_a_terminal_of_its_own(lab: Lab) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        command = [*COMMAND, "lab", "exec", "idle", "--", "sh", "-c", "tty; read x; echo got-$x"]
        os.execve(command[0], command, labs.environment_of(lab.settings))
    os.write(terminal, b"word\n")
    seen = b""
    while chunk := _read(terminal):
        seen += chunk
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert b"/dev/pts/" in seen
    assert b"got-word" in seen
    assert os.waitstatus_to_exitcode(status) == 0


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:
        return b""


def _is_running(argument: str) -> bool:
    return subprocess.run(["pgrep", "-f", f"^sleep {argument}"], capture_output=True).returncode == 0
