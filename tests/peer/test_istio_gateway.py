"""Istio's Gateways carried out by the real Envoy: VirtualServices that are bound to them are what requests meet."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from ambit.demo.polling import wait_for
from tests.support.controller_process import PATIENCE_SECONDS, ControllerProcess
from tests.support.envoy_proxy import Envoy, WebAnswer, ask, run_ingress
from tests.support.free_ports import find_free_port
from tests.support.texts import SUBSETS, pod_text, service_text, text_of
from tests.support.web_backends import serve_web

ISTIO = "networking.istio.io/v1"
LABELS = {"istio": "ingressgateway", "app": "istio-ingressgateway"}
CANARY = (
    "hosts: [www.test], gateways: [web], http: [{route: ["
    "{destination: {host: web, subset: v1}, weight: 80}, {destination: {host: web, subset: v2}, weight: 20}]}]"
)


@dataclass(slots=True)
class World:
    """A controller, an Envoy with LABELS, and two versions of the Service `web`. The Gateway `web` has two ports."""

    controller: ControllerProcess
    envoy: Envoy
    port: int
    other_port: int

    def write(self, name: str, kind: str, spec: str) -> None:
        """Let the object of that name have this spec."""
        self.controller.write(f"{name}-{kind}.yaml", text_of(ISTIO, kind, name, f"spec: {{{spec}}}"))

    def ask(self, path: str = "/", host: str = "www.test", **headers: str) -> WebAnswer:
        return ask(self.port, path, host, **headers)

    def eventually(self, status: int, path: str = "/", host: str = "www.test", port: int = 0) -> WebAnswer:
        """Ask until the answer has this status; fails when it never has."""

        def has_status() -> WebAnswer | None:
            try:
                answer = ask(port or self.port, path, host)
            except OSError:
                return None
            return answer if answer.status == status else None

        found = wait_for(has_status, PATIENCE_SECONDS)
        assert found, self.envoy.log_file.read_text()
        return found


def server(port: int, name: str, hosts: str = "'*'", rest: str = "") -> str:
    return f"{{port: {{number: {port}, name: {name}, protocol: HTTP}}, hosts: [{hosts}], {rest}}}"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        v1 = stack.enter_context(serve_web("v1", "127.0.1.1"))
        v2 = stack.enter_context(serve_web("v2", "127.0.1.2", v1.port))
        controller = ControllerProcess(tmp_path)
        port, other_port = find_free_port(), find_free_port()
        pods = pod_text("v1", v1.address) + pod_text("v2", v2.address)
        controller.write(
            "mesh.yaml", service_text("web", "app: web", f"port: 80, targetPort: {v1.port}") + pods + SUBSETS
        )
        controller.start()
        stack.callback(controller.stop)
        envoy = stack.enter_context(run_ingress(controller, tmp_path, LABELS))
        made = World(controller, envoy, port, other_port)
        servers = f"{server(port, 'http')}, {server(other_port, 'other')}"
        made.write("web", "Gateway", f"selector: {{istio: ingressgateway}}, servers: [{servers}]")
        made.write("web", "VirtualService", CANARY)
        made.eventually(200)
        yield made
        assert envoy.refusals() == []


def test_a_canary_gets_its_share_of_requests_from_outside(world: World) -> None:
    shares = Counter(world.ask().server for _ in range(500))
    assert set(shares) == {"v1", "v2"}
    assert 60 <= shares["v2"] <= 140, shares  # five standard deviations around 100
    assert world.ask(host="other.test").status == 404
    world.write("web", "VirtualService", CANARY.replace("weight: 80", "weight: 0").replace("weight: 20", "weight: 100"))
    assert wait_for(lambda: {world.ask().server for _ in range(20)} == {"v2"}, PATIENCE_SECONDS)


def test_matches_are_for_the_port_and_the_gateway_that_they_name(world: World) -> None:
    reply = "directResponse: {status: 299}"
    rules = (
        f"{{match: [{{uri: {{exact: /port}}, port: {world.other_port}}}], {reply}}}",
        f"{{match: [{{uri: {{exact: /ours}}, gateways: [demo/web]}}], {reply}}}",
        f"{{match: [{{uri: {{exact: /mesh}}, gateways: [mesh]}}], {reply}}}",
        "{route: [{destination: {host: web, subset: v1}}]}",
    )
    world.write("web", "VirtualService", f"hosts: ['*'], gateways: [web, mesh], http: [{', '.join(rules)}]")
    world.eventually(299, "/ours")
    assert world.ask("/port").server == "v1"
    assert world.ask("/mesh").server == "v1"
    assert ask(world.other_port, "/port").status == 299


def test_gateways_of_all_namespaces_share_the_proxies_that_they_select(world: World) -> None:
    only = "hosts: [b.test], gateways: [b], http: [{directResponse: {status: 299}}]"
    world.write("b", "VirtualService", only)
    world.write(
        "b", "Gateway", f"selector: {{app: istio-ingressgateway}}, servers: [{server(world.port, 'b', 'b.test')}]"
    )
    world.eventually(299, host="b.test")
    assert world.ask().status == 200
    world.write("b", "Gateway", f"selector: {{app: another}}, servers: [{server(world.port, 'b', 'b.test')}]")
    world.eventually(404, host="b.test")
    assert world.ask().status == 200


def test_a_server_may_send_its_clients_to_https(world: World) -> None:
    secure = server(world.port, "http", "www.test", "tls: {httpsRedirect: true}")
    world.write("web", "Gateway", f"selector: {{istio: ingressgateway}}, servers: [{secure}]")
    answer = world.eventually(301, "/a?b=c")
    assert answer.headers["location"] == "https://www.test/a?b=c"
    claimed = world.ask("/a", x_forwarded_proto="https")
    assert claimed.status == 301, "a client's word for its own scheme counts for nothing"


def test_what_is_not_carried_out_is_refused_and_what_was_valid_serves_on(world: World) -> None:
    port = f"{{number: {world.port}, name: tls, protocol: TLS}}"
    auto = f"{{port: {port}, hosts: ['*'], tls: {{mode: AUTO_PASSTHROUGH}}}}"
    world.write("web", "Gateway", f"selector: {{istio: ingressgateway}}, servers: [{auto}]")
    reason = "leads to any service of the mesh"
    assert wait_for(lambda: reason in world.controller.fetch("/debug/state"), PATIENCE_SECONDS)
    assert world.ask().status == 200


def test_a_controller_that_comes_back_tells_only_what_has_changed(world: World) -> None:
    address = world.controller.address("agents")
    world.controller.stop()
    assert world.ask().status == 200
    world.write("web", "VirtualService", "hosts: [www.test], gateways: [web], http: [{directResponse: {status: 299}}]")
    world.controller.start(AMBIT_LISTEN=address)
    world.eventually(299)
    resumed = [line for line in world.controller.log if "xds subscription opened" in line]
    assert any("Listener already_known=2" in line for line in resumed), resumed
    metrics = world.controller.fetch("/metrics")
    assert 'ambit_xds_resources_sent_total{type="Listener",change="updated"} 0' in metrics


def test_filters_and_access_logs_are_chosen_by_the_labels_of_an_ingress_gateway(world: World) -> None:
    def write(name: str, kind: str, version: str, labels: str, rest: str) -> None:
        metadata = f"{{name: {name}, namespace: istio-system}}"
        text = f"{{apiVersion: {version}, kind: {kind}, metadata: {metadata}, spec: {{{labels}, {rest}}}}}"
        world.controller.write(f"{name}.yaml", text)

    def filter_by(name: str, label: str) -> None:
        header = f"{{header: {{key: x-{name}, value: 'yes'}}}}"
        patch = f"{{operation: MERGE, value: {{response_headers_to_add: [{header}]}}}}"
        patches = f"configPatches: [{{applyTo: ROUTE_CONFIGURATION, match: {{context: GATEWAY}}, patch: {patch}}}]"
        selector = f"workloadSelector: {{labels: {{istio: {label}}}}}"
        write(name, "EnvoyFilter", "networking.istio.io/v1alpha3", selector, patches)

    filter_by("others", "egressgateway")
    filter_by("ours", "ingressgateway")
    assert wait_for(lambda: "x-ours" in world.ask().headers, PATIENCE_SECONDS)
    assert "x-others" not in world.ask().headers
    selector, log = "selector: {matchLabels: {istio: ingressgateway}}", "accessLogging: [{disabled: true}]"
    write("silent", "Telemetry", "telemetry.istio.io/v1", selector, log)
    paths = count()

    def is_logged() -> bool:
        """Whether a request is, which Envoy writes within twenty milliseconds."""
        path = f"/silent-{next(paths)}"
        world.ask(path)
        return bool(wait_for(lambda: f"{path} " in world.envoy.log_file.read_text(), 0.5))

    assert wait_for(lambda: not is_logged(), PATIENCE_SECONDS)
    world.controller.remove("silent.yaml")
    assert wait_for(is_logged, PATIENCE_SECONDS)


def test_a_patch_that_spoils_an_ingress_gateway_is_told_of_when_its_first_proxy_comes(
    world: World, tmp_path: Path
) -> None:
    def reason() -> str:
        found = json.loads(world.controller.fetch("/debug/conditions"))
        [status] = [each["status"] for each in found if each["kind"] == "EnvoyFilter"] or [{"conditions": [{}]}]
        return str(status["conditions"][0].get("reason", ""))

    router = "{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}"
    value = f"{{name: second, typed_config: {router}}}"
    patch = f"{{applyTo: HTTP_FILTER, match: {{context: GATEWAY}}, patch: {{operation: INSERT_FIRST, value: {value}}}}}"
    metadata = "{name: spoiling, namespace: istio-system}"
    spec = f"{{workloadSelector: {{labels: {{late: 'yes'}}}}, configPatches: [{patch}]}}"
    version = "networking.istio.io/v1alpha3"
    world.controller.write(
        "spoiling.yaml", f"{{apiVersion: {version}, kind: EnvoyFilter, metadata: {metadata}, spec: {spec}}}"
    )
    assert wait_for(lambda: reason() == "Accepted", PATIENCE_SECONDS)
    with run_ingress(world.controller, tmp_path, {**LABELS, "late": "yes"}):
        assert wait_for(lambda: reason() == "Invalid", PATIENCE_SECONDS)
        assert any("patch is not served" in line for line in world.controller.log)
        assert world.ask().status == 200, "others are not touched"
    assert wait_for(lambda: reason() == "Accepted", PATIENCE_SECONDS)
