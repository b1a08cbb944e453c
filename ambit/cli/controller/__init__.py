"""`ambit controller`: what a running controller knows, and what one knew that wrote a dump."""

import typer

from ambit.cli.controller.clients import clients
from ambit.cli.controller.config import config
from ambit.cli.controller.dump import dump
from ambit.cli.controller.replay import replay

app = typer.Typer(name="controller", help="Look into a controller: its clients, and its state.", no_args_is_help=True)
app.command()(clients)
app.command()(config)
app.command()(dump)
app.command()(replay)
