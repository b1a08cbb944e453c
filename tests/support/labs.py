"""What the lab's tests share: a run folder of their own, small topologies, and a look at what a lab leaves behind."""

import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ambit.lab import requests
from ambit.lab.client import Lab
from ambit.lab.folder import connected
from ambit.lab.settings import LabSettings
from ambit.lab.sources import Source

TWO_NODES = """
apiVersion: ambit.dev/v1alpha1
kind: Lab
metadata: {name: two}
spec: {nodes: [node-1, {name: node-2, labels: {topology.kubernetes.io/zone: b}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: web}}
spec:
  nodeName: node-1
  containers:
  - name: web
    command: [python3, -m, http.server, --bind, "::"]
    args: ["8080"]
    ports: [{containerPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: near}
spec: {nodeName: node-1, containers: [{name: idle, command: [sleep, infinity]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: far}
spec: {nodeName: node-2, containers: [{name: idle, command: [sleep, infinity]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""

TWO_SERVERS = """
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Pod
  metadata: {name: server-a, labels: {app: web}}
  spec:
    nodeName: node-1
    containers:
    - name: web
      command: [sh, -c, 'cd $(mktemp -d) && echo a > name && exec python3 -m http.server --bind :: 8080']
      ports: [{containerPort: 8080}]
- apiVersion: v1
  kind: Pod
  metadata: {name: server-b, labels: {app: web}}
  spec:
    nodeName: node-2
    containers:
    - name: web
      command: [sh, -c, 'cd $(mktemp -d) && echo b > name && exec python3 -m http.server --bind :: 8080']
      ports: [{containerPort: 8080}]
"""

ONE_POD = """
apiVersion: v1
kind: Pod
metadata: {name: idle}
spec: {containers: [{name: idle, command: [sleep, infinity]}]}
"""


def as_source(text: str, name: str = "test.yaml") -> Source:
    """A manifest text as a file's contents."""
    return Source(name, text)


@contextmanager
def run_folder() -> Iterator[LabSettings]:
    """Settings with a fresh run folder; every lab below it is down at the end, whatever the test did."""
    # Short: unix sockets live below it.
    with tempfile.TemporaryDirectory(prefix="ambit-", dir="/tmp") as folder:
        settings = LabSettings(Path(folder) / "run")
        try:
            yield settings
        finally:
            if settings.run_folder.exists():
                for entry in list(settings.run_folder.iterdir()):
                    Lab(entry.name, settings).down()


def environment_of(settings: LabSettings) -> dict[str, str]:
    """The environment in which the command line uses these settings."""
    return {"PATH": os.defpath, "PYTHONPATH": str(Path.cwd()), "AMBIT_RUN_DIR": str(settings.run_folder)}


def eventually(is_true: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether something becomes true in time."""
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@dataclass(frozen=True)
class Footprint:
    """What a lab occupies on the machine: its supervisor, its processes and their network namespaces."""

    supervisor: int
    processes: frozenset[int]
    namespaces: frozenset[int]

    def has_vanished(self) -> bool:
        """None of its processes runs, and no process of the machine is in one of its namespaces."""
        return not any(_network_namespace(pid) in self.namespaces for pid in _processes())


def footprint(lab: Lab) -> Footprint:
    """Look at a running lab from outside."""
    with connected(lab.folder) as connection:
        assert connection is not None
        supervisor = requests.peer_pid(connection)
    inside = os.stat(f"/proc/{supervisor}/ns/pid").st_ino
    members = [pid for pid in _processes() if _inode(pid, "pid") == inside]
    namespaces = {_network_namespace(pid) for pid in members} - {None}
    return Footprint(supervisor, frozenset(members), frozenset(each for each in namespaces if each is not None))


def links_of_this_machine() -> set[str]:
    """The names of the network interfaces outside of any lab."""
    return {name for _, name in socket.if_nameindex()}


def mounts_below(folder: Path) -> list[str]:
    """What is mounted below a folder, as this process sees it."""
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {folder}/" in line]


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _network_namespace(pid: int) -> int | None:
    return _inode(pid, "net")


def _inode(pid: int, kind: str) -> int | None:
    try:
        return os.stat(f"/proc/{pid}/ns/{kind}").st_ino
    except OSError:
        return None
