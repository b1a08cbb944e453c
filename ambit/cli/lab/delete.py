"""`ambit lab delete`."""

from typing import Annotated

import typer

from ambit.cli.lab.options import Files, LabName, Namespace


def delete(
    what: Annotated[list[str] | None, typer.Argument(metavar="[KIND NAME]", show_default=False)] = None,
    file: Files = [],  # noqa: B006 - typer copies it
    namespace: Namespace = "default",
    lab: LabName = None,
) -> None:
    """Delete the objects that files name, or one by kind and name. Pods end gracefully first."""
    from ambit.lab.client import Lab

    if bool(what) == bool(file) or (what and len(what) != 2):
        raise typer.BadParameter("give either -f FILE, or KIND and NAME")
    found = Lab.find(lab)
    deleted = found.delete_object(what[0], what[1], namespace) if what else found.delete(*file)
    for each in deleted:
        print(f"{each} deleted")
