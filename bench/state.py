"""What a large mesh costs a ztunnel: memory, time to take it in, and what running connections notice of that.

A real ztunnel with real pods is told of workloads by the control plane of the tests (tests.support.chosen_mesh), over
the same xDS as any other. It runs in network namespaces of its own, so the measuring is done by a child:
`python -m bench.state COUNT...` prints one JSON object a step.
"""

import functools
import json
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

from ambit.demo.polling import wait_for
from bench.effort import QUICK, Effort, report_progress
from bench.pods import parse_memory
from bench.report import BenchError, Row, ours_at_most, ratio_at_most
from mesh.wire import workload_pb2 as pb

if TYPE_CHECKING:
    from tests.support.chosen_mesh import ChosenMesh, Host

COUNTS = (10, 1_000, 10_000, 100_000)
QUICK_COUNTS = (10, 1_000)
PODS_PER_SERVICE = 10
PODS_PER_NODE = 100
NAMESPACES = 50

ADDED_MEBIBYTES = 50
APPLY_SECONDS = 2.0
SLOWER = 2.0
"""What 100,000 workloads may cost."""

PING_SECONDS = 0.5
PINGS_BEFORE = 6
ECHO_PORT = 7000
TIMEOUT_SECONDS = 300


def run(effort: Effort) -> list[Row]:
    """Measure step by step; raises BenchError when the child fails."""
    counts = QUICK_COUNTS if effort is QUICK else COUNTS
    return [
        row for found in measure_in_child(counts) for row in build_rows(found, is_last=found["count"] == COUNTS[-1])
    ]


def measure_in_child(counts: Sequence[int]) -> Iterator[dict[str, float]]:
    """What `measure` finds, in namespaces of its own; raises BenchError when the child fails."""
    as_root_of_its_own = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = ["unshare", *as_root_of_its_own, "--net", "--mount", sys.executable, "-m", "bench.state"]
    with subprocess.Popen([*command, *map(str, counts)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        for line in child.stdout:
            found = json.loads(line)
            report_progress(f"{found['count']:,} workloads: {found}")
            yield found
        if child.wait(TIMEOUT_SECONDS) != 0:
            raise BenchError("the measuring child failed; what it said stands above")


def build_rows(found: dict[str, float], *, is_last: bool) -> list[Row]:
    """The figures of one step; the aims are those of 100,000."""
    title = f"{int(found['count']):,} workloads known"
    memory_aim = ours_at_most(ADDED_MEBIBYTES) if is_last else None
    time_aim = ours_at_most(APPLY_SECONDS) if is_last else None
    latency_aim = ratio_at_most(SLOWER) if is_last else None
    p99 = "1-byte round trip across nodes, p99 while they are applied vs before"
    return [
        Row(f"{title}: PSS added", "MiB", found["added_mebibytes"], aim=memory_aim),
        Row(f"{title}: ztunnel's processor time to apply them", "s", found["apply_seconds"], aim=time_aim),
        Row(f"{title}: {p99}", "us", found["p99_during_us"], found["p99_before_us"], latency_aim),
        Row(f"{title}: the same without a mesh, at the same time", "us", *_bystander(found)),
    ]


def _bystander(found: dict[str, float]) -> tuple[float, float]:
    """What a machine whose processors are taken by the control plane does to anybody."""
    return found["bystander_during_us"], found["bystander_before_us"]


# In the child ---------------------------------------------------------------------------------------------------------


def measure(counts: list[int]) -> Iterator[dict[str, float]]:
    """Tell a ztunnel of more and more workloads."""
    from bench.programs import ping
    from tests.support.chosen_mesh import PATIENCE_SECONDS, chosen_mesh

    with ExitStack() as stack:
        with _elsewhere():
            mesh = stack.enter_context(chosen_mesh())
        client, server = mesh.add_pod("client"), mesh.add_pod("server", node="node-2")
        bystander, neighbour = mesh.add_host("bystander"), mesh.add_host("neighbour")
        mesh.tell(client.workload(), server.workload())
        ztunnel = mesh.start_ztunnel()
        mesh.start_ztunnel("node-2")
        programs = Path(ping.__file__).parent
        for place in (server, neighbour):
            mesh.run(place, sys.executable, str(programs / "echo_server.py"), str(ECHO_PORT), name="echo")
            if not wait_for(functools.partial(_listens, place), PATIENCE_SECONDS):
                raise BenchError(f"the echo server in {place.name} did not start")

        def ping_from(place: "Host", to: "Host") -> float:
            command = (sys.executable, ping.__file__, to.address, str(ECHO_PORT), str(PING_SECONDS))
            return float(json.loads(place.execute(*command))["p99_us"])

        def ping_once() -> tuple[float, float]:
            """The p99 across the mesh, and that of two machines outside of it at the same time."""
            with ThreadPoolExecutor(2) as both:
                ours, theirs = both.map(ping_from, (client, bystander), (server, neighbour))
                return ours, theirs

        ping_once()
        pid = ztunnel.process.pid
        known, start = 0, _memory(pid)
        for count in counts:
            before = [ping_once() for _ in range(PINGS_BEFORE)]
            resources = list(build_resources(known, count))
            spent = _processor_seconds(pid)
            during = _while_pinging(ping_once, functools.partial(_tell, mesh, resources))
            applied = _processor_seconds(pid)
            known = count
            yield {
                "count": count,
                "added_mebibytes": _memory(pid) - start,
                "apply_seconds": applied - spent,
                "p99_before_us": statistics.median(ours for ours, _ in before),
                "p99_during_us": max(ours for ours, _ in during),
                "bystander_before_us": statistics.median(theirs for _, theirs in before),
                "bystander_during_us": max(theirs for _, theirs in during),
            }


@contextmanager
def _elsewhere() -> Iterator[None]:
    """What this thread does meanwhile, and threads that it starts, gives way to everybody (SCHED_IDLE, sched(7)).

    In a real mesh the control plane is on a machine of its own: here it must not be what pings wait for.
    """
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _tell(mesh: "ChosenMesh", resources: "Sequence[pb.Workload | pb.Service]") -> None:
    with _elsewhere():
        mesh.tell(*resources)


def _listens(place: "Host") -> bool:
    """Whether the echo server in a pod or machine takes connections, seen from there."""
    try:
        place.connect("127.0.0.1", ECHO_PORT).close()
    except OSError:
        return False
    return True


def _while_pinging(ping_once: Callable[[], tuple[float, float]], act: Callable[[], None]) -> list[tuple[float, float]]:
    """Ping again and again while `act` runs; returns what each ping found."""
    found: list[tuple[float, float]] = []
    is_over = threading.Event()

    def ping() -> None:
        while not is_over.is_set():
            found.append(ping_once())

    pinging = threading.Thread(target=ping, name="ping")
    pinging.start()
    try:
        act()
    finally:
        is_over.set()
        pinging.join()
    return found


def build_resources(first: int, last: int) -> "Iterator[pb.Workload | pb.Service]":
    """Pods numbered from `first` to before `last`, as Kubernetes names them, and their services."""
    from tests.support.chosen_resources import service

    for number in range(first, last):
        deployment = number // PODS_PER_SERVICE
        namespace = f"namespace-{deployment % NAMESPACES}"
        name = f"deployment-{deployment}"
        if number % PODS_PER_SERVICE == 0:
            yield service(name, str(IPv4Address("100.64.0.1") + deployment), {80: 8080}, namespace=namespace)
        pod = f"{name}-{deployment * 7919:010x}-{number:05}"
        workload = pb.Workload(
            uid=f"Kubernetes//Pod/{namespace}/{pod}",
            name=pod,
            namespace=namespace,
            addresses=[(IPv4Address("10.0.0.1") + number).packed],
            tunnel_protocol=pb.HBONE,
            service_account="service-account",
            node=f"node-of-many-{number // PODS_PER_NODE}",
            canonical_name=name,
            canonical_revision="latest",
            workload_type=pb.POD,
            workload_name=name,
            cluster_id="Kubernetes",
        )
        ports = [pb.Port(service_port=80, target_port=8080)]
        workload.services[f"{namespace}/{name}.{namespace}.svc.cluster.local"].ports.extend(ports)
        yield workload


def _memory(pid: int) -> float:
    return parse_memory(Path(f"/proc/{pid}/smaps_rollup").read_text()).pss_mebibytes


def _processor_seconds(pid: int) -> float:
    """User and system time of its threads but those that carry connections (proc_pid_stat(5))."""
    ticks = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        if not (thread / "comm").read_text().startswith("worker-"):
            fields = (thread / "stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure what the command line asks for."""
    for found in measure([int(text) for text in sys.argv[1:]]):
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
