"""What a large mesh costs the controller: time to start, to tell many agents, to pass a change on, and memory.

A real controller reads real files; the agents are streams of ztunnel's own discovery client, hundreds in one process
(dataplane/io/examples/agents.rs), which count and acknowledge what they are told. All of it shares this machine's
processors: on a cluster the agents have their own.
"""

import tempfile
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from bench.agents import Agents, build_program, running_agents
from bench.effort import QUICK, Effort, report_progress
from bench.pods import parse_memory
from bench.report import BenchError, Row, ours_at_most
from tests.support.controller_process import ControllerProcess, DeltaStream

PODS_PER_SERVICE = 10
PODS_PER_FILE = 1_000
NAMESPACES = 50
CHANGES = 40
PAUSE_SECONDS = 0.1
"""Between two changes, so that each is measured by itself, and not as a part of the one before."""
TIMEOUT_SECONDS = 600.0
ROUTE_TYPE = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything. `listing` agents come back with a list of all they have, 10 MB each at 100,000."""

    workloads: int
    agents: int
    listing: int
    routes: int


FULL_SIZE = Size(100_000, 1_000, 50, 5_000)
QUICK_SIZE = Size(1_000, 20, 20, 100)


def run(effort: Effort) -> list[Row]:
    """Measure; raises BenchError when the program of the agents cannot be built."""
    size = QUICK_SIZE if effort is QUICK else FULL_SIZE
    is_full = size is FULL_SIZE
    program = build_program()
    with tempfile.TemporaryDirectory(prefix="ambit-bench-") as folder:
        rows = _measure_agents(program, Path(folder), size, is_full)
    with tempfile.TemporaryDirectory(prefix="ambit-bench-") as folder:
        rows += _measure_routes(Path(folder), size.routes, is_full)
    return rows


# Agents ---------------------------------------------------------------------------------------------------------------


def _measure_agents(program: str, folder: Path, size: Size, is_full: bool) -> list[Row]:
    controller = ControllerProcess(folder)
    write_tokens(controller, folder, size.agents)
    report_progress(f"writing {size.workloads:,} pods")
    resources = write_pods(controller, size.workloads)
    rows = []
    title = f"{size.workloads:,} workloads, {size.agents:,} agents"
    with controller:
        started = time.monotonic()
        controller.launch()
        controller.wait_until_ready(TIMEOUT_SECONDS)
        seconds = time.monotonic() - started
        report_progress(f"the controller started in {seconds:.1f} s")
        rows.append(_row(f"{size.workloads:,} workloads: from start to serving", "s", seconds, 30, is_full))
        with agents_of(program, controller, folder, size.agents) as agents:
            started = time.monotonic()
            agents.send(f"connect {resources}")
            seconds = agents.wait("done")["done"] - started
            report_progress(f"all agents know everything after {seconds:.1f} s")
            rows.append(_row(f"{title}: all connect at once and are told everything", "s", seconds, 60, is_full))
            latencies = sorted(change_and_wait(controller, agents, number % 2 == 1) for number in range(CHANGES))
            p50, p99 = latencies[len(latencies) // 2] * 1e3, latencies[-1] * 1e3
            report_progress(f"a change reaches the last agent in {p50:.0f} ms, at most {p99:.0f}")
            rows.append(_row(f"{title}: a pod changes, until the last has it, p50", "ms", p50, None, is_full))
            rows.append(
                _row(f"{title}: a pod changes, until the last has it, highest of {CHANGES}", "ms", p99, 100, is_full)
            )
            memory = parse_memory(Path(f"/proc/{controller.pid}/smaps_rollup").read_text()).pss_mebibytes
            rows.append(_row(f"{title}: PSS of the controller", "MiB", memory, 1024, is_full))
            agents.send("drop")
            aim = 5.0 if is_full else None
            rows.append(_measure_return(agents, "resume", f"{title}: all come back at once, with a summary", aim))
        with agents_of(program, controller, folder, size.listing) as agents:
            agents.send(f"connect {resources}")
            agents.wait("done")
            agents.send("drop")
            title = f"{size.workloads:,} workloads: {size.listing} agents come back with a list of versions"
            rows.append(_measure_return(agents, "relist", title))
    return rows


def agents_of(program: str, controller: ControllerProcess, folder: Path, count: int) -> AbstractContextManager[Agents]:
    """The agents of a controller that runs in `folder`, not connected yet."""
    root = controller.state / "root-cert.pem"
    return running_agents(program, controller.address("agents"), root, folder / "tokens.d", count)


def _measure_return(agents: Agents, command: str, title: str, aim: float | None = None) -> Row:
    started = time.monotonic()
    agents.send(command)
    answer = agents.wait("done")
    seconds = answer["done"] - started
    report_progress(f"{title}: {seconds:.1f} s; sent again: {answer['resources']:.0f}")
    return Row(
        f"{title}, {answer['resources']:.0f} resources sent again",
        "s",
        seconds,
        aim=ours_at_most(aim) if aim is not None else None,
    )


def change_and_wait(controller: ControllerProcess, agents: Agents, is_ready: bool) -> float:
    """Let one pod become ready, or not; how long until every agent was told."""
    text = build_pod(0, is_ready)
    time.sleep(PAUSE_SECONDS)
    started = time.monotonic()
    controller.write("changing.yaml", text)
    return agents.wait("round")["round"] - started


def write_tokens(controller: ControllerProcess, folder: Path, count: int) -> None:
    """A token for each agent's node."""
    tokens = {f"node-{number}": f"token-{number}" for number in range(count)}
    (folder / "tokens.d").mkdir()
    for number in range(count):
        (folder / "tokens.d" / str(number)).write_text(f"token-{number}")
    controller.write_tokens(tokens)


def write_pods(controller: ControllerProcess, count: int) -> int:
    """Pods and their services; gives how many resources they make. The first pod has a file of its own."""
    for first in range(0, count, PODS_PER_FILE):
        numbers = range(first, min(count, first + PODS_PER_FILE))
        texts = [build_pod(number) for number in numbers if number]
        texts += [build_service(number) for number in numbers if number % PODS_PER_SERVICE == 0]
        controller.write(f"pods-{first}.yaml", "".join(texts))
    controller.write("changing.yaml", build_pod(0))
    return count + -(-count // PODS_PER_SERVICE)


def build_pod(number: int, is_ready: bool = True) -> str:
    """A pod as Kubernetes would show it, as far as it is read."""
    deployment = number // PODS_PER_SERVICE
    metadata = f"name: deployment-{deployment}-{deployment * 7919:010x}-{number:05}, namespace: {_place(deployment)}"
    return (
        f"{{apiVersion: v1, kind: Pod, metadata: {{{metadata}, labels: {{app: deployment-{deployment}}}, "
        "annotations: {ambient.istio.io/redirection: enabled}}, "
        f"spec: {{nodeName: node-{number % 1000}, serviceAccountName: account}}, status: {{phase: Running, "
        f"podIP: {IPv4Address('10.0.0.1') + number}, conditions: [{{type: Ready, status: '{is_ready}'}}]}}}}\n---\n"
    )


def build_service(number: int) -> str:
    """The service of a pod and its neighbours."""
    deployment = number // PODS_PER_SERVICE
    spec = f"{{clusterIP: {IPv4Address('100.64.0.1') + deployment}, selector: {{app: deployment-{deployment}}}"
    metadata = f"{{name: deployment-{deployment}, namespace: {_place(deployment)}}}"
    return f"{{apiVersion: v1, kind: Service, metadata: {metadata}, spec: {spec}, ports: [{{port: 80}}]}}}}\n---\n"


def _place(deployment: int) -> str:
    return f"namespace-{deployment % NAMESPACES}"


# Routes ---------------------------------------------------------------------------------------------------------------


def _measure_routes(folder: Path, count: int, is_full: bool) -> list[Row]:
    """So many HTTPRoutes, each of a service of its own; one changes."""
    controller = ControllerProcess(folder)
    for number in range(count):
        controller.write(f"route-{number}.yaml", build_service(number * PODS_PER_SERVICE) + build_route(number, 1))
    with controller:
        controller.launch()
        controller.wait_until_ready(TIMEOUT_SECONDS)
        channel = controller.connect()
        stream = DeltaStream(channel, "token-1")
        name = f"service/deployment-0.{_place(0)}.svc.cluster.local/80"
        stream.send(ROUTE_TYPE, resource_names_subscribe=[name])
        stream.receive_and_acknowledge(TIMEOUT_SECONDS)
        latencies = []
        for number in range(CHANGES):
            time.sleep(PAUSE_SECONDS)
            started = time.monotonic()
            controller.write("route-0.yaml", build_service(0) + build_route(0, number + 2))
            response = stream.receive_and_acknowledge()
            latencies.append((time.monotonic() - started) * 1e3)
            if [each.name for each in response.resources] != [name]:
                raise BenchError(f"a changed route sent {[each.name for each in response.resources]}")
        stream.close()
        channel.close()
    latencies.sort()
    title = f"{count:,} HTTPRoutes: one changes, until its reader has it, one resource sent"
    return [
        _row(f"{title}, p50", "ms", latencies[len(latencies) // 2], None, is_full),
        _row(f"{title}, highest of {CHANGES}", "ms", latencies[-1], 50, is_full),
    ]


def build_route(number: int, weight: int) -> str:
    """An HTTPRoute of a service."""
    name, place = f"deployment-{number}", _place(number)
    backends = f"[{{name: {name}, port: 80, weight: {weight}}}, {{name: {name}, port: 80, weight: 1}}]"
    spec = f"{{parentRefs: [{{group: '', kind: Service, name: {name}}}], rules: [{{backendRefs: {backends}}}]}}"
    head = f"apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: {name}, namespace: {place}}}"
    return f"{{{head}, spec: {spec}}}\n"


def _row(title: str, unit: str, value: float, aim: float | None, is_full: bool) -> Row:
    """Aims are those of the full size."""
    return Row(title, unit, value, aim=ours_at_most(aim) if aim is not None and is_full else None)
