"""A mesh of 10,000 pods on a real API server, for 300 agents: what a control plane takes, in time and memory.

etcd, kube-apiserver and Kubernetes' own controllers are the real ones, and so are the agents' tokens, which the API
server is asked to review. In a full run a stock istiod does the same in the same cluster afterwards. All of it shares
this machine's processors: in a cluster the API server and the agents have their own.

A change is a pod's Ready condition, by a PATCH of its status. Its clock starts before the first byte of the request is
written, and ends when the last agent has been told: so the API server's own work, etcd's included, is in it.
"""

import json
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPSConnection
from pathlib import Path

import yaml

from bench.agents import Agents, build_program, running_agents
from bench.control_planes import ControlPlane, running_controller, running_istiod
from bench.effort import QUICK, Effort, report_progress
from bench.pods import parse_memory
from bench.population import Population, build_status, name_pod, populate
from bench.report import BenchError, Row, ours_at_most
from tests.support.controller_process import REPOSITORY
from tests.support.kubernetes import API_PORT, USER_TOKEN, Kubernetes, find_peer, kubernetes

PAUSE_SECONDS = 0.2
"""Between two changes, so that each is measured by itself."""
TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything, and whether istiod is measured too."""

    population: Population
    changes: int
    has_peer: bool


FULL_SIZE = Size(Population(10_000, 300), 100, has_peer=True)
QUICK_SIZE = Size(Population(300, 20), 20, has_peer=False)


@dataclass(frozen=True, slots=True)
class Figures:
    """What a control plane took: seconds, MiB of PSS without and with agents, and sorted milliseconds of changes.

    The latter are from before the request, and from its answer, until the last agent was told.
    """

    start_seconds: float
    connect_seconds: float
    from_request: list[float]
    from_answer: list[float]
    idle_mebibytes: float
    mebibytes: float


@dataclass(frozen=True, slots=True)
class _Measure:
    """A row of the table."""

    title: str
    unit: str
    read: Callable[[Figures], float]
    aim: float | None = None


_CHANGED = "a pod changes, until the last has it"
_MEASURES = (
    _Measure("from start to serving", "s", lambda each: each.start_seconds),
    _Measure("all agents connect at once, until the last has everything", "s", lambda each: each.connect_seconds, 3.5),
    _Measure(f"{_CHANGED}, p50", "ms", lambda each: _percentile(each.from_request, 50), 30),
    _Measure(f"{_CHANGED}, p99", "ms", lambda each: _percentile(each.from_request, 99), 100),
    _Measure(f"{_CHANGED}, highest", "ms", lambda each: each.from_request[-1]),
    _Measure(f"{_CHANGED}, from the API server's answer on, p50", "ms", lambda each: _percentile(each.from_answer, 50)),
    _Measure(f"{_CHANGED}, from the API server's answer on, p99", "ms", lambda each: _percentile(each.from_answer, 99)),
    _Measure("PSS before agents come", "MiB", lambda each: each.idle_mebibytes),
    _Measure("PSS after all of this", "MiB", lambda each: each.mebibytes, 300),
)


def run(effort: Effort) -> list[Row]:
    """Measure; raises BenchError when a program is missing or fails."""
    size = QUICK_SIZE if effort is QUICK else FULL_SIZE
    program = build_program()
    with tempfile.TemporaryDirectory(prefix="ambit-bench-") as name, running_cluster() as cluster:
        tokens = Path(name) / "tokens.d"
        tokens.mkdir()
        populate(cluster, size.population, tokens)
        wait_for_slices(cluster, size.population.services)
        peer = None
        with running_controller(cluster, Path(name)) as controller:
            ours = measure(program, cluster, controller, tokens, size)
        if size.has_peer:
            with running_istiod(cluster) as istiod:
                peer = measure(program, cluster, istiod, tokens, size)
    return build_rows(size, ours, peer)


def build_rows(size: Size, ours: Figures, peer: Figures | None) -> list[Row]:
    """The table. Aims are those of the full size."""
    title = f"{size.population.pods:,} pods, {size.population.nodes} agents"
    return [
        Row(
            f"{title}: {each.title}",
            each.unit,
            each.read(ours),
            each.read(peer) if peer is not None else None,
            ours_at_most(each.aim) if each.aim is not None and size is FULL_SIZE else None,
        )
        for each in _MEASURES
    ]


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


def measure(program: str, cluster: Kubernetes, plane: ControlPlane, tokens: Path, size: Size) -> Figures:
    """Have all agents connect, then change a pod again and again. Raises BenchError."""
    people = size.population
    idle = _read_pss(plane.pid)
    report_progress(f"{plane.name}: serves after {plane.start_seconds:.2f} s, with {idle:.0f} MiB")
    with running_agents(program, plane.address, plane.root, tokens, people.nodes, plane.server_name) as agents:
        started = time.monotonic()
        agents.send(f"connect {people.resources}")
        seconds = agents.wait("done")["done"] - started
        report_progress(f"{plane.name}: all {people.nodes} agents have {people.resources:,} resources: {seconds:.2f} s")
        with _Changer(cluster) as changer:
            found = [changer.change(agents, number % 2 == 1) for number in range(size.changes)]
        memory = _read_pss(plane.pid)
    from_request, from_answer = (sorted(each) for each in zip(*found, strict=True))
    report_progress(
        f"{plane.name}: the last of them has a change after {_percentile(from_request, 50):.1f} ms (p50), "
        f"{_percentile(from_request, 99):.1f} ms (p99); {memory:.0f} MiB"
    )
    return Figures(plane.start_seconds, seconds, from_request, from_answer, idle, memory)


class _Changer:
    """One connection to the API server, by which a pod becomes ready, or not."""

    def __init__(self, cluster: Kubernetes) -> None:
        trust = ssl.create_default_context(cafile=cluster.certificate_authority)
        self._connection = HTTPSConnection(cluster.address, API_PORT, timeout=TIMEOUT_SECONDS, context=trust)
        self._connection.connect()

    def __enter__(self) -> "_Changer":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def change(self, agents: Agents, is_ready: bool) -> tuple[float, float]:
        """Gives milliseconds from before the request, and from its answer, until the last agent was told."""
        namespace, name = name_pod(0)
        body = json.dumps({"status": build_status(0, is_ready)})
        headers = {"Authorization": f"Bearer {USER_TOKEN}", "Content-Type": "application/merge-patch+json"}
        time.sleep(PAUSE_SECONDS)
        started = time.monotonic()
        self._connection.request("PATCH", f"/api/v1/namespaces/{namespace}/pods/{name}/status", body, headers)
        answer = self._connection.getresponse()
        answered = time.monotonic()
        text = answer.read()
        if answer.status != HTTPStatus.OK:
            raise BenchError(f"the API server refuses the change of a pod: {answer.status} {text[:500]!r}")
        told = agents.wait("round")["round"]
        if told < started:
            raise BenchError("agents were told of something else than the change, so nothing of this counts")
        return (told - started) * 1e3, (told - answered) * 1e3


def _percentile(ordered: list[float], percent: int) -> float:
    """By nearest rank."""
    return ordered[-(-len(ordered) * percent // 100) - 1]


def _read_pss(pid: int) -> float:
    return parse_memory(Path(f"/proc/{pid}/smaps_rollup").read_text()).pss_mebibytes
