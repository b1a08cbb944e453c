"""The command `ambit` as a user's shell runs it."""

import os
import subprocess
import sys

from tests.support.processes import PATIENCE_SECONDS

COMMAND = (sys.executable, "-m", "ambit")


def run_ambit(*arguments: str, text: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run it to its end with `text` as its input, and with nothing in its environment but PATH and `environment`."""
    return subprocess.run(
        [*COMMAND, *arguments],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=4 * PATIENCE_SECONDS,
        env={"PATH": os.defpath, **environment},
    )
