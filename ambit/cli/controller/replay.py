"""`ambit controller replay`."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ambit.cli import output
from ambit.cli.ztunnel_config import Form
from mesh.kit.errors import InvalidInputError

if TYPE_CHECKING:
    from controller.inspection.dump import Dump, Versions
    from controller.inspection.replay import Difference, Rebuilt


def replay(
    file: Annotated[Path, typer.Argument(metavar="DUMP", help="A file that `ambit controller dump` wrote.")],
    type_: Annotated[str, typer.Option("--type", metavar="TYPE", help="Only of this type, as in Listener.")] = "",
    name: Annotated[str, typer.Option("--resource", metavar="NAME", help="Show the resource of this name.")] = "",
    form: Annotated[Form, typer.Option("-o", "--output", help="How to show it.")] = Form.TABLE,
) -> None:
    """Build from a dump's objects, with this version's code, what would be served, and compare it with what was.

    Exit status 1 when they differ.
    """
    from controller.inspection.dump import parse_dump
    from controller.inspection.replay import compare, list_versions, rebuild

    dump = parse_dump(_read(file))
    rebuilt = {type_url: found for type_url, found in rebuild(dump).items() if _is_meant(type_url, type_)}
    dumped = {type_url: found for type_url, found in dump.resources.items() if _is_meant(type_url, type_)}
    versions = list_versions(rebuilt)
    differences = compare(dumped, versions)
    if name:
        _show_resources(rebuilt, name, form)
    elif form is Form.TABLE:
        _show_tables(dump, versions, differences, has_names=bool(type_))
    else:
        document = {
            "is_equal": not differences,
            "version": dump.version,
            "written_at": dump.written_at,
            "resources": versions,
            "differences": [_describe(each) for each in differences],
        }
        _show_value(document, form)
    raise typer.Exit(1 if differences else 0)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"cannot read {file}: {error}") from error


def _is_meant(type_url: str, wanted: str) -> bool:
    return wanted.lower() in ("", _short(type_url).lower())


def _short(type_url: str) -> str:
    return type_url.rpartition(".")[2]


def _show_resources(rebuilt: "Rebuilt", name: str, form: Form) -> None:
    """What is in the resources of a name, one of each type that has it. Raises InvalidInputError where none has."""
    from controller.inspection.messages import show_resource

    found = {type_url: resources[name] for type_url, resources in rebuilt.items() if name in resources}
    if not found:
        raise InvalidInputError(f"nothing of the name {name} is served: without --resource all names are shown")
    for type_url, resource in found.items():
        shown = {"type": _short(type_url), "version": resource.version, "resource": show_resource(resource.wire)}
        _show_value(shown, form)


def _show_value(value: object, form: Form) -> None:
    if form is Form.JSON:
        print(json.dumps(value, indent=2))
        return
    import yaml

    print(yaml.safe_dump(value, sort_keys=False, explicit_start=True), end="")


def _show_tables(dump: "Dump", versions: "Versions", differences: "list[Difference]", has_names: bool) -> None:
    changed = {(each.type_url, each.name): each for each in differences}
    if has_names:
        rows = [
            (_short(type_url), each, version, "differs" if (type_url, each) in changed else "as in the dump")
            for type_url, found in versions.items()
            for each, version in found.items()
        ]
        output.show_table(f"{len(rows)} resources", ("type", "name", "version", ""), rows)
    else:
        counts = [
            (_short(type_url), str(len(found)), str(sum(each.type_url == type_url for each in differences)))
            for type_url, found in versions.items()
        ]
        title = f"version {dump.version}, {dump.written_at}: {len(dump.objects)} objects"
        output.show_table(title, ("type", "resources", "differ"), counts)
    if differences:
        columns = ("type", "name", "in the dump", "now")
        output.show_table(f"{len(differences)} differences", columns, _list_rows(differences))
    output.show_note("what would be served differs from the dump" if differences else "equal to the dump")


def _list_rows(differences: "Iterable[Difference]") -> Iterator[tuple[str, str, str, str]]:
    for each in differences:
        yield _short(each.type_url), each.name, each.dumped or "not there", each.rebuilt or "not there"


def _describe(difference: "Difference") -> dict[str, str]:
    return {
        "type": difference.type_url,
        "name": difference.name,
        "dumped": difference.dumped,
        "rebuilt": difference.rebuilt,
    }
