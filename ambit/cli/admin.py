"""Asking a running controller's admin pages."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Annotated, cast

import typer

from mesh.kit.errors import InvalidInputError, RefusedError, TransientError

ADMIN = "127.0.0.1:15014"
"""The controller's default."""
# Between two pieces of an answer; a controller of a large mesh is busy with others too.
ANSWER_SECONDS = 30.0

Controller = Annotated[
    str, typer.Option("--controller", metavar="HOST:PORT", help="The controller's AMBIT_ADMIN_LISTEN.")
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        envvar="AMBIT_ADMIN_TOKEN_FILE",
        metavar="FILE",
        help="The token that the pages demand, if they do.",
        show_default=False,
    ),
]


class UnreachableControllerError(TransientError):
    """The controller's admin page cannot be had."""

    reason = "unreachable_controller"


class PageRefusedError(RefusedError):
    """The controller answers that it does not give this page; why is its own text."""

    reason = "page_refused"


@contextmanager
def open_page(controller: str, path: str, token_file: Path | None) -> Iterator[HTTPResponse]:
    """A page, to be read within the block. Raises UnreachableControllerError, PageRefusedError, InvalidInputError."""
    url = f"http://{controller}{path}"
    request = urllib.request.Request(url)
    if token_file is not None:
        request.add_header("Authorization", f"Bearer {_read_token(token_file)}")
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            yield cast(HTTPResponse, answer)
    except urllib.error.HTTPError as error:
        with error:
            why = error.read(10_000).decode(errors="replace").strip()
        if error.code == 401:
            why += "; --token-file names a file that holds it"
        raise PageRefusedError(why) from error
    except (OSError, ValueError, HTTPException) as error:
        raise UnreachableControllerError(
            f"no answer from a controller at {url} ({error}): is it running here? --controller names another"
        ) from error


def read_page(controller: str, path: str, token_file: Path | None) -> object:
    """A page of JSON. Raises as `open_page` does."""
    with open_page(controller, path, token_file) as answer:
        found: object = json.load(answer)
    return found


def _read_token(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"cannot read the token in {path}: {error}") from error
