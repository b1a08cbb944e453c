"""`ambit lab capture`."""

import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from ambit.cli.lab.options import LabName


def capture(
    write: Annotated[
        Path, typer.Option("-w", "--write", metavar="FILE", help="Where to (pcap); - is standard output.")
    ],
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0, help="How long; until Ctrl-C if left out.")
    ] = None,
    lab: LabName = None,
) -> None:
    """Record what crosses the underlay: all traffic between nodes, and between nodes and controller."""
    from ambit.cli import output
    from ambit.lab.client import Lab

    with Lab.find(lab).capture(1 if str(write) == "-" else write) as recording:
        try:
            time.sleep(seconds if seconds is not None else threading.TIMEOUT_MAX)
        except KeyboardInterrupt:
            pass
    output.show_note(f"{recording.frames} frames")
    if recording.dropped_frames:
        output.show_warnings([f"{recording.dropped_frames} frames came too fast and are missing"])
