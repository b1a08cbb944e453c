"""The `ambit` command. Each command has a file of its own, and imports what it needs only when it runs.

What a person asked for goes to standard output, everything else (progress, warnings, errors) to standard error. Exit
status: 0 done, 1 refused or failed (and said why), 2 misused; `lab exec` has that of its command.
"""

import sys
from typing import Annotated

import typer

from ambit import __version__
from ambit.cli import bootstrap, certificates, controller, lab, output, token
from ambit.cli.analyze import analyze
from ambit.cli.demo import demo
from ambit.cli.get import get
from ambit.cli.ztunnel_config import ztunnel_config
from ambit.cli.ztunnel_log import ztunnel_log
from mesh.kit.errors import AmbitError

app = typer.Typer(
    name="ambit",
    help="An ambient service mesh: mTLS, identity and policy for pods, without sidecars.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(analyze)
app.command()(demo)
app.command()(get)
app.command("ztunnel-config")(ztunnel_config)
app.command("ztunnel-log")(ztunnel_log)
app.add_typer(bootstrap.app, name="bootstrap")
app.add_typer(certificates.app, name="certificates")
app.add_typer(controller.app, name="controller")
app.add_typer(lab.app, name="lab")
app.add_typer(token.app, name="token")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"ambit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Take the options that come before a command."""


def main() -> None:
    """Run the command line (console script `ambit`)."""
    try:
        app()
    except AmbitError as error:
        output.show_error(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        output.show_error("interrupted")
        # 128 + SIGINT, as shells report it.
        sys.exit(130)
