"""The command line as an ordinary user runs it, from tests that run as root."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import ambit
from tests.support import labs

NOBODY = 65534

# Shows the packages to a user who may not pass the folders above them, to this command alone, and drops all rights.
AS_NOBODY = """
set -e
mount --bind "$1" "$3/packages"
mount --bind "$2" "$3/python"
base="$3"; shift 3
export PYTHONPATH="$base/packages" PYTHONDONTWRITEBYTECODE=1 AMBIT_RUN_DIR="$base/run"
exec setpriv --reuid 65534 --regid 65534 --clear-groups "$base/python/bin/python" -m ambit "$@"
"""

DROP_RIGHTS = ("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups")
PROBE = (*DROP_RIGHTS, "unshare", "--user", "--map-root-user", "--mount", "--net", "--pid", "--fork", "true")


@dataclass(frozen=True, slots=True)
class OrdinaryUser:
    """A user without any privilege, with a folder of their own."""

    folder: Path

    @property
    def labs(self) -> list[Path]:
        """What is left of the user's labs."""
        return list((self.folder / "run").glob("*"))

    def ambit(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run `ambit` as that user."""
        packages = Path(ambit.__file__).parents[1]
        script = ["sh", "-c", AS_NOBODY, "sh", str(packages), sys.prefix, str(self.folder), *arguments]
        return subprocess.run(
            ["unshare", "--mount", *script],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={"PATH": os.environ["PATH"]},  # noqa: TID251 - where curl and python3 are
        )


@contextmanager
def ordinary_user() -> Iterator[OrdinaryUser]:
    """Such a user for one test; skips it where the tests' own user is one already, or where users get no namespaces."""
    if os.geteuid() != 0:
        pytest.skip("not applicable: all tests of this run are without root already")
    if subprocess.run(PROBE, capture_output=True, check=False, timeout=30).returncode != 0:
        pytest.skip("needs namespaces without root: allow them (sysctl kernel.unprivileged_userns_clone=1)")
    with labs.run_folder() as settings:
        folder = settings.run_folder.parent
        for name in ("packages", "python", "run"):
            (folder / name).mkdir()
        for path in (folder, folder / "run"):
            shutil.chown(path, NOBODY, NOBODY)
        (folder / "run").chmod(0o700)
        try:
            yield OrdinaryUser(folder)
        finally:
            shutil.rmtree(folder / "run", ignore_errors=True)
