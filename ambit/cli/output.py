"""How the command line speaks: results on standard output, everything else on standard error."""

import json
import sys
import time
from collections.abc import Iterable, Sequence
from enum import StrEnum

from ambit.lab.control import Json


class Format(StrEnum):
    """What a command that shows something may print."""

    TABLE = "table"
    JSON = "json"


def show_error(message: str) -> None:
    """Say on standard error why nothing came of it."""
    print(f"{_styled('error:', '1;31')} {message}", file=sys.stderr)


def show_note(text: str) -> None:
    """Say something on standard error that is not a result."""
    print(text, file=sys.stderr)


def show_warnings(warnings: Iterable[str]) -> None:
    """Say on standard error what somebody should look at."""
    for warning in warnings:
        print(f"{_styled('warning:', '1;33')} {warning}", file=sys.stderr)


def show_json(value: Json) -> None:
    """Print a value as JSON for another program."""
    print(json.dumps(value, indent=2))


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under a title, for a person."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    # A pipe has no width: lines must not be broken for a program that reads them.
    console = Console() if sys.stdout.isatty() else Console(width=240)
    console.print(table)


class ProgressLines:
    """Steps on standard error, each with the seconds since the first."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"{_styled(f'{time.monotonic() - self._started:5.1f}s', '2')}  {text}", file=sys.stderr)


def _styled(text: str, style: str) -> str:
    return f"\x1b[{style}m{text}\x1b[0m" if sys.stderr.isatty() else text
