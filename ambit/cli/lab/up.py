"""`ambit lab up`."""

from typing import Annotated

import typer

from ambit.cli.lab.options import Files


def up(
    file: Files = [],  # noqa: B006 - typer copies it
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The lab's name; the Lab object's if left out.")
    ] = None,
) -> None:
    """Bring a lab up and wait until it works. Interrupting it takes it down again."""
    from ambit.cli import output
    from ambit.lab.client import Lab

    progress = output.ProgressLines()
    lab = Lab.up(file, name, progress)
    output.show_warnings(lab.warnings)
    progress(f"lab {lab.name} is up; `ambit lab status` shows it, `ambit lab down` ends it")
