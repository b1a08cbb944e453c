"""`ambit lab`: a mesh on one machine. One file per command; `options` has what they share."""

import typer

from ambit.cli.lab import apply, capture, delete, down, execute, logs, process, rules, status, up

app = typer.Typer(
    help="A mesh on this machine: nodes and pods as network namespaces, from Kubernetes YAML.", no_args_is_help=True
)
app.command("up")(up.up)
app.command("status")(status.status)
app.command("exec")(execute.execute)
app.command("apply")(apply.apply)
app.command("delete")(delete.delete)
app.command("logs")(logs.logs)
app.command("capture")(capture.capture)
app.command("rules")(rules.rules)
app.command("process")(process.process)
app.command("down")(down.down)
