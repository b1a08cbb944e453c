"""What clients notice when ztunnels are replaced, and when one is killed: connections at a steady rate meanwhile."""

import time
from concurrent.futures import ThreadPoolExecutor

from bench.effort import QUICK, Effort, report_progress
from bench.pods import BenchLab, running_lab
from bench.report import Row, ours_at_most
from bench.setups import (
    AMBIENT,
    CLIENT,
    ECHO_PORT,
    FAR,
    NEAR,
    NODES,
    build_echo_container,
    build_idle_container,
    build_namespace,
    build_pod,
)

RATE = 200
"""New connections a second, to both nodes in turn."""

REPLACEMENTS = {"quick": 4, "full": 20}
SECONDS_EACH = 3.0
"""Of one replacement: a ztunnel starts, takes the sockets over, and the old one drains."""

KILL_SECONDS = 8.0
KILL_AFTER_SECONDS = 3.0
KILLS = 3
OUTAGE_MILLISECONDS = 1000


def run(effort: Effort) -> list[Row]:
    """Replace ztunnels of both nodes in turn, then kill them; raises BenchError."""
    documents = [
        build_namespace(AMBIENT),
        build_pod(AMBIENT, CLIENT, NODES[0], [build_idle_container()]),
        build_pod(AMBIENT, NEAR, NODES[0], [build_echo_container()]),
        build_pod(AMBIENT, FAR, NODES[1], [build_echo_container()]),
    ]
    with running_lab("bench-upgrade", documents, ()) as lab, ThreadPoolExecutor(1) as background:
        return [*_replace(lab, background, REPLACEMENTS[effort.name]), *_kill(lab, background, effort)]


def _replace(lab: BenchLab, background: ThreadPoolExecutor, count: int) -> list[Row]:
    report_progress(f"{count} replacements under {RATE} connections a second")
    pacing = background.submit(_pace, lab, count * SECONDS_EACH, (NEAR, FAR))
    for number in range(count):
        started = time.monotonic()
        lab.lab.replace_process(f"ztunnel/{NODES[number % len(NODES)]}")
        time.sleep(max(0.0, SECONDS_EACH - (time.monotonic() - started)))
    found = pacing.result()
    title = f"{count} replacements, {RATE} new connections/s"
    return [
        Row(f"{title}: failures", "connections", found["failures"], aim=ours_at_most(0)),
        Row(f"{title}: connections", "connections", found["count"]),
        Row(f"{title}: slowest", "ms", found["slowest_ms"]),
    ]


def _kill(lab: BenchLab, background: ThreadPoolExecutor, effort: Effort) -> list[Row]:
    kills = 1 if effort is QUICK else KILLS
    report_progress(f"{kills} times SIGKILL of each ztunnel")
    gaps = []
    for node, server in ((NODES[0], NEAR), (NODES[1], FAR)):
        for _ in range(kills):
            pacing = background.submit(_pace, lab, KILL_SECONDS, (server,))
            time.sleep(KILL_AFTER_SECONDS)
            lab.lab.kill_process(f"ztunnel/{node}")
            gaps.append(pacing.result()["longest_gap_ms"])
    title = "SIGKILL: longest time without a new connection"
    return [Row(f"{title}, of {len(gaps)}", "ms", max(gaps), aim=ours_at_most(OUTAGE_MILLISECONDS))]


def _pace(lab: BenchLab, seconds: float, servers: tuple[str, ...]) -> dict[str, float]:
    addresses = [lab.address(AMBIENT, server) for server in servers]
    arguments = [str(ECHO_PORT), str(RATE), str(seconds), *addresses]
    return lab.run_program(AMBIENT, CLIENT, "pace", *arguments, timeout_seconds=seconds + 60)
