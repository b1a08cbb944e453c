"""`ambit lab logs`."""

import sys
import time
from collections import deque
from typing import Annotated

import typer

from ambit.cli.lab.options import LabName, Namespace

LOOK_AGAIN_SECONDS = 0.1


def logs(
    name: Annotated[str, typer.Argument(metavar="controller|ztunnel/NODE|cni/NODE|supervisor|POD", show_default=False)],
    namespace: Namespace = "default",
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as lines are written.")] = False,
    tail: Annotated[int | None, typer.Option("--tail", min=0, help="Only the last lines.")] = None,
    lab: LabName = None,
) -> None:
    """Show what a process or a pod has written."""
    from ambit.lab.client import Lab

    path = Lab.find(lab).log_path(name, namespace)
    with path.open(errors="replace") as log:
        sys.stdout.writelines(log if tail is None else deque(log, tail))
        sys.stdout.flush()
        while follow and path.exists():
            sys.stdout.write(log.read())
            sys.stdout.flush()
            time.sleep(LOOK_AGAIN_SECONDS)
