"""The real Envoy, started with a bootstrap of ours and told the rest by the real controller."""

import http.client
import json
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ambit.bootstrap import (
    ControllerAccess,
    GatewayProxy,
    IngressProxy,
    build_gateway_bootstrap,
    build_ingress_bootstrap,
)
from ambit.demo.polling import wait_for
from tests.support.controller_process import PATIENCE_SECONDS, ControllerProcess
from tests.support.envoy import find_envoy
from tests.support.free_ports import find_free_port
from tests.support.processes import end_process, start_process


@dataclass(frozen=True, slots=True)
class WebAnswer:
    """What a client got. `said` is what the server told of the request; empty when another answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def said(self) -> Mapping[str, object]:
        try:
            found: object = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def server(self) -> str:
        return str(self.said.get("server", ""))

    @property
    def asked(self) -> Mapping[str, str]:
        """The headers that the server got."""
        found = self.said.get("headers")
        return found if isinstance(found, dict) else {}


@dataclass(slots=True)
class Envoy:
    """A running Envoy."""

    process: "subprocess.Popen[bytes]"
    log_file: Path
    admin_port: int

    def fetch(self, path: str) -> str:
        """A page of its admin."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=PATIENCE_SECONDS) as answer:
            text: str = answer.read().decode()
            return text

    def refusals(self) -> list[str]:
        """Counters of refused configuration that are not zero."""
        lines = self.fetch("/stats?filter=update_rejected").splitlines()
        return [line for line in lines if not line.endswith(": 0")]

    def clusters(self) -> set[str]:
        """The names of its clusters."""
        document = json.loads(self.fetch("/clusters?format=json"))
        return {each["name"] for each in document.get("cluster_statuses", [])}


def ask(port: int, path: str = "/", host: str = "www.test", method: str = "GET", **headers: str) -> WebAnswer:
    """One request to a port of this machine, on a connection of its own. Header names are written with underscores."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    try:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers={"Host": host, **given})
        answer = connection.getresponse()
        return WebAnswer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


@contextmanager
def run_gateway(controller: ControllerProcess, folder: Path, gateway: str, namespace: str = "demo") -> Iterator[Envoy]:
    """An Envoy of a Gateway, on node-1, while the block runs."""
    proxy = GatewayProxy(namespace, gateway, "node-1", admin_port=find_free_port())
    with _run(folder, build_gateway_bootstrap(proxy, _find_access(controller, folder)), proxy.admin_port) as envoy:
        yield envoy


@contextmanager
def run_ingress(controller: ControllerProcess, folder: Path, labels: Mapping[str, str]) -> Iterator[Envoy]:
    """An Envoy of the ingress gateway with these labels in istio-system, on node-1, while the block runs."""
    proxy = IngressProxy("istio-system", "ingress", "node-1", labels, find_free_port())
    with _run(folder, build_ingress_bootstrap(proxy, _find_access(controller, folder)), proxy.admin_port) as envoy:
        yield envoy


def _find_access(controller: ControllerProcess, folder: Path) -> ControllerAccess:
    token = folder / "token"
    token.write_text("token-1")
    return ControllerAccess(controller.address("agents"), controller.state / "root-cert.pem", token)


@contextmanager
def _run(folder: Path, document: str, admin_port: int) -> Iterator[Envoy]:
    bootstrap = folder / f"envoy-{admin_port}.json"
    bootstrap.write_text(document)
    log = folder / f"envoy-{admin_port}.log"
    command = [find_envoy(), "-c", str(bootstrap), "--concurrency", "1", "--disable-hot-restart"]
    # What it logs is there at once, and not within ten seconds.
    process = start_process([*command, "--log-level", "warning", "--file-flush-interval-msec", "20"], log)
    envoy = Envoy(process, log, admin_port)
    try:
        assert wait_for(lambda: _is_ready(envoy), PATIENCE_SECONDS), log.read_text()
        yield envoy
    finally:
        end_process(process)


def _is_ready(envoy: Envoy) -> bool:
    try:
        return envoy.fetch("/ready").strip() == "LIVE"
    except OSError:
        return False
