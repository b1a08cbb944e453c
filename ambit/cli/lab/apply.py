"""`ambit lab apply`."""

from ambit.cli.lab.options import Files, LabName


def apply(file: Files, lab: LabName = None) -> None:
    """Apply manifests to a running lab: all of them, or none if one is invalid."""
    from ambit.cli import output
    from ambit.lab.client import Lab

    applied = Lab.find(lab).apply(*file)
    for change in applied.changes:
        print(change)
    output.show_warnings(applied.warnings)
