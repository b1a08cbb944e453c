"""The demo's steps on a lab that is up: make traffic, collect the evidence, break things.

    capture on ─▶ all requests at once ─▶ capture off ─▶ logs and capture judged ─▶ memory ─▶ DENY applied, removed
       ─▶ controller stopped, started ─▶ ztunnel killed

Later steps change what earlier ones looked at, so they run one after the other; within a step everything runs side by
side. A step that fails becomes a row that says so, and the next one runs all the same.
"""

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from ambit.demo import checks
from ambit.demo.access_log import AccessLine, read_access_lines
from ambit.demo.polling import wait_for
from ambit.demo.report import Row
from ambit.demo.traffic import (
    Addressing,
    Answer,
    Request,
    plan_requests,
    read_client_addresses,
    send,
)
from ambit.lab.client import Lab
from ambit.lab.status import LabStatus
from mesh.kit.errors import AmbitError, TransientError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "demo"
"""The manifests are examples that a user can copy, so they lie with the examples."""

DENY_POLICY = "shop/no-frontend"
"""What deny-frontend.yaml is called."""

PARALLEL_REQUESTS = 4
"""More would only queue for the two cores that the demo is made for."""

POLICY_SECONDS = 1.0
"""From a policy's being applied to its biting: the mesh's promise."""

PATIENCE_SECONDS = 5.0
"""For anything that normally takes a fraction of a second, before it counts as failed."""

RECOVERY_SECONDS = 10.0
"""For a process that has to start again: some two seconds on two cores."""

Progress = Callable[[str], None]


class Demo:
    """One run of the demo on a lab that is up. `rows` grows as it goes."""

    def __init__(self, lab: Lab, progress: Progress) -> None:
        self.rows: list[Row] = []
        self._lab = lab
        self._progress = progress
        self._status: LabStatus = lab.status()

    def run(self) -> None:
        """Make all measurements; raises nothing that a step ran into."""
        self.rows.append(checks.judge_enrolment(self._status.pods, self._lab.warnings))
        with self._step("requests across nodes, on one node and from outside"):
            self._measure_traffic()
        with self._step("memory"):
            self.rows += checks.judge_memory(self._lab.status().processes)
        with self._step("a DENY policy, applied and removed"):
            self._measure_policy()
        with self._step("the controller is stopped"):
            self._measure_without_controller()
        with self._step("a ztunnel is killed"):
            self._measure_ztunnel_crash()

    # Traffic ----------------------------------------------------------------------------------------------------------

    def _measure_traffic(self) -> None:
        requests = plan_requests(self._status)
        # In the lab's folder it goes with the lab, and stays with one that is kept.
        file = self._lab.folder.path / "underlay.pcap"
        with self._lab.capture(file) as recording:
            answers = self._send_all(requests)
        capture = file.read_bytes()
        self.rows += checks.judge_answers(answers)
        self.rows.append(checks.judge_client_addresses(answers, self._read_server_logs(answers)))
        self.rows.append(self._judge_identities(answers))
        # What was not answered may never have been sent: that it was not seen proves nothing.
        answered = [answer.request for answer in answers if answer.is_ok]
        meshed = [request.marker for request in answered if request.is_meshed]
        outside = [request.marker for request in answered if not request.is_meshed]
        self.rows += checks.judge_capture(capture, recording.dropped_frames, meshed, outside)

    def _send_all(self, requests: Sequence[Request]) -> list[Answer]:
        with ThreadPoolExecutor(PARALLEL_REQUESTS, "request") as pool:
            return list(pool.map(lambda request: send(self._lab, request), requests))

    def _read_server_logs(self, answers: Sequence[Answer]) -> dict[str, str]:
        """By marker, the client's address in the servers' logs; waits until all are there, or patience is out."""
        servers = {(each.request.server.namespace, each.request.server.name) for each in answers}
        seen: dict[str, str] = {}

        def look() -> bool:
            for namespace, name in servers:
                seen.update(read_client_addresses(self._lab.logs(name, namespace)))
            return all(each.request.marker in seen for each in answers if each.is_ok)

        wait_for(look, PATIENCE_SECONDS)
        return seen

    def _judge_identities(self, answers: Sequence[Answer]) -> Row:
        """Wait for the access logs of all nodes to tell of every request, and judge by what they say in the end."""

        def look() -> Row | None:
            lines = [line for node in self._status.nodes for line in self._access_lines(node.name)]
            verdicts.append(checks.judge_identities(answers, lines))
            return verdicts[-1] if verdicts[-1].ok else None

        verdicts: list[Row] = []
        wait_for(look, PATIENCE_SECONDS if any(answer.is_ok for answer in answers) else 0)
        return verdicts[-1]

    # Policy -----------------------------------------------------------------------------------------------------------

    def _measure_policy(self) -> None:
        denied = self._request("frontend", "web")
        bystander = self._request("auditor", "web")
        self._require_answer(denied)
        started = time.monotonic()
        self._lab.apply(EXAMPLES / "deny-frontend.yaml")
        refused = wait_for(lambda: not self._answers(denied), PATIENCE_SECONDS)
        seconds = time.monotonic() - started
        named = wait_for(lambda: self._find_refusal(denied), PATIENCE_SECONDS) if refused else None
        others_pass = self._answers(bystander)
        self.rows.append(
            Row(
                "DENY policy, applied live",
                f"refused after {seconds:.2f} s" if refused else f"still answered after {seconds:.1f} s",
                bool(refused) and seconds <= POLICY_SECONDS,
            )
        )
        self.rows.append(
            Row(
                "policy named by the server's ztunnel",
                f"{named.error}" if named else f"no line of {denied.server.node}'s access log names {DENY_POLICY}",
                named is not None,
            )
        )
        self.rows.append(
            Row(
                "others, meanwhile",
                f"billing/auditor is {'still' if others_pass else 'no longer'} answered",
                others_pass,
            )
        )
        started = time.monotonic()
        self._lab.delete(EXAMPLES / "deny-frontend.yaml")
        restored = wait_for(lambda: self._answers(denied), PATIENCE_SECONDS)
        seconds = time.monotonic() - started
        measured = f"answered after {seconds:.2f} s" if restored else f"still refused after {seconds:.1f} s"
        self.rows.append(Row("DENY policy, removed", measured, bool(restored)))

    def _find_refusal(self, denied: Request) -> AccessLine | None:
        for line in self._access_lines(denied.server.node):
            if line.direction == "inbound" and DENY_POLICY in line.error:
                return line
        return None

    # Failures ---------------------------------------------------------------------------------------------------------

    def _measure_without_controller(self) -> None:
        nodes = [node.name for node in self._status.nodes]
        before = {node: self._count_streams(node) for node in nodes}
        self._lab.stop_process("controller")
        is_gone = self._lab.status().process("controller").pid is None
        requests = [request for request in plan_requests(self._status) if request.is_meshed]
        answered = sum(answer.is_ok for answer in self._send_all(requests))
        measured = f"{answered} of {len(requests)} requests answered meanwhile"
        self.rows.append(Row("controller stopped", measured, is_gone and answered == len(requests)))
        started = time.monotonic()
        self._lab.start_process("controller")
        is_back = wait_for(lambda: all(self._count_streams(node) > before[node] for node in nodes), RECOVERY_SECONDS)
        seconds = time.monotonic() - started
        again = "connected again" if is_back else "not connected again"
        measured = f"{len(nodes)} ztunnels {again} after {seconds:.2f} s"
        self.rows.append(Row("controller started again", measured, bool(is_back)))

    def _measure_ztunnel_crash(self) -> None:
        request = self._request("frontend", "web")
        name = f"ztunnel/{request.client.node}"
        pid = self._lab.status().process(name).pid
        self._require_answer(request)
        started = time.monotonic()
        self._lab.kill_process(name)
        stopped = not self._answers(request)
        resumed = wait_for(lambda: self._answers(request), RECOVERY_SECONDS)
        seconds = time.monotonic() - started
        has_changed = self._lab.status().process(name).pid not in (None, pid)
        measured = f"first answer after {seconds:.2f} s" if resumed else f"no answer for {seconds:.0f} s"
        if not stopped:
            measured += "; the first request did not notice"
        self.rows.append(Row(f"{name} killed (-9)", measured, bool(resumed) and has_changed))

    # Inside -----------------------------------------------------------------------------------------------------------

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        self._progress(name)
        try:
            yield
        except (AmbitError, OSError, subprocess.SubprocessError) as error:
            self.rows.append(Row(name, f"{error}", ok=False))

    def _request(self, client: str, server: str) -> Request:
        """The request from one pod to another's service, over IPv4."""
        for request in plan_requests(self._status):
            names = (request.client.name, request.server.name, request.addressing, request.family)
            if names == (client, server, Addressing.SERVICE, 4):
                return request
        raise KeyError(f"{client} → {server}")

    def _answers(self, request: Request) -> bool:
        return send(self._lab, request).is_ok

    def _require_answer(self, request: Request) -> None:
        """Raise TransientError unless the request is answered: what is down already proves nothing by being down."""
        answer = send(self._lab, request)
        if not answer.is_ok:
            client, server = request.client, request.server
            raise TransientError(
                f"{client.namespace}/{client.name} gets no answer from {server.namespace}/{server.name} "
                f"to begin with: {answer.failure}"
            )

    def _access_lines(self, node: str) -> list[AccessLine]:
        return list(read_access_lines(self._lab.logs(f"ztunnel/{node}")))

    def _count_streams(self, node: str) -> int:
        """How often a node's ztunnel has found the controller."""
        return self._lab.logs(f"ztunnel/{node}").count("connected to the controller")
