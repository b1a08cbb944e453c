"""A command in a pod on the caller's terminal: a pseudo-terminal of its own, relayed both ways.

The command cannot have the caller's terminal itself as its controlling one (another session has it), and without one a
shell has no job control and Ctrl-C reaches nobody.
"""

import fcntl
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ambit.lab.client import Lab

CHUNK_BYTES = 65536

ENTRY = Path(__file__).parents[2] / "lab" / "terminal_entry.py"


def run(lab: "Lab", pod: str, command: Sequence[str], namespace: str) -> int:
    """Run a command and return its exit status; the terminal's modes are as before, whatever happens."""
    from ambit.lab.settings import terminal_name

    ours, theirs = os.openpty()
    _copy_size(ours)
    before = termios.tcgetattr(0)
    try:
        running = lab.start(
            pod,
            *(sys.executable, "-IS", str(ENTRY), *command),
            namespace=namespace,
            streams=(theirs, theirs, theirs),
            environment={"TERM": terminal_name()},
        )
        os.close(theirs)
        with running:
            signal.signal(signal.SIGWINCH, lambda _number, _frame: _copy_size(ours))
            # Not flushing: what was typed ahead is for the command.
            tty.setraw(0, termios.TCSADRAIN)
            _relay(ours)
            return running.wait()
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        os.close(ours)


def _relay(terminal: int) -> None:
    """Copy both ways until the command's side is closed."""
    sources = [0, terminal]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if terminal in ready:
            data = _read(terminal)
            if not data:
                return
            _write(1, data)
        if 0 in ready:
            data = _read(0)
            if data:
                _write(terminal, data)
            else:
                sources.remove(0)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, CHUNK_BYTES)
    except OSError:
        # EIO: nobody has the other side open any more (pty(7)).
        return b""


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _copy_size(terminal: int) -> None:
    """Give the command's terminal the size of ours."""
    size = fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)
