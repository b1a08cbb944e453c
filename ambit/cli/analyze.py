"""`ambit analyze`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ambit.cli.output import Format

if TYPE_CHECKING:
    from controller.analysis.report import Report
    from controller.kinds.catalogue import Catalogue
    from controller.sources.directory import FileText


ROOT_NAMESPACE = "istio-system"
"""The controller's default (controller.registry.names), which importing would cost every other command."""


def analyze(
    files: Annotated[
        list[str],
        typer.Option("-f", "--file", metavar="PATH", help="A file, a directory with all below it, or -. Repeatable."),
    ],
    root_namespace: Annotated[
        str, typer.Option("--root-namespace", metavar="NAMESPACE", help="Whose policies are for the whole mesh.")
    ] = ROOT_NAMESPACE,
    strict: Annotated[bool, typer.Option("--strict", help="Let warnings count as errors.")] = False,
    format_: Annotated[Format, typer.Option("-o", "--output", help="How to show the result.")] = Format.TABLE,
) -> None:
    """Check configuration before it serves: everything the controller would refuse, and what fits nothing else given.

    Exit status 1 when there are errors, 2 when there is nothing to check.
    """
    from controller.analysis.codes import Severity
    from controller.analysis.report import analyze_texts
    from controller.registry.names import MeshSettings

    texts = {name: text for path in files for name, text in _read(path).items()}
    report = analyze_texts(texts, _choose_catalogue(texts), MeshSettings(root_namespace=root_namespace))
    if format_ is Format.JSON:
        _show_json(report)
    else:
        _show_table(report)
    has_failed = report.count(Severity.ERROR) or (strict and report.count(Severity.WARNING))
    raise typer.Exit(1 if has_failed else 0)


def _read(path: str) -> "Mapping[str, FileText]":
    """The texts as the controller's own source reads them. Raises BadParameter when there is nothing."""
    from controller.sources.files import SUFFIXES, FileScanner, read_file, read_stream

    if path == "-":
        return {"<stdin>": read_stream(sys.stdin.buffer)}
    if not Path(path).is_dir():
        text = read_file(path)
        if text is None:
            raise typer.BadParameter(f"{path}: there is no such file", param_hint="-f")
        return {str(Path(path)): text}
    try:
        texts = FileScanner(Path(path)).scan_all()
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}", param_hint="-f") from error
    if not texts:
        raise typer.BadParameter(f"{path}: has no file that ends in {', '.join(SUFFIXES)}", param_hint="-f")
    return texts


def _choose_catalogue(texts: "Mapping[str, FileText]") -> "Catalogue":
    """The lab's kinds where a Lab is given: its pods run local programs, which a cluster's pods do not."""
    from ambit.lab.kinds import LAB_CATALOGUE, Lab
    from controller.kinds.catalogue import CATALOGUE
    from controller.sources.documents import compose_objects, get_text

    nodes = (node for text in texts.values() if isinstance(text, str) for node in compose_objects(text))
    is_lab = any(get_text(node, "kind") == Lab.KIND for node in nodes)
    return LAB_CATALOGUE if is_lab else CATALOGUE


def _show_json(report: "Report") -> None:
    from ambit.cli.output import show_json

    show_json(
        {
            "problems": [
                {
                    "code": entry.code,
                    "severity": entry.severity.value,
                    "object": entry.object,
                    "field": entry.field,
                    "file": entry.file,
                    "line": entry.line,
                    "message": entry.message,
                    "fix": entry.fix,
                }
                for entry in report.entries
            ],
            "files": report.file_count,
            "objects": report.object_count,
        }
    )


def _show_table(report: "Report") -> None:
    from rich.markup import escape

    from ambit.cli.output import show_table
    from controller.analysis.codes import Severity

    looked_at = f"{_count(report.object_count, 'object')} in {_count(report.file_count, 'file')}"
    counts = {severity: report.count(severity) for severity in Severity}
    shown = [
        _count(count, severity.value) for severity, count in counts.items() if count or severity is not Severity.NOTICE
    ]
    title = f"{looked_at}: {', '.join(shown)}"
    if not report.entries:
        print(title)
        return
    rows = [
        (
            f"{entry.severity.value} {entry.code}",
            f"{entry.file}:{entry.line}" if entry.line else entry.file,
            f"{entry.object}\n{entry.field}".strip(),
            f"{entry.message}\n→ {entry.fix}",
        )
        for entry in report.entries
    ]
    show_table(
        title,
        ("PROBLEM", "PLACE", "OBJECT AND FIELD", "WHY, AND WHAT TO DO"),
        [tuple(map(escape, row)) for row in rows],
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
