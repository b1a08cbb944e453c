"""`ambit get`."""

import json
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, cast

import typer

from ambit.cli import output
from ambit.cli.output import Format
from mesh.kit.errors import TransientError

ADMIN = "127.0.0.1:15014"
"""The controller's default."""
# The controller is on this machine.
ANSWER_SECONDS = 10.0

Row = tuple[str, str, str, str, str]


class UnreachableControllerError(TransientError):
    """The controller's admin page cannot be had."""

    reason = "unreachable_controller"


def get(
    kind: Annotated[str, typer.Argument(help="Only of this kind, as in HTTPRoute.", show_default=False)] = "",
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Only of this namespace.")] = "",
    controller: Annotated[
        str, typer.Option("--controller", metavar="HOST:PORT", help="The controller's AMBIT_ADMIN_LISTEN.")
    ] = ADMIN,
    format_: Annotated[Format, typer.Option("-o", "--output", help="How to show them.")] = Format.TABLE,
) -> None:
    """Show what has become of Gateways, routes and policies: the conditions that Kubernetes would show as status."""
    found = [
        each
        for each in _ask(controller)
        if kind.lower() in ("", str(each["kind"]).lower()) and namespace in ("", each["namespace"])
    ]
    if format_ is Format.JSON:
        print(json.dumps(found, indent=2))
        return
    rows = [row for each in found for row in _list_rows(each)]
    output.show_table(f"{len(found)} objects", ("object", "of it", "condition", "reason", "message"), rows)


def _ask(controller: str) -> list[Mapping[str, object]]:
    url = f"http://{controller}/debug/conditions"
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:
            found: object = json.load(answer)
    except (OSError, ValueError) as error:
        raise UnreachableControllerError(
            f"no answer from a controller at {url} ({error}): is it running here? --controller names another"
        ) from error
    return cast(list[Mapping[str, object]], found)


def _list_rows(document: Mapping[str, object]) -> Iterator[Row]:
    place = f"{document['namespace']}/" if document["namespace"] else ""
    name = f"{document['kind']} {place}{document['name']}"
    status = cast(Mapping[str, Sequence[Mapping[str, object]]], document["status"])
    yield from _list_conditions(name, "", status)
    for listener in status.get("listeners", ()):
        yield from _list_conditions(name, f"listener {listener['name']}", listener)
    for field, named in (("parents", "parentRef"), ("ancestors", "ancestorRef")):
        for parent in status.get(field, ()):
            reference = cast(Mapping[str, str], parent[named])
            yield from _list_conditions(name, f"at {reference['kind']} {reference['name']}", parent)


def _list_conditions(name: str, part: str, document: Mapping[str, object]) -> Iterator[Row]:
    for each in cast(Sequence[Mapping[str, str]], document.get("conditions", ())):
        shown = each["type"] if each["status"] == "True" else f"{each['type']}: {each['status']}"
        yield name, part, shown, each["reason"], each["message"]
