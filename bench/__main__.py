"""`python -m bench [NAME|all] [--quick] [--json FILE]`: run a bench, or list what there is.

The table goes to stdout and progress to stderr. A full run also writes bench/results/NAME.md and NAME.json; a quick one
is too coarse to keep. The exit status is 1 when something could not be measured, whatever the figures are.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.catalogue import BENCHES, Bench
from bench.effort import FULL, QUICK, Effort, report_progress
from bench.machine import describe_machine
from bench.report import Row, build_document, render_markdown, render_table
from mesh.kit.errors import AmbitError

RESULTS = Path(__file__).with_name("results")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; returns the exit status."""
    parser = _build_parser()
    asked = parser.parse_args(arguments)
    if asked.name is None:
        print("\n".join(f"{bench.name:<14}{bench.summary}" for bench in BENCHES.values()))
        return 0
    if asked.name == "all" and asked.json:
        parser.error("--json takes the result of one bench; `all` writes to bench/results/")
    chosen = [bench for bench in BENCHES.values() if asked.name in (bench.name, "all" if bench.is_in_all else None)]
    effort = QUICK if asked.quick else FULL
    # All of them, also after one that failed: they take minutes, and share nothing.
    return max([_run(bench, effort, asked.json) for bench in chosen])


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Ambit beside its peers, in a lab.")
    parser.add_argument("name", nargs="?", choices=[*BENCHES, "all"], help="which bench; none lists them")
    parser.add_argument("--quick", action="store_true", help="under a minute; coarse, and not kept in bench/results/")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result to FILE")
    return parser


def _run(bench: Bench, effort: Effort, json_file: Path | None) -> int:
    try:
        rows = bench.run(effort)
    except AmbitError as error:
        report_progress(f"bench {bench.name}: {error}")
        return 1
    print(render_table(rows), flush=True)
    if json_file is not None:
        json_file.write_text(json.dumps(build_document(bench.name, rows), indent=2) + "\n")
    if effort is FULL:
        _write_results(bench, rows)
    return 0


def _write_results(bench: Bench, rows: Sequence[Row]) -> None:
    machine = describe_machine()
    document = {**build_document(bench.name, rows), "machine": machine}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{bench.name}.json").write_text(json.dumps(document, indent=2) + "\n")
    title = f"bench {bench.name}: {bench.summary}"
    (RESULTS / f"{bench.name}.md").write_text(render_markdown(title, rows, machine))
    report_progress(f"written: {RESULTS / bench.name}.md and .json")


if __name__ == "__main__":
    sys.exit(main())
