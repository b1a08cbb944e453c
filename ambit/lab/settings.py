"""Where labs keep their state, and what the lab's own processes inherit from the environment."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mesh.kit.errors import RefusedError

UNIX_SOCKET_PATH_BYTES = 107
"""Linux's bound on a unix socket's path (unix(7): 108 with the closing zero)."""

LONGEST_SOCKET_NAME = "/12345678901234567890123456789012/n100/agent.sock"
"""The deepest socket below the run folder: a lab's name has at most 32 characters."""


@dataclass(frozen=True, slots=True)
class LabSettings:
    """Settings of the lab's client and supervisor."""

    run_folder: Path
    """Holds one folder per lab. Short, because unix sockets live below it, and on a local disk, because of flock."""


def read_settings(environment: Mapping[str, str] = os.environ) -> LabSettings:
    """Choose the run folder: AMBIT_RUN_DIR, root's /run/ambit, $XDG_RUNTIME_DIR/ambit, else /tmp/ambit-<uid>.

    Root does not follow XDG_RUNTIME_DIR: it is set in some of root's sessions and not in others, and a lab that is
    started in one must be found from the other.
    """
    chosen = environment.get("AMBIT_RUN_DIR")
    if chosen:
        return LabSettings(_checked(Path(chosen).absolute()))
    if os.geteuid() == 0:
        return LabSettings(Path("/run/ambit"))
    runtime = environment.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK):
        return LabSettings(_checked(Path(runtime) / "ambit"))
    return LabSettings(Path(f"/tmp/ambit-{os.geteuid()}"))


def make_run_folder(settings: LabSettings) -> None:
    """Create the run folder for the caller alone; refuse one that somebody else owns or may write to."""
    folder = settings.run_folder
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise RefusedError(f"{folder} is not a folder that only you can write to; remove it, or set AMBIT_RUN_DIR")


def inherited_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What processes and containers keep of the caller's environment: where programs and home are, and the language."""
    kept = ("PATH", "PYTHONPATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TERM", "SSL_CERT_FILE")
    found = {name: environment[name] for name in kept if name in environment}
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **found}


def terminal_name(environment: Mapping[str, str] = os.environ) -> str:
    """What kind of terminal the caller has (terminfo's name)."""
    return environment.get("TERM", "dumb")


def caller_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The caller's environment for the supervisor, which finds the same packages as we do wherever it runs."""
    return {**environment, "PYTHONPATH": _python_path(environment)}


def _python_path(environment: Mapping[str, str]) -> str:
    ours = str(Path(__file__).resolve().parents[2])
    inherited = [part for part in environment.get("PYTHONPATH", "").split(os.pathsep) if part]
    return os.pathsep.join(dict.fromkeys([ours, *(os.path.abspath(part) for part in inherited)]))


def _checked(folder: Path) -> Path:
    if len(os.fsencode(str(folder))) + len(LONGEST_SOCKET_NAME) > UNIX_SOCKET_PATH_BYTES:
        raise RefusedError(f"{folder} is too long for the unix sockets below it; set AMBIT_RUN_DIR to a shorter path")
    return folder
