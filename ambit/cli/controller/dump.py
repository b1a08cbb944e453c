"""`ambit controller dump`."""

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from ambit.cli import output
from ambit.cli.admin import ADMIN, Controller, TokenFile, open_page
from mesh.kit.errors import InvalidInputError


def dump(
    file: Annotated[str, typer.Argument(metavar="[FILE]", help="Where to write it, or - for standard output.")] = (
        "controller-dump.json"
    ),
    controller: Controller = ADMIN,
    token_file: TokenFile = None,
) -> None:
    """Write all that decides what a controller serves into one file, for `ambit controller replay`.

    It has the objects that serve, what is refused, and where the clients stand; no secrets, tokens or keys.
    """
    with open_page(controller, "/debug/dump", token_file) as answer:
        if file == "-":
            shutil.copyfileobj(answer, sys.stdout.buffer)
            return
        draft = Path(f"{file}.new")
        try:
            # It shows the whole mesh: not for everybody on this machine.
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InvalidInputError(f"cannot write {draft}: {error.strerror}") from error
        with os.fdopen(descriptor, "wb") as written:
            shutil.copyfileobj(answer, written)
    draft.replace(file)
    output.show_note(f"written to {file}; it shows the mesh's objects: read it before you give it away")
