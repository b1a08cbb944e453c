"""`ambit ztunnel-log`."""

from typing import Annotated

import typer

from ambit.cli.lab.options import LabName


def ztunnel_log(
    level: Annotated[
        str | None,
        typer.Option("--level", metavar="LEVELS", help="error, warn, info, debug or off, or by scope: access=debug."),
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="First go back to what it started with.")] = False,
    node: Annotated[
        list[str] | None, typer.Option("--node", metavar="NODE", help="Whose ztunnel; all if left out. Repeatable.")
    ] = None,
    lab: LabName = None,
) -> None:
    """Show which lines ztunnels log, or change that while they run."""
    from ambit.lab.client import Lab

    changes = [*(["reset"] if reset else []), *([f"level={level}"] if level is not None else [])]
    path = f"/logging?{'&'.join(changes)}"
    found = Lab.find(lab)
    for name in node or [node.name for node in found.status().nodes]:
        print(f"{name}: {found.ztunnel_page(name, path, 'POST').strip()}")
