"""`ambit demo`."""

import sys
from typing import Annotated

import typer

from ambit.cli.output import Format

WIDTH = 120
"""Of the table where there is no terminal; the widest cells fold."""


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the lab running, and say how to play with it.")] = False,
    format_: Annotated[Format, typer.Option("-o", "--output", help="How to show the result.")] = Format.TABLE,
) -> None:
    """Bring a mesh of two nodes up, prove on real traffic what it does, and take it down; exit 1 when a check fails."""
    from rich.console import Console

    from ambit.cli import output
    from ambit.demo import report
    from ambit.demo.run import run_demo

    progress = output.ProgressLines()
    rows, seconds = run_demo(progress, keep=keep)
    if format_ is Format.JSON:
        print(report.to_json(rows, seconds))
    else:
        # A pipe has no width of its own.
        report.print_table(Console() if sys.stdout.isatty() else Console(width=WIDTH), rows, seconds)
    if keep:
        output.show_note(report.HOW_TO_PLAY)
    raise typer.Exit(0 if report.all_ok(rows) else 1)
