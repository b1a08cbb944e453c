"""`ambit token create|list|revoke`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ambit.cli import output
from ambit.cli.output import Format
from mesh.kit.errors import InvalidInputError

app = typer.Typer(name="token", help="Tokens by which nodes outside of Kubernetes join the mesh.", no_args_is_help=True)

TokenFile = Annotated[
    Path,
    typer.Option("-f", "--file", envvar="AMBIT_NODE_TOKENS", metavar="FILE", help="The controller's file of tokens."),
]


@app.command()
def create(
    node: Annotated[str, typer.Argument(help="The node's name (NODE_NAME of its ztunnel).")], file: TokenFile
) -> None:
    """Print a new token for a node: its ztunnel reads it from the file AUTH_TOKEN. It cannot be shown again."""
    from controller.authority.token_file import add_token, mint_token

    secret, token = mint_token(node)
    with _naming(file):
        add_token(file, token)
    print(secret)


@app.command("list")
def list_tokens(
    file: TokenFile, format_: Annotated[Format, typer.Option("-o", "--output", help="How to show them.")] = Format.TABLE
) -> None:
    """Show which nodes have tokens. What can be shown of a token is its id."""
    from controller.authority.token_file import read_tokens

    with _naming(file):
        found = read_tokens(file)
    tokens = sorted(found, key=lambda token: (token.node, token.id))
    if format_ is Format.JSON:
        output.show_json([{"node": token.node, "id": token.id} for token in tokens])
    else:
        output.show_table(f"{len(tokens)} tokens", ("node", "id"), [(token.node, token.id) for token in tokens])


@app.command()
def revoke(
    node: Annotated[str, typer.Argument(help="The node's name.")],
    file: TokenFile,
    token_id: Annotated[str, typer.Option("--id", help="Only this one of its tokens.")] = "",
) -> None:
    """Take a node's tokens away: it gets no more certificates, and no more of the mesh's state."""
    from controller.authority.token_file import revoke_tokens

    with _naming(file):
        count = revoke_tokens(file, node, token_id)
    output.show_note(f"{count} of {node}'s tokens revoked")


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Say of which file it is that something is wrong."""
    from controller.authority.token_file import InvalidTokenFileError

    try:
        yield
    except InvalidTokenFileError as error:
        raise InvalidInputError(f"{file}: {error}; correct it, or remove the line") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{file} is no text: is it the file of AMBIT_NODE_TOKENS?") from error
    except OSError as error:
        raise InvalidInputError(f"cannot use {file}: {error.strerror}; run this as the controller's user") from error
