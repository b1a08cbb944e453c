"""What the mesh costs as it grows, as pictures: memory and latency by idle connections, throughput by streams, and
memory by workloads known. Ours beside the peers, in one run; bench/results/curves.svg has the picture.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import haproxy, state
from bench.certificates import read_mutual_tls_files
from bench.effort import QUICK, Effort, report_progress
from bench.holding import held_connections
from bench.l4 import PORTS, PROGRAMS
from bench.loads import parse_iperf
from bench.pods import BenchLab, running_lab, write_nginx_configuration
from bench.report import Row
from bench.setups import (
    AMBIENT_ACROSS,
    CLIENT,
    ECHO_PORT,
    ENVOY_PAIR,
    FAR,
    HAPROXY,
    HAPROXY_PAIR,
    IPERF_PORT,
    NO_MESH,
    NODES,
    SIDECAR,
    Setup,
    as_source,
    build_idle_container,
    build_namespace,
    build_paths,
    build_pod,
    build_server_containers,
)
from bench.sidecar import write_sidecar_files

PICTURE = Path(__file__).with_name("results") / "curves.svg"

CONNECTIONS = (1, 10, 100, 1000, 5000, 9000)
STREAMS = (1, 2, 4, 8, 16, 32)
QUICK_POINTS = 3
"""So many of each curve in a quick run."""

STREAM_SECONDS = 2
PING_SECONDS = "1.0"
SETTLE_SECONDS = 3.0


@dataclass(slots=True)
class Panel:
    """One picture: values by set-up's name and x."""

    title: str
    x: str
    y: str
    curves: dict[str, dict[float, float]] = field(default_factory=dict)

    def add(self, name: str, x: float, y: float) -> None:
        """One more point."""
        self.curves.setdefault(name, {})[x] = y
        report_progress(f"{self.title}: {name} at {x:,g}: {y:.4g} {self.y}")

    def rows(self) -> list[Row]:
        """The same as rows of a table."""
        points = ((name, x, y) for name, curve in self.curves.items() for x, y in curve.items())
        return [Row(f"{self.title}: {name}, {x:,g} {self.x}", self.y, y) for name, x, y in points]


def run(effort: Effort) -> list[Row]:
    """Measure all curves and draw them; raises BenchError."""
    memory = Panel("memory with idle connections", "idle connections", "MiB")
    latency = Panel("p50 of a round trip beside idle connections", "idle connections", "us")
    throughput = Panel("throughput across nodes", "streams", "Gbit/s")
    known = Panel("memory of a known mesh", "workloads", "MiB added")
    points = QUICK_POINTS if effort is QUICK else max(len(CONNECTIONS), len(STREAMS))
    with tempfile.TemporaryDirectory(prefix="ambit-bench-") as name:
        folder = Path(name)
        nginx, sidecar = write_nginx_configuration(folder), write_sidecar_files(folder)
        tls = haproxy.write_certificates(folder, read_mutual_tls_files(folder))
        server = haproxy.haproxy_container(haproxy.write_server_configuration(folder, tls, PORTS))
        documents = [
            *build_paths(nginx, sidecar),
            build_namespace(HAPROXY),
            build_pod(HAPROXY, FAR, NODES[1], [*build_server_containers(nginx), server]),
        ]
        with running_lab("bench-curves", documents, PROGRAMS) as lab:
            configuration = haproxy.write_client_configuration(folder, tls, PORTS, lab.address(HAPROXY, FAR))
            client = haproxy.haproxy_container(configuration)
            lab.apply(as_source([build_pod(HAPROXY, CLIENT, NODES[0], [build_idle_container(), client])]))
            for streams in STREAMS[:points]:
                for setup in (NO_MESH, AMBIENT_ACROSS, ENVOY_PAIR, HAPROXY_PAIR):
                    throughput.add(setup.title, streams, _throughput(lab, setup, streams))
            for count in CONNECTIONS[:points]:
                for setup in (AMBIENT_ACROSS, ENVOY_PAIR):
                    _hold(lab, setup, count, memory, latency)
    for found in state.measure_in_child(state.COUNTS[:points]):
        known.add("ztunnel", found["count"], found["added_mebibytes"])
    panels = [memory, latency, throughput, known]
    if effort is not QUICK:
        draw(panels, PICTURE)
        report_progress(f"written: {PICTURE}")
    return [row for panel in panels for row in panel.rows()]


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Two rows of pictures, both axes logarithmic where the values span more than a decade."""
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    # Text stays text, and the same figures give the same file.
    rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "ambit"})
    figure = Figure(figsize=(11, 8), layout="constrained")
    for axes, panel in zip(figure.subplots(2, 2).flat, panels, strict=True):
        for name, curve in panel.curves.items():
            axes.plot(list(curve), list(curve.values()), marker="o", label=name)
        axes.set(title=panel.title, xlabel=panel.x, ylabel=panel.y, xscale="log", yscale=_scale(panel.curves))
        if axes.get_yscale() == "linear":
            axes.set_ylim(bottom=0)
        axes.grid(visible=True, which="major", alpha=0.3)
        axes.legend()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def _scale(curves: Mapping[str, Mapping[float, float]]) -> str:
    values = [value for curve in curves.values() for value in curve.values()]
    return "log" if min(values) > 0 and max(values) / min(values) > 10 else "linear"


def _throughput(lab: BenchLab, setup: Setup, streams: int) -> float:
    server = setup.dialled or lab.address(setup.namespace, setup.server)
    command = ["iperf3", "--client", server, "--port", str(IPERF_PORT), "--json"]
    command += ["--time", str(STREAM_SECONDS), "--parallel", str(streams)]
    return parse_iperf(lab.run(setup.namespace, CLIENT, command, timeout_seconds=60))


def _hold(lab: BenchLab, setup: Setup, count: int, memory: Panel, latency: Panel) -> None:
    address = lab.address(setup.namespace, FAR)
    with held_connections(lab, setup.namespace, address, count):
        time.sleep(SETTLE_SECONDS)
        found = lab.run_program(setup.namespace, CLIENT, "ping", address, str(ECHO_PORT), PING_SECONDS)
        latency.add(setup.title, count, found["p50_us"])
        if setup is AMBIENT_ACROSS:
            memory.add("ztunnel", count, max(lab.process_memory(f"ztunnel/{node}").pss_mebibytes for node in NODES))
        else:
            memory.add("one Envoy", count, max(lab.envoy_memory(SIDECAR, pod).pss_mebibytes for pod in (CLIENT, FAR)))
