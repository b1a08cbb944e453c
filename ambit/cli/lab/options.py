"""Options that several `ambit lab` commands take."""

from typing import Annotated

import typer

from ambit.cli.output import Format

Files = Annotated[
    list[str],
    typer.Option(
        "-f", "--file", metavar="FILE", help="YAML: a file, a directory, or - for standard input. Repeatable."
    ),
]
LabName = Annotated[
    str | None, typer.Option("--lab", metavar="NAME", help="Which lab; the only running one if left out.")
]
Namespace = Annotated[str, typer.Option("-n", "--namespace", metavar="NAMESPACE", help="The pod's namespace.")]
Output = Annotated[Format, typer.Option("-o", "--output", help="How to show it.")]
PodName = Annotated[str, typer.Argument(metavar="POD", show_default=False)]
