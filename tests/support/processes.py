"""Programs beside a test, that end with it whatever happens."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

PATIENCE_SECONDS = 15.0


def start_process(
    command: list[str], log_file: Path, environment: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """Start a program whose output goes to `log_file`, added to what is there. It dies with the test's process."""
    given = {"PATH": os.defpath, "HOME": str(log_file.parent), **(environment or {})}
    with log_file.open("ab") as log:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *command],
            env=given,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def end_process(process: "subprocess.Popen[bytes] | subprocess.Popen[str]") -> None:
    """Ask it to end, and make it when it does not. Does nothing to one that has ended."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
