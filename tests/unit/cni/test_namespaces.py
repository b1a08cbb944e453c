import os
import subprocess
import sys
from pathlib import Path

import pytest

from cni.kernel.namespaces import InvalidNamespaceError, NetworkNamespace

OWN = "/proc/self/ns/net"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/proc/self/ns/absent", "No such file or directory; is the pod running?"),
        ("/proc/self/ns/uts", "not a network namespace"),
        ("/dev/null", "not a network namespace"),
        ("/", "not a network namespace"),
        (OWN, "the node's own network namespace"),
    ],
    ids=["absent", "another kind", "device", "directory", "the node's"],
)
def test_what_is_no_pods_namespace_is_refused(path: str, message: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(InvalidNamespaceError, match=message):
        NetworkNamespace.open(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_duplicate_is_the_same_namespace_and_outlives_the_first() -> None:
    first = NetworkNamespace(os.open(OWN, os.O_RDONLY), OWN)
    second = first.duplicate()
    first.close()
    first.close()
    with second:
        assert (second.identity, second.path) == (first.identity, OWN)
        assert os.fstat(second.fileno()).st_ino == first.identity.inode
    with pytest.raises(ValueError, match="is closed"):
        first.fileno()


def run_python(program: str) -> str:
    command = [sys.executable, "-c", program]
    repository = Path(__file__).parents[3]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=repository).stdout.strip()


def test_the_agent_imports_only_the_part_of_pyroute2_that_it_needs() -> None:
    loaded = run_python("import cni.app, sys; print('pyroute2.ndb' in sys.modules, 'sqlite3' in sys.modules)")
    assert loaded == "False False"


def test_everything_else_of_pyroute2_still_imports_after_it() -> None:
    program = "import cni.kernel.nftables; from pyroute2 import NetNS, netns; import pyroute2; print(pyroute2.IPRoute)"
    assert "IPRoute" in run_python(program)
