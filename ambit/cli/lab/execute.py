"""`ambit lab exec`."""

import os
from typing import Annotated

import typer

from ambit.cli.lab.options import LabName, Namespace, PodName


def execute(
    pod: PodName,
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", show_default=False)],
    namespace: Namespace = "default",
    lab: LabName = None,
) -> None:
    """Run a command in a pod, on this terminal or pipe; the exit status is the command's."""
    from ambit.cli import output
    from ambit.cli.lab import terminal
    from ambit.lab.client import Lab

    found = Lab.find(lab)
    if os.isatty(0) and os.isatty(1):
        raise typer.Exit(terminal.run(found, pod, command, namespace))
    with found.start(pod, *command, namespace=namespace) as running:
        status = running.wait()
    if running.message:
        output.show_error(running.message)
    raise typer.Exit(status)
