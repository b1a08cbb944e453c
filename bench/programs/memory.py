"""Sum the memory of this pod's processes of one name: `memory.py NAME`. Prints {"count", "pss_bytes", "rss_bytes"}.

A pod's processes are those that share its network namespace; the figures are proc(5)'s, from smaps_rollup.
"""

import json
import os
import sys
from pathlib import Path


def processes_here(name: str) -> list[Path]:
    """The /proc folders of this pod's processes called `name`."""
    here = os.stat("/proc/self/ns/net").st_ino
    found = []
    for folder in Path("/proc").iterdir():
        try:
            is_ours = folder.name.isdigit() and os.stat(folder / "ns/net").st_ino == here
            if is_ours and (folder / "comm").read_text().strip() == name:
                found.append(folder)
        except OSError:
            continue
    return found


def memory_bytes(process: Path, measure: str) -> int:
    """The process's `Pss` or `Rss`."""
    for line in (process / "smaps_rollup").read_text().splitlines():
        if line.startswith(f"{measure}:"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    named = processes_here(sys.argv[1])
    sums = {f"{measure.lower()}_bytes": sum(memory_bytes(one, measure) for one in named) for measure in ("Pss", "Rss")}
    print(json.dumps({"count": len(named), **sums}))
