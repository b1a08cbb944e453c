"""A mesh in use for ten minutes: mixed load, pods that come and go, policies that change, certificates of 40 seconds.

Every answer is checked, certificates must really have been renewed, and what each process of the data path and the
controller hold must be as flat at the end as after the first minutes.
SOAK_SECONDS sets another length.
"""

import json
import os
import statistics
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bench.effort import QUICK, Effort, report_progress
from bench.pods import BenchLab, running_lab
from bench.report import BenchError, Row, ours_at_least, ours_at_most, ratio_at_most
from bench.settings import read_soak_seconds
from bench.setups import (
    AMBIENT,
    CLIENT,
    ECHO_PORT,
    FAR,
    HTTP_PORT,
    NEAR,
    NODES,
    Document,
    as_source,
    build_container,
    build_echo_container,
    build_idle_container,
    build_namespace,
    build_pod,
    build_service,
    python_program,
)

QUICK_SECONDS = 60.0
CERTIFICATE_LIFETIME_SECONDS = 40.0
RENEWED_SECONDS = CERTIFICATE_LIFETIME_SECONDS / 2
"""They are renewed at half of it."""

FETCHED = "certificate fetched"
"""What a ztunnel's log says of each."""

WEB, WEB_PORT = "web", 80
WEB_PROGRAM = (
    f"cd $(mktemp -d) && echo soak > name && exec python3 -m http.server --bind :: --protocol HTTP/1.1 {HTTP_PORT}"
)
LEFT_SECONDS = 30.0
"""What the load gets to end by itself when its time is over: as long as its last connection may wait, and more."""

GUARDED = "guarded"
CHURN_SECONDS = 4.0
SETTLED_AFTER = 0.25
"""Of the whole time: caches, pools and buffers have their size by then."""

GROWTH = 1.10
POLICY_PATIENCE_SECONDS = 5.0


@dataclass(slots=True)
class Series:
    """What one process held, look after look."""

    mebibytes: list[float] = field(default_factory=list)
    descriptors: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Findings:
    """What went on.

    `unexpected` are policies that did not do what they say, `certificates` how many each ztunnel fetched.
    """

    load: dict[str, object] = field(default_factory=dict)
    series: dict[str, Series] = field(default_factory=dict)
    churned: int = 0
    policy_changes: int = 0
    unexpected: list[str] = field(default_factory=list)
    certificates: dict[str, int] = field(default_factory=dict)


def run(effort: Effort) -> list[Row]:
    """Use the mesh as long as asked for; raises BenchError when the load ends by itself."""
    seconds = QUICK_SECONDS if effort is QUICK else read_soak_seconds()
    documents = [
        build_namespace(AMBIENT),
        build_pod(AMBIENT, CLIENT, NODES[0], [build_idle_container()]),
        build_pod(AMBIENT, NEAR, NODES[0], [build_echo_container()]),
        build_pod(AMBIENT, FAR, NODES[1], [build_echo_container()]),
        build_pod(AMBIENT, GUARDED, NODES[1], [build_echo_container()], {"app": GUARDED}),
        *(build_pod(AMBIENT, f"{WEB}-{node}", node, [_web_container()], {"app": WEB}) for node in NODES),
        build_service(AMBIENT, WEB, WEB_PORT, HTTP_PORT),
    ]
    environment = {"SECRET_TTL": f"{CERTIFICATE_LIFETIME_SECONDS:g}s"}
    with running_lab("bench-soak", documents, (), environment) as lab:
        return build_rows(_soak(lab, seconds), seconds)


def build_rows(findings: Findings, seconds: float) -> list[Row]:
    """What must be nothing, what was done, and what is held late against early."""
    when = f"{seconds:g} s"

    def count(name: str) -> float:
        value = findings.load.get(name, 0)
        assert isinstance(value, int)
        return float(value)

    rows = [
        Row(f"{when}: wrong answers", "messages", count("wrong"), aim=ours_at_most(0)),
        Row(f"{when}: connections that failed", "connections", count("failures"), aim=ours_at_most(0)),
        Row(f"{when}: policies without their effect", "changes", len(findings.unexpected), aim=ours_at_most(0)),
    ]
    # The first is no renewal, and the last may be due just after the end.
    fewest = max(0, int(seconds / RENEWED_SECONDS) - 1)
    for name, fetched in findings.certificates.items():
        rows.append(Row(f"{when}: {name}, certificates fetched", "certificates", fetched, aim=ours_at_least(fewest)))
    for name, series in findings.series.items():
        for what, unit, values in (("PSS", "MiB", series.mebibytes), ("descriptors", "", series.descriptors)):
            early, late = compare_ends(values)
            rows.append(Row(f"{when}: {name}, {what}, late vs early", unit, late, early, ratio_at_most(GROWTH)))
    rows += [
        Row(f"{when}: connections", "connections", count("connections")),
        Row(f"{when}: messages", "messages", count("messages")),
        Row(f"{when}: HTTP requests", "requests", count("requests"), aim=ours_at_least(1)),
        Row(f"{when}: bytes", "MiB", count("bytes") / (1 << 20)),
        Row(f"{when}: pods that came and went", "pods", findings.churned),
        Row(f"{when}: policy changes", "changes", findings.policy_changes),
    ]
    return rows


def compare_ends(values: Sequence[float]) -> tuple[float, float]:
    """The medians of the quarter after SETTLED_AFTER and of the last one."""
    quarter = max(1, len(values) // 4)
    first = int(len(values) * SETTLED_AFTER)
    return statistics.median(values[first : first + quarter]), statistics.median(values[-quarter:])


def _soak(lab: BenchLab, seconds: float) -> Findings:
    ztunnels = [f"ztunnel/{node}" for node in NODES]
    findings = Findings(series={name: Series() for name in (*ztunnels, "controller")})
    addresses = [lab.address(AMBIENT, pod) for pod in (NEAR, FAR)]
    command = python_program("soak", str(ECHO_PORT), str(seconds), WEB, *addresses)
    reading, writing = os.pipe()
    started = lab.lab.start(CLIENT, *command, namespace=AMBIENT, streams=(0, writing, 2))
    with started as load, open(reading) as reports:
        os.close(writing)
        reader = threading.Thread(target=_follow, args=(reports, findings), name="reports")
        reader.start()
        _churn(lab, seconds, findings)
        reader.join(LEFT_SECONDS)
        status = load.wait(LEFT_SECONDS)
    if status != 0:
        raise BenchError(f"the load exited with {status}")
    if not findings.load:
        raise BenchError("the load said nothing")
    findings.certificates = {name: lab.lab.logs(name).count(FETCHED) for name in ztunnels}
    return findings


def _web_container() -> Document:
    return build_container("web", ("sh", "-c", WEB_PROGRAM), HTTP_PORT)


def _follow(reports: Iterable[str], findings: Findings) -> None:
    for line in reports:
        findings.load = json.loads(line)
        sizes = ", ".join(
            f"{name} {series.mebibytes[-1]:.1f} MiB {series.descriptors[-1]:.0f} fds"
            for name, series in findings.series.items()
            if series.mebibytes
        )
        report_progress(f"{findings.load}; {sizes}; {findings.churned} pods, {findings.policy_changes} policies")


def _churn(lab: BenchLab, seconds: float, findings: Findings) -> None:
    """Pods that come and go on each node in turn, and a policy that comes and goes; looks at the ztunnels."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        turn = time.monotonic()
        node = NODES[findings.churned % len(NODES)]
        source = as_source([build_pod(AMBIENT, f"passing-{findings.churned}", node, [build_echo_container()])])
        lab.apply(source)
        lab.lab.delete(source)
        findings.churned += 1
        _toggle_policy(lab, findings)
        for name, series in findings.series.items():
            series.mebibytes.append(lab.process_memory(name).pss_mebibytes)
            series.descriptors.append(lab.process_descriptors(name))
        time.sleep(max(0.0, min(turn + CHURN_SECONDS, until) - time.monotonic()))


def _toggle_policy(lab: BenchLab, findings: Findings) -> None:
    """Deny everybody, see it denied; take it back, see it permitted."""
    spec: Document = {"action": "DENY", "selector": {"matchLabels": {"app": GUARDED}}, "rules": [{}]}
    policy: Document = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "nobody", "namespace": AMBIENT},
        "spec": spec,
    }
    source = as_source([policy])
    for change, is_permitted in ((lab.lab.apply, False), (lab.lab.delete, True)):
        change(source)
        findings.policy_changes += 1
        if not _becomes(lab, is_permitted):
            findings.unexpected.append(f"{'permitted' if is_permitted else 'denied'} expected")


def _becomes(lab: BenchLab, is_permitted: bool) -> bool:
    """Whether connections to the guarded pod come to be as they should in time."""
    deadline = time.monotonic() + POLICY_PATIENCE_SECONDS
    arguments = (lab.address(AMBIENT, GUARDED), str(ECHO_PORT), "0", "1")
    while time.monotonic() < deadline:
        done = lab.lab.exec(CLIENT, *python_program("connect", *arguments), namespace=AMBIENT)
        if (done.returncode == 0) is is_permitted:
            return True
    return False
