"""The loads: what is run in a client's pod, and how its answer is read.

Reading is pure (`parse_`); running is `Loads`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.effort import Effort
from bench.pods import BenchLab
from bench.report import BenchError
from bench.samples import Better, Measure, Probe
from bench.setups import CLIENT, ECHO_PORT, HTTP_PORT, IPERF_PORT, Setup

CONNECT_LIMIT = 1_500
"""Connections of one run. Each holds its local port for a minute, of which Linux gives 28,000 for one destination."""

HTTP_CONNECTIONS = 32
"""As in the peers' own figures."""

THROUGHPUT_1 = Measure("throughput, 1 stream", "Gbit/s", Better.HIGHER)
THROUGHPUT_8 = Measure("throughput, 8 streams", "Gbit/s", Better.HIGHER)
LATENCY_P50 = Measure("latency p50, 1 byte over a kept connection", "us", Better.LOWER)
LATENCY_P99 = Measure("latency p99, 1 byte over a kept connection", "us", Better.LOWER)
CONNECTIONS = Measure("new connections, one client in sequence", "1/s", Better.HIGHER)
KEPT_REQUESTS = Measure(f"HTTP keep-alive, {HTTP_CONNECTIONS} connections", "requests/s", Better.HIGHER)
CLOSED_REQUESTS = Measure(f"HTTP Connection: close, {HTTP_CONNECTIONS} at once", "requests/s", Better.HIGHER)
CLOSED_FAILURES = Measure(f"HTTP Connection: close, {HTTP_CONNECTIONS} at once, failures", "requests", Better.LOWER)

_RATE = re.compile(r"^Requests/sec:\s*([0-9.]+)$", re.MULTILINE)
_SOCKET_ERRORS = re.compile(r"^\s*Socket errors: (.*)$", re.MULTILINE)
_OTHER_ANSWERS = re.compile(r"^\s*Non-2xx or 3xx responses: (\d+)$", re.MULTILINE)


def parse_iperf(text: str) -> float:
    """The rate that iperf3's server received, in Gbit/s; raises BenchError for a run that failed."""
    document = json.loads(text)
    if "error" in document:
        raise BenchError(f"iperf3: {document['error']}")
    return float(document["end"]["sum_received"]["bits_per_second"]) / 1e9


@dataclass(frozen=True, slots=True)
class HttpResult:
    """What wrk saw: answered requests per second, and everything that was not an answer of 200."""

    requests_per_second: float
    failures: int


def parse_wrk(text: str) -> HttpResult:
    """Read wrk's report; raises BenchError when it is none."""
    rate = _RATE.search(text)
    if rate is None:
        raise BenchError(f"wrk said: {text[-500:]}")
    errors = _SOCKET_ERRORS.search(text)
    others = _OTHER_ANSWERS.search(text)
    failures = sum(map(int, re.findall(r"\d+", errors[1]))) if errors else 0
    return HttpResult(float(rate[1]), failures + (int(others[1]) if others else 0))


@dataclass(slots=True)
class Loads:
    """Runs loads in a lab, each as long as the effort says."""

    lab: BenchLab
    effort: Effort
    _addresses: dict[Setup, str] = field(default_factory=dict)

    def probes(self) -> dict[str, Probe]:
        """All loads by name, in the order to run them."""
        found: dict[str, Probe] = {
            "1 byte to and fro": self._ping,
            "new connections": self._connect,
            "1 stream": lambda setup: self._stream(setup, 1, THROUGHPUT_1),
            "8 streams": lambda setup: self._stream(setup, 8, THROUGHPUT_8),
        }
        if self.effort.http_seconds:
            found["HTTP keep-alive"] = self._kept_requests
            found["HTTP close"] = self._closed_requests
        return found

    def _ping(self, setup: Setup) -> Mapping[Measure, float]:
        found = self._program(setup, "ping", str(self.effort.ping_seconds))
        return {LATENCY_P50: found["p50_us"], LATENCY_P99: found["p99_us"]}

    def _connect(self, setup: Setup) -> Mapping[Measure, float]:
        found = self._program(setup, "connect", str(self.effort.connect_seconds), str(CONNECT_LIMIT))
        return {CONNECTIONS: found["per_second"]}

    def _stream(self, setup: Setup, streams: int, measure: Measure) -> Mapping[Measure, float]:
        command = ["iperf3", "--client", self._address(setup), "--port", str(IPERF_PORT), "--json"]
        command += ["--time", str(self.effort.stream_seconds), "--parallel", str(streams)]
        return {measure: parse_iperf(self._run(setup, command))}

    def _kept_requests(self, setup: Setup) -> Mapping[Measure, float]:
        return {KEPT_REQUESTS: self._wrk(setup).requests_per_second}

    def _closed_requests(self, setup: Setup) -> Mapping[Measure, float]:
        found = self._wrk(setup, "--header", "Connection: close")
        return {CLOSED_REQUESTS: found.requests_per_second, CLOSED_FAILURES: found.failures}

    def _wrk(self, setup: Setup, *options: str) -> HttpResult:
        command = ["wrk", "--threads", "1", "--connections", str(HTTP_CONNECTIONS), *options]
        command += ["--duration", f"{self.effort.http_seconds}s", f"http://{self._address(setup)}:{HTTP_PORT}/"]
        return parse_wrk(self._run(setup, command))

    def _program(self, setup: Setup, name: str, *arguments: str) -> dict[str, float]:
        return self.lab.run_program(setup.namespace, CLIENT, name, self._address(setup), str(ECHO_PORT), *arguments)

    def _run(self, setup: Setup, command: list[str]) -> str:
        try:
            return self.lab.run(setup.namespace, CLIENT, command, timeout_seconds=60)
        except BenchError as error:
            raise BenchError(f"{setup.title}: {error}") from error

    def _address(self, setup: Setup) -> str:
        if setup not in self._addresses:
            self._addresses[setup] = setup.dialled or self.lab.address(setup.namespace, setup.server)
        return self._addresses[setup]
