"""gRPC's own xDS client at our controller: it resolves, balances, follows what changes, and refuses nothing."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from ambit.bootstrap import build_grpc_bootstrap
from ambit.demo.polling import wait_for
from tests.support.controller_process import PATIENCE_SECONDS, REPOSITORY, ControllerProcess
from tests.support.free_ports import find_free_port
from tests.support.texts import SUBSETS, pod_text, service_text, text_of

METHOD = "/demo.Web/Get"


@dataclass(slots=True)
class Answering(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # has none at run time
    """Answers every method with its name; the next answers are errors as long as `failures` has some."""

    name: str
    failures: list[grpc.StatusCode] = field(default_factory=list)
    delay_seconds: float = 0.0
    calls: int = 0

    def service(self, _: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        return grpc.unary_unary_rpc_method_handler(self._answer)

    def _answer(self, _: bytes, context: "grpc.ServicerContext") -> bytes:
        self.calls += 1
        time.sleep(self.delay_seconds)  # a slow server is what a timeout is tested with
        if self.failures:
            context.abort(self.failures.pop(0), "as told")
        return self.name.encode()


@contextmanager
def serve_grpc(name: str, address: str) -> Iterator[Answering]:
    """A server on `address`, port 9090, while the block runs."""
    answering = Answering(name)
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((answering,))
    server.add_insecure_port(f"{address}:9090")
    server.start()
    try:
        yield answering
    finally:
        server.stop(None).wait()


class Client:
    """A running client of one target."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def call(self, count: int = 1, method: str = METHOD, timeout_seconds: float = 10.0) -> dict[str, int]:
        """Call so often, one after the other; counts who answered, or which errors came."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{count} {method} {timeout_seconds}\n")
        self._process.stdin.flush()
        found: dict[str, int] = json.loads(self._process.stdout.readline())
        return found

    def call_until(self, *servers: str) -> None:
        """Call until just these answer; fails when it never comes to that."""
        expected = set(servers)
        assert wait_for(lambda: set(self.call(20)) == expected, PATIENCE_SECONDS), (servers, self.call(20))


@contextmanager
def run_client(controller_port: int, target: str) -> Iterator[Client]:
    """A client of `target` while the block runs."""
    environment = {
        "PATH": os.defpath,
        "GRPC_XDS_BOOTSTRAP_CONFIG": build_grpc_bootstrap(f"127.0.0.1:{controller_port}", "demo", "client", "node-1"),
    }
    command = [sys.executable, str(REPOSITORY / "tests" / "support" / "grpc_client.py"), f"xds:///{target}"]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield Client(process)
        finally:
            process.terminate()


@dataclass(slots=True)
class World:
    """A controller, two servers, and a client of the Service that both serve."""

    controller: ControllerProcess
    port: int
    client: Client
    v1: Answering
    v2: Answering


_PORT = "name: grpc, port: 80, targetPort: 9090"
SERVICES = service_text("web", "app: web", _PORT) + service_text("canary", "version: v2", _PORT)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        v1, v2 = (stack.enter_context(serve_grpc(f"v{each}", f"127.0.2.{each}")) for each in (1, 2))
        controller = ControllerProcess(tmp_path)
        controller.write("mesh.yaml", SERVICES + pod_text("v1", "127.0.2.1") + pod_text("v2", "127.0.2.2"))
        port = find_free_port()
        controller.start(AMBIT_LOCAL_LISTEN=f"127.0.0.1:{port}")
        stack.callback(controller.stop)
        client = stack.enter_context(run_client(port, "web.demo.svc.cluster.local:80"))
        client.call_until("v1", "v2")
        yield World(controller, port, client, v1, v2)
        state = json.loads(controller.fetch("/debug/state"))
        refusals = [each["last_error"] for one in state["clients"] for each in one["types"].values() if each["nacks"]]
        assert refusals == []


def test_calls_are_spread_over_the_endpoints_that_are_ready(world: World) -> None:
    shares = world.client.call(100)
    assert 35 <= shares["v1"] <= 65, shares
    world.controller.write(
        "mesh.yaml", SERVICES + pod_text("v1", "127.0.2.1") + pod_text("v2", "127.0.2.2", is_ready=False)
    )
    world.client.call_until("v1")
    world.controller.write("mesh.yaml", SERVICES + pod_text("v1", "127.0.2.1") + pod_text("v2", "127.0.2.2"))
    world.client.call_until("v1", "v2")


HOST = "api.example.com"


def entry_text(rest: str) -> str:
    ports = "[{number: 80, name: grpc, protocol: GRPC, targetPort: 9090}]"
    return text_of(
        "networking.istio.io/v1", "ServiceEntry", "api", f"spec: {{hosts: [{HOST}], ports: {ports}, {rest}}}"
    )


def test_hosts_of_service_entries_are_called_with_their_routes_subsets_and_places(world: World) -> None:
    places = {"127.0.2.1": ("v1", "north/a"), "127.0.2.2": ("v2", "south/a")}
    endpoints = ", ".join(
        f"{{address: {address}, labels: {{version: {version}}}, locality: {place}}}"
        for address, (version, place) in places.items()
    )
    world.controller.write("api.yaml", entry_text(f"resolution: STATIC, endpoints: [{endpoints}]"))
    with run_client(world.port, f"{HOST}:80") as client:
        client.call_until("v1", "v2")
        rules = SUBSETS.replace("host: web", f"host: {HOST}") + text_of(
            "networking.istio.io/v1",
            "VirtualService",
            "api",
            f"spec: {{hosts: [{HOST}], http: [{{route: [{{destination: {{host: {HOST}, subset: v2}}}}]}}]}}",
        )
        world.controller.write("rules.yaml", rules)
        client.call_until("v2")
        near = "trafficPolicy: {outlierDetection: {consecutive5xxErrors: 1}}"
        rule = text_of("networking.istio.io/v1", "DestinationRule", "web", f"spec: {{host: {HOST}, {near}}}")
        region = "topology.kubernetes.io/region: north, topology.kubernetes.io/zone: a"
        node = f"{{apiVersion: v1, kind: Node, metadata: {{name: node-1, labels: {{{region}}}}}}}\n---\n"
        world.controller.write("rules.yaml", rule + node)
        client.call_until("v1")
        world.controller.write("rules.yaml", rule + node.replace("region: north", "region: south"))
        client.call_until("v2")


def test_a_host_is_dialled_by_its_one_name(world: World) -> None:
    name = "resolution: DNS_ROUND_ROBIN, endpoints: [{address: localhost}]"
    world.controller.write("api.yaml", entry_text(name))
    with ExitStack() as stack:
        stack.enter_context(serve_grpc("local", "127.0.0.1"))
        stack.enter_context(run_client(world.port, f"{HOST}:80")).call_until("local")


def test_an_http_route_of_the_service_is_followed(world: World) -> None:
    world.controller.write(
        "route.yaml",
        """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: demo}
spec:
  parentRefs: [{group: "", kind: Service, name: web}]
  rules:
  - matches: [{path: {value: /demo.Web}}]
    backendRefs: [{name: canary, port: 80}]
""",
    )
    world.client.call_until("v2")
    assert world.client.call(method="/demo.Website/Get") == {"UNAVAILABLE": 1}, "a prefix is one of whole elements"
    world.controller.remove("route.yaml")
    world.client.call_until("v1", "v2")


def test_a_grpc_route_of_the_service_is_followed(world: World) -> None:
    world.controller.write(
        "route.yaml",
        """
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: web, namespace: demo}
spec:
  parentRefs: [{group: "", kind: Service, name: web}]
  rules:
  - matches: [{method: {service: demo.Web, method: Get}}]
    backendRefs: [{name: canary, port: 80}]
  - matches: [{method: {service: demo.Gone}}]
""",
    )
    world.client.call_until("v2")
    assert world.client.call(method="/demo.Web/Put") == {"UNAVAILABLE": 1}
    assert world.client.call(method="/demo.Gone/Get") == {"UNAVAILABLE": 1}


def test_a_virtual_service_splits_by_weight_between_subsets(world: World) -> None:
    """Seed 001's."""
    world.controller.write(
        "split.yaml",
        """
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata: {name: web, namespace: demo}
spec:
  hosts: [web]
  http:
  - match: [{headers: {canary: {exact: "true"}}}]
    route: [{destination: {host: web, subset: v2}}]
  - route:
    - destination: {host: web, subset: v1}
      weight: 90
    - destination: {host: web, subset: v2}
      weight: 10
---
"""
        + SUBSETS,
    )
    assert wait_for(lambda: world.client.call(100)["v1"] > 75, PATIENCE_SECONDS)
    shares = world.client.call(500)
    assert 20 <= shares["v2"] <= 85, shares  # about five standard deviations around 50


def test_timeouts_and_retries_are_those_of_the_route(world: World) -> None:
    world.controller.write(
        "rules.yaml",
        """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: demo}
spec:
  hosts: [web]
  http:
  - match: [{uri: {exact: /demo.Web/Slow}}]
    timeout: 300ms
    route: [{destination: {host: canary}}]
  - retries: {attempts: 3, retryOn: unavailable}
    route: [{destination: {host: canary}}]
""",
    )
    world.client.call_until("v2")
    world.v2.failures = [grpc.StatusCode.UNAVAILABLE] * 2
    assert world.client.call() == {"v2": 1}
    world.v2.delay_seconds = 2.0
    started = time.monotonic()
    assert world.client.call(method="/demo.Web/Slow") == {"DEADLINE_EXCEEDED": 1}
    assert time.monotonic() - started < 1.5


def test_calls_go_on_without_a_controller(world: World) -> None:
    world.controller.stop()
    assert set(world.client.call(50)) == {"v1", "v2"}
    world.controller.start()
