"""What the controller costs as a mesh grows, as pictures: bench/results/growth.svg.

By workloads: its start and its memory. By agents: how long it takes until all of them have everything, or a change.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.agents import build_program
from bench.curves import Panel, draw
from bench.effort import QUICK, Effort
from bench.pods import parse_memory
from bench.report import Row
from bench.scale import CHANGES, TIMEOUT_SECONDS, agents_of, change_and_wait, write_pods, write_tokens
from tests.support.controller_process import ControllerProcess

PICTURE = Path(__file__).with_name("results") / "growth.svg"

WORKLOADS = (100, 1_000, 10_000, 100_000)
AGENTS = (10, 100, 300, 1_000)
WORKLOADS_OF_AGENTS = 1_000
"""Known to each of the agents, however many these are."""
QUICK_POINTS = 2
"""So many of each curve in a quick run."""


def run(effort: Effort) -> list[Row]:
    """Measure all curves and draw them; raises BenchError."""
    start = Panel("the controller's start", "workloads", "s")
    memory = Panel("the controller's memory", "workloads", "MiB")
    together = Panel(f"agents that all come at once have {WORKLOADS_OF_AGENTS:,} workloads", "agents", "s")
    change = Panel("a pod changes, until the last agent has it", "agents", "ms")
    points = QUICK_POINTS if effort is QUICK else len(WORKLOADS)
    for count in WORKLOADS[:points]:
        with _running_controller(count) as (controller, _, seconds):
            start.add("from start to serving", count, seconds)
            memory.add("PSS, without agents", count, _read_pss(controller))
    program = build_program()
    for count in AGENTS[:points]:
        with (
            _running_controller(WORKLOADS_OF_AGENTS, count) as (controller, resources, _),
            agents_of(program, controller, controller.config.parent, count) as agents,
        ):
            started = time.monotonic()
            agents.send(f"connect {resources}")
            together.add("until the last has them", count, agents.wait("done")["done"] - started)
            found = sorted(change_and_wait(controller, agents, number % 2 == 1) for number in range(CHANGES))
            change.add("p50", count, found[CHANGES // 2] * 1e3)
            change.add(f"highest of {CHANGES}", count, found[-1] * 1e3)
    panels = [start, memory, together, change]
    if effort is not QUICK:
        draw(panels, PICTURE)
    return [row for panel in panels for row in panel.rows()]


@contextmanager
def _running_controller(workloads: int, agents: int = 1) -> Iterator[tuple[ControllerProcess, int, float]]:
    """A controller of so many workloads, in files; with it how many resources these make, and the seconds it took."""
    with tempfile.TemporaryDirectory(prefix="ambit-bench-") as name:
        controller = ControllerProcess(Path(name))
        write_tokens(controller, Path(name), agents)
        resources = write_pods(controller, workloads)
        with controller:
            started = time.monotonic()
            controller.launch()
            controller.wait_until_ready(TIMEOUT_SECONDS)
            yield controller, resources, time.monotonic() - started


def _read_pss(controller: ControllerProcess) -> float:
    return parse_memory(Path(f"/proc/{controller.pid}/smaps_rollup").read_text()).pss_mebibytes
