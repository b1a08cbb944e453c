"""A mesh of 10,000 pods on a real API server, for 300 agents: what the controller takes, in time and memory.

etcd, kube-apiserver and Kubernetes' own controllers are the real ones, and so are the agents' tokens, which the
controller has the API server review. A stock istiod does the same in the same cluster afterwards. All of it shares this
machine's processors: in a cluster the API server and the agents have their own.

A change is a pod's Ready condition, by a PATCH of its status. Its clock starts before the first byte of the request is
written, and ends when the last agent has been told: so the API server's own work, etcd's included, is in it.
"""

import json
import re
import ssl
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path

import yaml

from bench.agents import Agents, build_program, running_agents
from bench.effort import QUICK, Effort, report_progress
from bench.pods import parse_memory
from bench.population import Population, build_status, name_pod, populate
from bench.report import BenchError, Row, ours_at_most
from tests.support.controller_process import REPOSITORY, ControllerProcess
from tests.support.kubernetes import API_PORT, USER_TOKEN, Kubernetes, find_peer, kubernetes

PAUSE_SECONDS = 0.2
"""Between two changes, so that each is measured by itself."""
TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    population: Population
    changes: int


FULL_SIZE = Size(Population(10_000, 300), 100)
QUICK_SIZE = Size(Population(300, 20), 20)


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from before the request, and from its answer, until the last agent was told."""

    from_request: float
    from_answer: float


def run(effort: Effort) -> list[Row]:
    """Measure; raises BenchError when a program is missing or fails."""
    size = QUICK_SIZE if effort is QUICK else FULL_SIZE
    program = build_program()
    with tempfile.TemporaryDirectory(prefix="ambit-bench-") as name, running_cluster() as cluster:
        folder = Path(name)
        tokens = folder / "tokens.d"
        tokens.mkdir()
        populate(cluster, size.population, tokens)
        wait_for_slices(cluster, size.population.services)
        return _measure(program, cluster, folder, size)


@contextmanager
def running_cluster() -> Iterator[Kubernetes]:
    """An API server with the definitions of all that we read. Raises BenchError when its programs are missing."""
    try:
        for name in ("etcd", "kube-apiserver", "kube-controller-manager"):
            find_peer(name)
    except AssertionError as error:
        raise BenchError(str(error)) from error
    report_progress("starting Kubernetes")
    with kubernetes() as cluster:
        for path in sorted((REPOSITORY / "deploy" / "crds").glob("*.yaml")):
            cluster.apply(*yaml.load_all(path.read_text(), yaml.CSafeLoader))
        yield cluster


def wait_for_slices(cluster: Kubernetes, count: int) -> None:
    """Wait until Kubernetes has made an EndpointSlice for each Service. Raises BenchError."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        found = cluster.request("GET", "/apis/discovery.k8s.io/v1/endpointslices?limit=1")
        if len(found["items"]) + found["metadata"].get("remainingItemCount", 0) >= count:
            return
        time.sleep(0.5)
    raise BenchError(f"Kubernetes has not made {count} EndpointSlices in {TIMEOUT_SECONDS:.0f} s")


def _measure(program: str, cluster: Kubernetes, folder: Path, size: Size) -> list[Row]:
    is_full = size is FULL_SIZE
    people = size.population
    title = f"{people.pods:,} pods, {people.nodes} agents"
    rows = []

    def add(measure: str, unit: str, value: float, aim: float | None = None) -> None:
        report_progress(f"{measure}: {value:.4g} {unit}")
        rows.append(Row(measure, unit, value, aim=ours_at_most(aim) if aim is not None and is_full else None))

    controller = ControllerProcess(folder)
    with controller:
        started = time.monotonic()
        settings = {"AMBIT_CONFIG_DIR": "", "AMBIT_NODE_TOKENS": "", "AMBIT_KUBECONFIG": str(cluster.kubeconfig)}
        controller.launch(**settings)
        controller.wait_until_ready(TIMEOUT_SECONDS)
        add(f"{people.pods:,} pods: from start to serving", "s", time.monotonic() - started)
        add(f"{people.pods:,} pods: PSS of the controller before agents come", "MiB", _read_pss(controller.pid))
        resources = _count_resources(controller)
        least = people.pods + people.nodes + people.services
        if resources < least:
            raise BenchError(f"the controller serves {resources} of {least} resources: {controller.log[-20:]}")
        address, root = controller.address("agents"), controller.state / "root-cert.pem"
        with running_agents(program, address, root, folder / "tokens.d", people.nodes) as agents:
            started = time.monotonic()
            agents.send(f"connect {resources}")
            seconds = agents.wait("done")["done"] - started
            add(f"{title}: from their connecting at once until all have all {resources:,} resources", "s", seconds, 3.5)
            with _Changer(cluster) as changer:
                found = [changer.change(agents, number % 2 == 1) for number in range(size.changes)]
            changed = f"{title}: a pod changes, until the last has it"
            total = sorted(each.from_request for each in found)
            add(f"{changed}, p50", "ms", _percentile(total, 50), 30)
            add(f"{changed}, p99", "ms", _percentile(total, 99), 100)
            add(f"{changed}, highest of {size.changes}", "ms", total[-1])
            answered = sorted(each.from_answer for each in found)
            add(f"{changed}, from the API server's answer, p50", "ms", _percentile(answered, 50))
            add(f"{changed}, from the API server's answer, p99", "ms", _percentile(answered, 99))
            add(f"{title}: PSS of the controller after all", "MiB", _read_pss(controller.pid), 300)
    return rows


class _Changer:
    """One connection to the API server, by which a pod becomes ready, or not."""

    def __init__(self, cluster: Kubernetes) -> None:
        trust = ssl.create_default_context(cafile=cluster.certificate_authority)
        self._connection = HTTPSConnection(cluster.address, API_PORT, timeout=TIMEOUT_SECONDS, context=trust)

    def __enter__(self) -> "_Changer":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def change(self, agents: Agents, is_ready: bool) -> Latency:
        namespace, name = name_pod(0)
        body = json.dumps({"status": build_status(0, is_ready)})
        headers = {"Authorization": f"Bearer {USER_TOKEN}", "Content-Type": "application/merge-patch+json"}
        time.sleep(PAUSE_SECONDS)
        started = time.monotonic()
        self._connection.request("PATCH", f"/api/v1/namespaces/{namespace}/pods/{name}/status", body, headers)
        answer = self._connection.getresponse()
        answered = time.monotonic()
        text = answer.read()
        if answer.status != 200:
            raise BenchError(f"the API server refuses the change of a pod: {answer.status} {text[:500]!r}")
        told = agents.wait("round")["round"]
        return Latency((told - started) * 1e3, (told - answered) * 1e3)


def _percentile(ordered: list[float], percent: int) -> float:
    """By nearest rank."""
    return ordered[-(-len(ordered) * percent // 100) - 1]


def _read_pss(pid: int) -> float:
    return parse_memory(Path(f"/proc/{pid}/smaps_rollup").read_text()).pss_mebibytes


def _count_resources(controller: ControllerProcess) -> int:
    """How many addresses there are."""
    found = re.search(r'^ambit_xds_resources\{type="Address"\} (\d+)', controller.fetch("/metrics"), re.MULTILINE)
    return int(found.group(1)) if found else 0
