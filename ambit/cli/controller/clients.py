"""`ambit controller clients`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, cast

import typer

from ambit.cli import output
from ambit.cli.admin import ADMIN, Controller, TokenFile, read_page
from ambit.cli.output import Format
from ambit.lab.control import Json

Row = tuple[str, str, str, str, str, str]
Described = Mapping[str, object]


def clients(
    controller: Controller = ADMIN,
    token_file: TokenFile = None,
    format_: Annotated[Format, typer.Option("-o", "--output", help="How to show them.")] = Format.TABLE,
) -> None:
    """Show who is connected, how far each is of each type, and what it has refused and why."""
    found = cast(Sequence[Described], read_page(controller, "/debug/syncz", token_file))
    if format_ is Format.JSON:
        output.show_json(cast(Json, found))
        return
    columns = ("client", "peer", "type", "sent", "acknowledged", "state")
    output.show_table(f"{len(found)} clients", columns, [row for each in found for row in _list_rows(each)])
    refusals = [row for each in found for row in _list_refusals(each)]
    if refusals:
        output.show_table(
            f"{len(refusals)} refusals", ("client", "type", "version", "seconds ago", "resources", "why"), refusals
        )


def _list_rows(client: Described) -> Iterator[Row]:
    for type_url, state in cast(Mapping[str, Described], client["types"]).items():
        shown = _describe(state)
        yield (_name(client), str(client["peer"]), _short(type_url),
               str(state["sent_version"]), str(state["acked_version"]), shown)  # fmt: skip


def _describe(state: Described) -> str:
    if state["last_error"]:
        return "refused"
    if state["in_flight"]:
        return "unanswered"
    return f"{state['pending']} to be told" if state["pending"] else "in sync"


def _list_refusals(client: Described) -> Iterator[Row]:
    for type_url, state in cast(Mapping[str, Described], client["types"]).items():
        for each in cast(Sequence[Described], state["refusals"]):
            yield (_name(client), _short(type_url), str(each["version"]), str(each["seconds_ago"]),
                   _list_names(each), str(each["error"]))  # fmt: skip


def _list_names(refusal: Described) -> str:
    names, count = cast(Sequence[str], refusal["resources"]), cast(int, refusal["resource_count"])
    more = f"and {count - len(names)} more" if names and count > len(names) else ""
    return ", ".join(filter(None, (*names, more))) or f"all {count}"


def _name(client: Described) -> str:
    return str(client["id"] or client["node"])


def _short(type_url: str) -> str:
    return type_url.rpartition(".")[2]
