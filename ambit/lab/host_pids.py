"""Process numbers: what the lab calls 7 has another number outside, which is the one that a user's tools know."""

import os
from pathlib import Path

from ambit.lab.control import Message
from ambit.lab.fields import Fields


def translate_pids(status: Message, supervisor_pid: int) -> Message:
    """A status with each process's `pid` as the caller sees it; unchanged where that cannot be found out."""
    outside = _numbers_outside(supervisor_pid)
    processes = Fields(status).children("processes")
    for process in processes:
        lab_pid = process.value.get("lab_pid")
        if isinstance(lab_pid, int):
            # One that is not there any more has ended since the supervisor looked.
            process.value["pid"] = outside.get(lab_pid) if outside else lab_pid
    return status


def _numbers_outside(supervisor_pid: int) -> dict[int, int]:
    """From the number in the supervisor's PID namespace to ours, for every process there."""
    try:
        namespace = os.stat(f"/proc/{supervisor_pid}/ns/pid").st_ino
    except OSError:
        return {}
    numbers: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            if os.stat(f"/proc/{entry}/ns/pid").st_ino == namespace:
                numbers[_number_inside(Path(f"/proc/{entry}/status").read_text())] = int(entry)
        except OSError:
            continue
    return numbers


def _number_inside(status: str) -> int:
    """The last number of NSpid: the process's own in its innermost namespace (proc(5))."""
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    return 0
