"""The demo's lab around its measurements: it goes up, and it goes down again whatever happens."""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from ambit.demo.report import Row
from ambit.demo.steps import EXAMPLES, Demo, Progress
from ambit.lab.client import Lab
from mesh.kit.errors import InvalidInputError

LAB_NAME = "demo"


def run_demo(progress: Progress, *, keep: bool = False, name: str = LAB_NAME) -> tuple[Sequence[Row], float]:
    """Run the demo in a lab called `name`; returns its rows, and how many seconds all took, taking down included.

    Raises AmbitError when the lab does not come up, KeyboardInterrupt on Ctrl-C, SIGTERM and SIGHUP; the lab is down
    then. With `keep` it stays up, unless interrupted. Main thread only (signals).
    """
    manifest = EXAMPLES / "mesh.yaml"
    if not manifest.exists():
        raise InvalidInputError(f"{manifest} is missing: the demo runs from a checkout of the repository")
    started = time.monotonic()
    with _interrupted_by(signal.SIGTERM, signal.SIGHUP):
        lab = Lab.up([manifest], name, progress)
        try:
            demo = Demo(lab, progress)
            demo.run()
        except BaseException:
            keep = False
            raise
        finally:
            if not keep:
                progress("taking the lab down")
                with _uninterrupted():
                    lab.down()
    return demo.rows, time.monotonic() - started


@contextmanager
def _interrupted_by(*numbers: signal.Signals) -> Iterator[None]:
    """Let these signals do what Ctrl-C does, so that whatever is being done is undone on the way out."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore impatience: what is half taken down would stay."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
