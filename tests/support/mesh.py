"""A mesh for lab tests: manifests built in Python, requests between pods, and what logs and metrics say of them.

A test asserts the traffic, the metric and the access-log line together (conventions, rule 34): `Mesh` has all three.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml

from ambit.demo.access_log import AccessLine, read_access_lines
from ambit.demo.polling import wait_for
from ambit.lab.client import Lab
from ambit.lab.sources import Source
from ambit.lab.status import LabStatus, PodStatus
from tests.support.labs import run_folder

T = TypeVar("T")

Document = dict[str, object]

SUPPORT = Path(__file__).parent
POD_PROGRAM = SUPPORT / "mesh_pod.py"
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
"""Pods run thirty of it: Debian's own takes half the memory and a third of the time of others to start."""

PORT = 7000
"""Where every pod of the tests serves."""

CURL_OPTIONS = ("--silent", "--show-error", "--fail", "--max-time", "5")

PATIENCE_SECONDS = 5.0
"""For what normally takes milliseconds."""


# Manifests ------------------------------------------------------------------------------------------------------------


def lab(name: str, nodes: int) -> Document:
    names = [{"name": f"node-{number}"} for number in range(1, nodes + 1)]
    return {"apiVersion": "ambit.dev/v1alpha1", "kind": "Lab", "metadata": {"name": name}, "spec": {"nodes": names}}


def namespace(name: str, *, meshed: bool = True) -> Document:
    labels = {"istio.io/dataplane-mode": "ambient"} if meshed else {}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def pod(
    name: str, namespace: str, node: str, account: str = "default", labels: Mapping[str, str] | None = None
) -> Document:
    """A pod that serves on PORT, labelled `app: NAME` unless told otherwise."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels or {"app": name})},
        "spec": {
            "nodeName": node,
            "serviceAccountName": account,
            "containers": [
                {
                    "name": "serve",
                    "command": [PYTHON, str(POD_PROGRAM), "serve", str(PORT)],
                    "ports": [{"containerPort": PORT}],
                }
            ],
        },
    }


def service(name: str, namespace: str, selector: Mapping[str, str], port: int = 80, target: int = PORT) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "ipFamilyPolicy": "PreferDualStack",
            "selector": dict(selector),
            "ports": [{"name": "tcp", "port": port, "targetPort": target}],
        },
    }


def policy(name: str, namespace: str, action: str, *rules: Document, app: str = "") -> Document:
    spec: Document = {"action": action, "rules": list(rules)}
    if app:
        spec["selector"] = {"matchLabels": {"app": app}}
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def rule(source: Document | None = None, ports: Sequence[str] = ()) -> Document:
    parts: Document = {}
    if source:
        parts["from"] = [{"source": source}]
    if ports:
        parts["to"] = [{"operation": {"ports": list(ports)}}]
    return parts


def peer_authentication(namespace: str, mode: str) -> Document:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": mode.lower(), "namespace": namespace},
        "spec": {"mtls": {"mode": mode}},
    }


def source(*documents: Document, name: str = "test.yaml") -> Source:
    """The documents as one file."""
    return Source(name, yaml.safe_dump_all(documents))


# What a lab tells -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a metrics page."""

    name: str
    labels: dict[str, str]
    value: float


_SAMPLE = re.compile(r"([a-z_]+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


def parse_metrics(text: str) -> list[Sample]:
    """The samples of a page in OpenMetrics text."""
    found = []
    for line in text.splitlines():
        match = _SAMPLE.fullmatch(line)
        if match and not line.startswith("#"):
            found.append(Sample(match[1], dict(_LABEL.findall(match[2] or "")), float(match[3])))
    return found


def total(samples: Sequence[Sample], name: str, **labels: str) -> float:
    """The sum of a metric's samples that carry these labels."""
    return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())


@dataclass(frozen=True, slots=True)
class Mesh:
    """A lab that is up, as tests see it."""

    lab: Lab
    status: LabStatus

    # Requests

    def act(self, client: str, action: str, timeout: float = 30.0, **arguments: object) -> object:
        """Let `NAMESPACE/POD` do one of mesh_pod's actions; returns its result."""
        namespace, name = client.split("/")
        command = (PYTHON, str(POD_PROGRAM), action, json.dumps(arguments))
        done = self.lab.exec(name, *command, namespace=namespace, timeout=timeout)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def ask(self, client: str, host: str, port: int = PORT) -> str:
        """What a server says about who the client is: its address, or the name of an error."""
        (answer,) = self.sweep(client, [(host, port)])
        return answer

    def sweep(self, client: str, targets: Sequence[tuple[str, int]], text: str = "") -> list[str]:
        """The same for many, at once."""
        answers = self.act(client, "sweep", targets=list(targets), text=text)
        assert isinstance(answers, list)
        return answers

    def reaches(self, client: str, server: str, port: int = PORT) -> bool:
        """Whether a pod gets an answer from another by its pod address, with its own address as the client's."""
        return self.ask(client, self.address(server), port) in self.pod(client).addresses

    # What there is

    def pod(self, place: str) -> PodStatus:
        namespace, name = place.split("/")
        return self.status.pod(name, namespace)

    def address(self, place: str, family: int = 4) -> str:
        return self.pod(place).addresses[0 if family == 4 else 1]

    def service_address(self, place: str, family: int = 4) -> str:
        namespace, name = place.split("/")
        return self.lab.status().service(name, namespace).addresses[0 if family == 4 else 1]

    # Evidence

    def access_lines(self, node: str) -> list[AccessLine]:
        return list(read_access_lines(self.lab.logs(f"ztunnel/{node}")))

    def wait_for_line(self, node: str, matches: Callable[[AccessLine], bool], after: int = 0) -> AccessLine:
        """The first access line of a node that matches, of those after the first `after`; fails when none comes."""
        found = wait_for(
            lambda: next((line for line in self.access_lines(node)[after:] if matches(line)), None), PATIENCE_SECONDS
        )
        assert found, "\n".join(str(line) for line in self.access_lines(node)[after:])
        return found

    def metrics(self, node: str) -> list[Sample]:
        return parse_metrics(self.fetch(f"ztunnel/{node}", "http://127.0.0.1:15020/metrics"))

    def fetch(self, process: str, url: str, method: str = "GET") -> str:
        """A page as seen from inside a process's network."""
        done = subprocess.run(
            [*self.beside(process), "curl", *CURL_OPTIONS, "--request", method, url],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def beside(self, process: str) -> list[str]:
        """The words before a command that let it run in a process's network (nsenter(1))."""
        pid = self.lab.status().process(process).pid
        assert pid is not None, f"{process} is down"
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", str(pid), *user, "--net", "--"]

    def controller_state(self) -> dict[str, object]:
        state = json.loads(self.fetch("controller", "http://127.0.0.1:15014/debug/state"))
        assert isinstance(state, dict)
        return state

    # Changes

    @contextmanager
    def applied(self, *documents: Document) -> Iterator[None]:
        """Apply objects, and delete them at the end."""
        given = source(*documents)
        self.lab.apply(given)
        try:
            yield
        finally:
            self.lab.delete(given)


def eventually(look: Callable[[], T], timeout_seconds: float = PATIENCE_SECONDS) -> T:
    """The first true value that `look` returns; fails when there is none in time."""
    found = wait_for(look, timeout_seconds)
    assert found, "it did not become true"
    return found


@contextmanager
def standing(name: str, *documents: Document, nodes: int = 2) -> Iterator[Mesh]:
    """A lab of these objects, down again at the end. Its warnings are failures."""
    with run_folder() as settings, Lab.up([source(lab(name, nodes), *documents)], name, settings=settings) as up:
        assert not up.warnings
        yield Mesh(up, up.status())
