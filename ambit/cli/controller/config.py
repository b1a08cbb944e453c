"""`ambit controller config`."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, cast
from urllib.parse import urlencode

import typer

from ambit.cli import output
from ambit.cli.admin import ADMIN, Controller, TokenFile, read_page
from ambit.cli.ztunnel_config import Form


def config(
    client: Annotated[
        str, typer.Argument(help="Its node id, node, Gateway (NAMESPACE/NAME) or peer, as `clients` shows them.")
    ],
    type_: Annotated[str, typer.Option("--type", metavar="TYPE", help="Only of this type, as in Listener.")] = "",
    name: Annotated[str, typer.Option("--resource", metavar="NAME", help="Only the resource of this name.")] = "",
    controller: Controller = ADMIN,
    token_file: TokenFile = None,
    form: Annotated[Form, typer.Option("-o", "--output", help="How to show it.")] = Form.TABLE,
) -> None:
    """Show what a client has: each resource with its version, and whether the client has acknowledged it.

    As JSON and YAML with what is in it, but for keys and the like.
    """
    has_contents = form is not Form.TABLE
    wanted = {"client": client, "type": type_, "name": name, "contents": str(has_contents).lower()}
    path = f"/debug/config_dump?{urlencode(wanted)}"
    found = cast(Sequence[Mapping[str, object]], read_page(controller, path, token_file))
    if form is Form.JSON:
        print(json.dumps(found, indent=2))
    elif form is Form.YAML:
        import yaml

        print(yaml.safe_dump(found, sort_keys=False), end="")
    else:
        columns = ("type", "name", "version", "state")
        output.show_table(f"{len(found)} resources", columns, [[str(each[name]) for name in columns] for each in found])
