"""Our controller and a stock istiod, on one Kubernetes API server, one after the other."""

import base64
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import yaml

from bench.report import BenchError
from tests.support.control_planes import CRDS, HOSTNAME, ISTIOD_ENVIRONMENT, NAMESPACE
from tests.support.controller_process import ControllerProcess
from tests.support.kubernetes import ApiError, Kubernetes, find_peer
from tests.support.processes import end_process, start_process

TIMEOUT_SECONDS = 120.0
ISTIOD_PORT, ISTIOD_READY = 15012, "http://127.0.0.1:8080/ready"
ISTIOD_LIMIT = "1000"
"""Pushes at once, and requests a second. By its defaults on two cores, istiod serves 26 of 300 agents, and the others
never."""


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """One that serves: where, trusted by which certificate for which name, and how long it took to start."""

    name: str
    pid: int
    address: str
    root: Path
    server_name: str
    start_seconds: float


@contextmanager
def running_controller(cluster: Kubernetes, folder: Path) -> Iterator[ControlPlane]:
    """Our controller; its directories are in `folder`. Raises BenchError when it does not become ready."""
    controller = ControllerProcess(folder)
    started = time.monotonic()
    with controller:
        controller.launch(AMBIT_CONFIG_DIR="", AMBIT_NODE_TOKENS="", AMBIT_KUBECONFIG=str(cluster.kubeconfig))
        try:
            controller.wait_until_ready(TIMEOUT_SECONDS)
        except AssertionError as error:
            raise BenchError(f"the controller does not become ready: {str(error)[-2000:]}") from error
        seconds = time.monotonic() - started
        root = controller.state / "root-cert.pem"
        yield ControlPlane("controller", controller.pid, controller.address("agents"), root, "", seconds)


@contextmanager
def running_istiod(cluster: Kubernetes) -> Iterator[ControlPlane]:
    """A stock istiod, with Istio's own definitions. Raises BenchError when it is missing, or does not become ready."""
    try:
        program = find_peer("istiod")
    except AssertionError as error:
        raise BenchError(str(error)) from error
    definitions = Path(program).resolve().parent / CRDS
    cluster.apply(*yaml.load_all(definitions.read_text(), yaml.CSafeLoader))
    limits = {"PILOT_PUSH_THROTTLE": ISTIOD_LIMIT, "PILOT_MAX_REQUESTS_PER_SECOND": ISTIOD_LIMIT}
    log, root = cluster.folder / "istiod.log", cluster.folder / "istiod-root.pem"
    command = [program, "discovery", "--kubeconfig", str(cluster.kubeconfig), "--ctrlz_port", "0"]
    started = time.monotonic()
    process = start_process(command, log, ISTIOD_ENVIRONMENT | limits)
    try:
        while not _is_ready(cluster, root):
            if process.poll() is not None or time.monotonic() > started + TIMEOUT_SECONDS:
                raise BenchError(f"istiod does not become ready: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        seconds = time.monotonic() - started
        yield ControlPlane("istiod", process.pid, f"127.0.0.1:{ISTIOD_PORT}", root, HOSTNAME, seconds)
    finally:
        end_process(process)


def _is_ready(cluster: Kubernetes, root: Path) -> bool:
    """Ready, and its root is written to `root`."""
    try:
        with urllib.request.urlopen(ISTIOD_READY, timeout=1) as answer:
            is_ready = bool(answer.status == HTTPStatus.OK)
        secret = cluster.get("v1", "Secret", "istio-ca-secret", NAMESPACE)
    except (OSError, ApiError):
        return False
    root.write_bytes(base64.b64decode(secret["data"]["ca-cert.pem"]))
    return is_ready
