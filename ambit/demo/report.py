"""The demo's result: rows, as a table for people and as JSON for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Row:
    """One question, what was measured, and whether that is as it should be."""

    check: str
    measured: str
    ok: bool


def print_table(console: Console, rows: Sequence[Row], seconds: float) -> None:
    """Print the rows, and below them how many failed."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("check", overflow="fold")
    table.add_column("measured in this run", overflow="fold")
    table.add_column("", no_wrap=True)
    for row in rows:
        verdict = Text("ok", "green") if row.ok else Text("FAILED", "bold red")
        table.add_row(Text(row.check), Text(row.measured), verdict)
    console.print(table)
    console.print(Text(f"{summarise(rows)} in {seconds:.1f} s", "bold"))


def to_json(rows: Sequence[Row], seconds: float) -> str:
    """The rows as one JSON document."""
    ok = all_ok(rows)
    return json.dumps({"ok": ok, "seconds": round(seconds, 3), "rows": [asdict(row) for row in rows]}, indent=2)


def summarise(rows: Sequence[Row]) -> str:
    """How many rows there are and how many failed, in words."""
    failed = sum(not row.ok for row in rows)
    return f"{len(rows)} checks, {failed} FAILED" if failed else f"{len(rows)} checks, all ok"


def all_ok(rows: Sequence[Row]) -> bool:
    """Whether the demo has proven its point: there are rows, and none failed."""
    return bool(rows) and all(row.ok for row in rows)


HOW_TO_PLAY = """\
The lab is still up. Play with it:
  ambit lab status --lab demo
  ambit lab exec --lab demo -n shop frontend -- curl -sS http://10.96.0.100/
  ambit lab logs --lab demo ztunnel/node-1
  ambit lab apply --lab demo -f examples/demo/deny-frontend.yaml
  ambit lab down --lab demo"""
"""For `--keep`."""
