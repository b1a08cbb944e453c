"""EnvoyFilters and Telemetries at the real Envoy of a Gateway: what they say is what requests meet."""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
import yaml

from ambit.demo.polling import wait_for
from tests.support.controller_process import PATIENCE_SECONDS, ControllerProcess
from tests.support.envoy_proxy import Envoy, WebAnswer, ask, run_gateway
from tests.support.free_ports import find_free_port
from tests.support.golden import FOLDER, GIVEN
from tests.support.texts import pod_text, service_text, text_of
from tests.support.web_backends import Backend, serve_web

GATEWAY_API = "gateway.networking.k8s.io/v1"


@dataclass(slots=True)
class World:
    """A controller, a Gateway `web` with its Envoy, and a server behind it."""

    controller: ControllerProcess
    envoy: Envoy
    port: int
    backend: Backend

    def ask(self, path: str = "/") -> WebAnswer:
        return ask(self.port, path)

    def serves(self) -> bool:
        try:
            return self.ask().server == "web"
        except OSError:
            return False

    def count_limited(self) -> int:
        """How many requests have met the limit."""
        text = self.envoy.fetch("/stats?filter=http_local_rate_limit.enabled")
        return int(text.rpartition(":")[2] or 0)

    def condition(self, name: str) -> dict[str, str]:
        """What is said of an EnvoyFilter."""
        for each in json.loads(self.controller.fetch("/debug/conditions")):
            if (each["kind"], each["name"]) == ("EnvoyFilter", name):
                found: dict[str, str] = each["status"]["conditions"][0]
                return found
        return {}

    def answers_with(self, header: str) -> bool:
        return header in self.ask().headers


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        backend = stack.enter_context(serve_web("web", "127.0.1.1"))
        controller, port = ControllerProcess(tmp_path), find_free_port()
        listeners = f"[{{name: http, port: {port}, protocol: HTTP}}]"
        gateway = text_of(GATEWAY_API, "Gateway", "web", f"spec: {{gatewayClassName: ambit, listeners: {listeners}}}")
        rules = "[{backendRefs: [{name: web, port: 80}]}]"
        route = text_of(GATEWAY_API, "HTTPRoute", "web", f"spec: {{parentRefs: [{{name: web}}], rules: {rules}}}")
        web = service_text("web", "app: web", f"port: 80, targetPort: {backend.port}")
        controller.write("mesh.yaml", gateway + route + web + pod_text("v1", backend.address))
        controller.start()
        stack.callback(controller.stop)
        envoy = stack.enter_context(run_gateway(controller, tmp_path, "web"))
        made = World(controller, envoy, port, backend)
        assert wait_for(made.serves, PATIENCE_SECONDS), envoy.log_file.read_text()
        yield made
        assert envoy.refusals() == []


def read_rate_limits() -> dict[str, str]:
    """The third seed's EnvoyFilters by name: as it is printed, and for a Gateway; here for those of `demo`."""
    found = {}
    for each in yaml.safe_load_all((FOLDER / "seed-003" / GIVEN).read_text()):
        if each["kind"] == "EnvoyFilter":
            each["metadata"].setdefault("namespace", "demo")
            for target in each["spec"].get("targetRefs", ()):
                target["name"] = "web"
            found[each["metadata"]["name"]] = yaml.safe_dump(each)
    return found


def added_header(name: str, value: str = "yes") -> str:
    """An EnvoyFilter that adds a header to all responses of the Gateway."""
    header = f"{{header: {{key: {name}, value: '{value}'}}}}"
    patch = f"{{operation: MERGE, value: {{response_headers_to_add: [{header}]}}}}"
    spec = f"{{configPatches: [{{applyTo: ROUTE_CONFIGURATION, match: {{context: GATEWAY}}, patch: {patch}}}]}}"
    return text_of("networking.istio.io/v1alpha3", "EnvoyFilter", "header", f"spec: {spec}")


def test_of_a_hundred_requests_at_once_ten_pass_the_limit_and_the_others_get_429(world: World) -> None:
    limits = read_rate_limits()
    world.controller.write("printed.yaml", limits["ingress-local-ratelimit"])
    assert wait_for(lambda: world.condition("ingress-local-ratelimit") != {}, PATIENCE_SECONDS)
    assert world.condition("ingress-local-ratelimit")["reason"] == "NoMatchingProxy"
    assert {world.ask().status for _ in range(30)} == {200}, "as it is printed it is for what comes into pods"
    world.controller.write("limit.yaml", limits["gateway-local-ratelimit"])
    assert wait_for(lambda: world.ask().status == 200 and world.count_limited() > 0, PATIENCE_SECONDS)
    passed = world.count_limited()  # of those that were asked until the limit was there
    with ThreadPoolExecutor(20) as clients:
        answers = list(clients.map(lambda _: world.ask("/other"), range(100)))
    assert Counter(each.status for each in answers) == {200: 10 - passed, 429: 90 + passed}
    refused = [each for each in answers if each.status == 429]
    assert {each.headers.get("x-rate-limited") for each in refused} == {"TOO_MANY_REQUESTS"}
    assert not any("x-rate-limited" in each.headers for each in answers if each.status == 200)


def test_a_patch_comes_changes_and_goes(world: World) -> None:
    world.controller.write("filter.yaml", added_header("x-first"))
    assert wait_for(lambda: world.answers_with("x-first"), PATIENCE_SECONDS)
    world.controller.write("filter.yaml", added_header("x-second"))
    assert wait_for(lambda: world.answers_with("x-second"), PATIENCE_SECONDS)
    assert not world.answers_with("x-first")
    world.controller.remove("filter.yaml")
    assert wait_for(lambda: not world.answers_with("x-second"), PATIENCE_SECONDS)


def test_what_a_patch_would_spoil_goes_on_as_it_was_and_the_status_says_so(world: World) -> None:
    world.controller.write("good.yaml", added_header("x-first"))
    assert wait_for(lambda: world.answers_with("x-first"), PATIENCE_SECONDS)
    router = (
        "{name: second, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}"
    )
    value = f"patch: {{operation: INSERT_FIRST, value: {router}}}"
    patch = f"{{applyTo: HTTP_FILTER, match: {{context: GATEWAY}}, {value}}}"
    spec = f"spec: {{configPatches: [{patch}]}}"
    world.controller.write("bad.yaml", text_of("networking.istio.io/v1alpha3", "EnvoyFilter", "bad", spec))
    assert wait_for(lambda: world.condition("bad").get("reason") == "Invalid", PATIENCE_SECONDS)
    assert "must be the router" in world.condition("bad")["message"]
    assert world.condition("header")["reason"] == "Accepted"
    assert {world.ask().server for _ in range(10)} == {"web"}
    assert any("patch is not served" in line for line in world.controller.log)


def test_what_is_invalid_is_refused_and_its_last_form_goes_on(world: World) -> None:
    world.controller.write("filter.yaml", added_header("x-first"))
    assert wait_for(lambda: world.answers_with("x-first"), PATIENCE_SECONDS)
    world.controller.write("filter.yaml", added_header("x-second").replace("key:", "kee:"))
    assert wait_for(lambda: world.condition("header").get("reason") == "UnsupportedValue", PATIENCE_SECONDS)
    assert "envoy-value" in world.controller.fetch("/debug/state")
    assert world.answers_with("x-first")


def test_only_what_a_telemetry_asks_for_is_logged(world: World) -> None:
    def is_logged(path: str) -> bool:
        """Whether a request is, once a later one that is logged in any case is there."""
        world.ask(path)
        world.backend.always = 404
        world.ask(f"{path}-missing")
        world.backend.always = 200
        assert wait_for(lambda: f"{path}-missing " in world.envoy.log_file.read_text(), PATIENCE_SECONDS)
        return f"{path} " in world.envoy.log_file.read_text()

    assert is_logged("/first")
    log = "spec: {accessLogging: [{providers: [{name: envoy}], filter: {expression: response.code >= 400}}]}"
    world.controller.write("log.yaml", text_of("telemetry.istio.io/v1", "Telemetry", "log", log))
    paths = count()
    assert wait_for(lambda: not is_logged(f"/later-{next(paths)}"), PATIENCE_SECONDS)
