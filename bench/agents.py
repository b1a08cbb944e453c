"""Many agents in one process (dataplane/io/examples/agents.rs).

They are streams of ztunnel's own discovery client, which count and acknowledge what they are told.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.effort import report_progress
from bench.report import BenchError
from tests.support.controller_process import REPOSITORY


def build_program() -> str:
    """The agents' program, built if it is not; raises BenchError with what the compiler said."""
    report_progress("building the simulated agents")
    manifest = ["--manifest-path", str(REPOSITORY / "dataplane" / "Cargo.toml")]
    command = [str(REPOSITORY / "tools" / "with-rust"), "cargo", "build", "--release", "--locked", *manifest]
    command += ["-p", "ambit-io", "--example", "agents", "--message-format", "json-render-diagnostics"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise BenchError("the simulated agents could not be built; what cargo said stands above")
    built = [json.loads(line) for line in done.stdout.splitlines()]
    [found] = [each["executable"] for each in built if each.get("executable")]
    return str(found)


class Agents:
    """The running program."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def send(self, command: str) -> None:
        """Give it a command."""
        assert self._process.stdin
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def wait(self, word: str) -> dict[str, float]:
        """Its next answer that has this word; raises BenchError when it is an error."""
        assert self._process.stdout
        for line in self._process.stdout:
            found: dict[str, float] = json.loads(line)
            if "error" in found:
                raise BenchError(f"a simulated agent failed: {found['error']}")
            if word in found:
                return found
        raise BenchError("the simulated agents have ended")


@contextmanager
def running_agents(
    program: str, address: str, root: Path, tokens: Path, count: int, server_name: str = ""
) -> Iterator[Agents]:
    """So many agents of the controller at `address` (`HOST:PORT`), not connected yet.

    `root` is the file of the certificate that it is trusted by, for `server_name` where that is not `address`; the
    token of the agent N is the file N of `tokens`.
    """
    command = [program, f"https://{address}", str(root), str(tokens), str(count)]
    command += [server_name] if server_name else []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Agents(process)
        finally:
            process.kill()
