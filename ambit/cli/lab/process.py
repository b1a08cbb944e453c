"""`ambit lab process`."""

from enum import StrEnum
from typing import Annotated

import typer

from ambit.cli.lab.options import LabName


class Action(StrEnum):
    """What can be done to a process."""

    STOP = "stop"
    START = "start"
    KILL = "kill"
    REPLACE = "replace"


def process(
    action: Annotated[Action, typer.Argument(show_default=False)],
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="controller, ztunnel/NODE or cni/NODE", show_default=False)
    ],
    lab: LabName = None,
) -> None:
    """Stop, start, kill (and so restart) a process of the mesh, or replace a ztunnel as an upgrade does."""
    from ambit.lab.client import Lab

    found = Lab.find(lab)
    perform = {
        Action.STOP: found.stop_process,
        Action.START: found.start_process,
        Action.KILL: found.kill_process,
        Action.REPLACE: found.replace_process,
    }
    perform[action](name)
