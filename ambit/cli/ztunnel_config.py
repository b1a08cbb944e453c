"""`ambit ztunnel-config`."""

import json
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ambit.cli.lab.options import LabName
from ambit.ztunnel_dump import Json, Kind, Object, select, tabulate
from mesh.kit.errors import InvalidInputError


class Form(StrEnum):
    """How a dump is shown."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def ztunnel_config(
    kind: Annotated[Kind, typer.Argument(show_default=False)],
    node: Annotated[
        list[str] | None, typer.Option("--node", metavar="NODE", help="Whose ztunnel; all if left out. Repeatable.")
    ] = None,
    namespace: Annotated[
        str | None, typer.Option("-n", "--namespace", metavar="NAMESPACE", help="Only of this namespace.")
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("-f", "--file", metavar="FILE", help="A saved /config_dump, or - for standard input."),
    ] = None,
    output: Annotated[Form, typer.Option("-o", "--output", help="How to show it.")] = Form.TABLE,
    lab: LabName = None,
) -> None:
    """Show what ztunnels know: workloads, services, policies, certificates, open connections.

    As JSON and YAML the parts are as they stand in the dump, by node. A file is of one ztunnel, ours or a stock one.
    """
    dumps = {file: _read_dump(file)} if file is not None else _ask_lab(lab, node)
    if output is not Form.TABLE:
        found = {name: select(dump, kind, namespace) for name, dump in dumps.items()}
        _show_value(found if file is None else found[file], output)
        return
    _show_tables(dumps, kind, namespace)


def _ask_lab(lab: str | None, nodes: list[str] | None) -> dict[str, Object]:
    from ambit.lab.client import Lab

    found = Lab.find(lab)
    names = nodes or [node.name for node in found.status().nodes]
    return {name: _parse(found.ztunnel_page(name, "/config_dump"), f"the ztunnel of {name}") for name in names}


def _read_dump(file: str) -> Object:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"cannot read {file}: {error}") from error
    return _parse(text, file)


def _parse(text: str, origin: str) -> Object:
    try:
        dump = json.loads(text)
    except ValueError as error:
        raise InvalidInputError(f"{origin}: this is no /config_dump: {error}") from error
    if not isinstance(dump, dict):
        raise InvalidInputError(f"{origin}: this is no /config_dump: it is not an object")
    return dump


def _show_value(value: Json, output: Form) -> None:
    if output is Form.JSON:
        print(json.dumps(value, indent=2))
        return
    import yaml

    print(yaml.safe_dump(value, sort_keys=False), end="")


def _show_tables(dumps: Mapping[str, Object], kind: Kind, namespace: str | None) -> None:
    from ambit.cli.output import show_table

    for name, dump in dumps.items():
        for table in tabulate(dump, kind, namespace):
            show_table(f"{table.title}, {name}", table.columns, table.rows)
