"""`ambit lab status`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ambit.cli.lab.options import LabName, Output
from ambit.cli.output import Format

if TYPE_CHECKING:
    from ambit.lab.status import LabStatus, ProcessStatus


def status(output: Output = Format.TABLE, lab: LabName = None) -> None:
    """Show a lab's nodes, pods, services and processes."""
    from ambit.cli.output import show_json
    from ambit.lab.client import Lab

    found = Lab.find(lab)
    if output is Format.JSON:
        show_json(found.raw_status())
        return
    _show_tables(found.status())


def _show_tables(status: "LabStatus") -> None:
    from ambit.cli.output import show_table

    print(f"lab {status.lab}{'' if status.is_up else ' (still coming up)'}, folder {status.folder}\n")
    show_table(
        "Nodes",
        ("name", "addresses", "pods"),
        [(n.name, _join(n.addresses), _join(n.pod_networks)) for n in status.nodes],
    )
    show_table(
        "Pods",
        ("namespace", "name", "node", "addresses", "phase", "ready", "mesh", "restarts", "message"),
        [
            (
                p.namespace,
                p.name,
                p.node,
                _join(p.addresses),
                p.phase,
                _yes_no(p.ready),
                p.enrolment,
                str(p.restarts),
                p.message,
            )
            for p in status.pods
        ],
    )
    show_table(
        "Services",
        ("namespace", "name", "addresses", "ports", "endpoints"),
        [
            (
                s.namespace,
                s.name,
                _join(s.addresses),
                _join(f"{p.port}/{p.protocol}" for p in s.ports),
                str(s.endpoints),
            )
            for s in status.services
        ],
    )
    show_table(
        "Processes",
        ("name", "pid", "state", "restarts", "memory (PSS)"),
        [(p.name, str(p.pid or "-"), _state(p), str(p.restarts), _mebibytes(p.pss_bytes)) for p in status.processes],
    )


def _state(process: "ProcessStatus") -> str:
    return f"{process.state}, {process.draining} draining" if process.draining else process.state


def _join(parts: Iterable[str]) -> str:
    return " ".join(parts)


def _yes_no(fact: bool) -> str:
    return "yes" if fact else "no"


def _mebibytes(count: int | None) -> str:
    return "-" if count is None else f"{count / (1 << 20):.1f} MiB"
