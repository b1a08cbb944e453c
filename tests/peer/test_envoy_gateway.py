"""A Gateway carried out by the real Envoy: what its routes say is what requests meet, from the first to the last."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from ambit.demo.polling import wait_for
from tests.support.asking import asking
from tests.support.controller_process import PATIENCE_SECONDS
from tests.support.envoy_proxy import Envoy, WebAnswer
from tests.support.gateway_world import ISTIO, World, mesh_text, run_world, to
from tests.support.texts import service_text, text_of


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with run_world(tmp_path) as made:
        yield made


def test_requests_are_shared_by_weight(world: World) -> None:
    world.route(f"{{backendRefs: [{to('v1', 80)}, {to('v2', 20)}]}}")
    world.ask_until("v2")
    shares = Counter(world.ask().server for _ in range(500))
    assert set(shares) == {"v1", "v2"}
    assert 60 <= shares["v2"] <= 140, shares  # five standard deviations around 100


def test_headers_paths_and_hosts_are_what_the_rule_says(world: World) -> None:
    changed = (
        "{matches: [{path: {value: /strip}}], filters: ["
        "{type: URLRewrite, urlRewrite: {hostname: inner.test, "
        "path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}, "
        "{type: RequestHeaderModifier, requestHeaderModifier: "
        "{set: [{name: X-Set, value: '50%'}], add: [{name: x-add, value: two}], remove: [x-gone]}}, "
        "{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-Mesh, value: ambit}]}}], "
        f"backendRefs: [{to('v2')}]}}"
    )
    world.route(changed, f"{{backendRefs: [{to('v1')}]}}")
    world.ask_until("v2", "/strip")
    answer = world.ask("/strip/a?b=c", x_set="one", x_add="one", x_gone="one")
    assert (answer.status, answer.headers["x-mesh"]) == (200, "ambit")
    asked = answer.asked
    assert (asked["host"], asked["x-set"], asked["x-add"]) == ("inner.test", "50%", "one,two")
    assert "x-gone" not in asked
    paths = {
        path: str(world.ask(path).said["line"]).split()[1] for path in ("/strip", "/strip/", "/strip/a/", "/stripped")
    }
    assert paths == {"/strip": "/", "/strip/": "/", "/strip/a/": "/a/", "/stripped": "/stripped"}
    assert world.ask("/stripped").server == "v1"


def test_a_redirect_tells_where_to_go(world: World) -> None:
    world.route(
        "{filters: [{type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 308, "
        "path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]}",
        hostnames="www.test",
    )
    assert wait_for(lambda: world.ask().status == 308, PATIENCE_SECONDS)
    assert world.ask("/a?b", host=f"www.test:{world.port}").headers["location"] == "https://www.test/new/a?b"


def test_what_matches_nothing_is_404_and_what_leads_nowhere_500_or_503(world: World) -> None:
    world.route(
        f"{{matches: [{{path: {{value: /half}}}}], backendRefs: [{to('v1')}, {to('missing')}]}}",
        f"{{matches: [{{path: {{value: /missing}}}}], backendRefs: [{to('missing')}]}}",
        "{matches: [{path: {value: /none}}]}",
        f"{{matches: [{{path: {{value: /empty}}}}], backendRefs: [{to('empty')}]}}",
    )
    world.controller.write("empty.yaml", service_text("empty", "version: nobody", "port: 80"))
    assert wait_for(lambda: world.ask("/none").status == 500, PATIENCE_SECONDS)
    assert wait_for(lambda: world.ask("/empty").status == 503, PATIENCE_SECONDS)
    assert world.ask("/other").status == 404
    assert world.ask("/missing").status == 500
    assert {world.ask("/half").status for _ in range(40)} == {200, 500}


def test_retries_ask_again_and_timeouts_give_up(world: World) -> None:
    world.route(
        f"{{matches: [{{path: {{value: /retry}}}}], backendRefs: [{to('v2')}], retry: {{codes: [500], attempts: 3}}}}",
        f"{{matches: [{{path: {{value: /slow}}}}], backendRefs: [{to('v2')}], timeouts: {{request: 200ms}}}}",
        f"{{backendRefs: [{to('v2')}]}}",
    )
    world.ask_until("v2", "/retry")
    world.v2.failures = [500, 500]
    assert world.ask("/retry").status == 200
    world.v2.failures = [500] * 4
    assert world.ask("/retry").status == 500
    world.v2.failures = [503]
    assert world.ask("/retry").status == 503, "a code that is not listed is no reason"
    world.v2.failures = [500]
    assert world.ask("/plain").status == 500, "an answer is never tried again unless somebody said so"
    world.v2.delay_seconds = 1.0
    started = time.monotonic()
    assert world.ask("/slow").status == 504
    assert time.monotonic() - started < 0.9


def test_a_mirror_gets_a_copy_whose_answer_nobody_sees(world: World) -> None:
    mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: v2, port: 80}}}"
    world.route(f"{{filters: [{mirror}], backendRefs: [{to('v1')}]}}")
    assert wait_for(lambda: world.ask("/copied").server == "v1" and bool(world.v2.asked), PATIENCE_SECONDS)
    world.v2.always = 500
    assert {world.ask("/copied").status for _ in range(10)} == {200}


def test_a_full_service_answers_503_at_once(world: World) -> None:
    """Seed 001's connection pool. Envoy answers 503 for it, where the seeds speak of 429 (facts of L7, headline 5)."""
    pool = "connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1, maxRequestsPerConnection: 1}}"
    world.controller.write("rule.yaml", rule_text("v1", f"trafficPolicy: {{{pool}}}"))
    assert wait_for(lambda: "max_connections::1\n" in world.envoy.fetch("/clusters"), PATIENCE_SECONDS)
    world.v1.delay_seconds = 0.5
    answers: list[WebAnswer] = []
    threads = [threading.Thread(target=lambda: answers.append(world.ask()), name="ask") for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shed = [each for each in answers if each.status == 503]
    assert shed
    assert {each.headers.get("x-envoy-overloaded") for each in shed} == {"true"}
    assert any(each.status == 200 for each in answers)


def test_an_endpoint_that_fails_is_left_out(world: World) -> None:
    outliers = (
        "outlierDetection: {consecutive5xxErrors: 5, interval: 100ms, baseEjectionTime: 30s, maxEjectionPercent: 100}"
    )
    world.controller.write("rule.yaml", rule_text("both", f"trafficPolicy: {{{outliers}}}"))
    world.route(f"{{backendRefs: [{to('both')}]}}")
    world.ask_until("v2")
    world.v2.always = 500
    assert wait_for(lambda: {world.ask().server for _ in range(20)} == {"v1"}, PATIENCE_SECONDS)
    assert "outlier_detection.ejections_active: 1" in world.envoy.fetch("/stats?filter=ejections_active")


def test_requests_that_are_alike_go_to_one_endpoint(world: World) -> None:
    balancer = "loadBalancer: {consistentHash: {httpHeaderName: x-user}}"
    world.controller.write("rule.yaml", rule_text("both", f"trafficPolicy: {{{balancer}}}"))
    world.route(f"{{backendRefs: [{to('both')}]}}")

    def find_servers() -> dict[str, set[str]]:
        return {user: {world.ask(x_user=user).server for _ in range(5)} for user in "abcdefgh"}

    assert wait_for(lambda: all(len(each) == 1 for each in find_servers().values()), PATIENCE_SECONDS)
    assert {server for each in find_servers().values() for server in each} == {"v1", "v2"}


def rule_text(host: str, rest: str) -> str:
    return text_of(ISTIO, "DestinationRule", host, f"spec: {{host: {host}, {rest}}}")


def test_no_request_fails_while_a_route_moves_between_clusters(world: World) -> None:
    """The cluster that a route leaves is the Gateway's no more: each move makes one before it breaks the other."""

    def ask() -> tuple[int, str]:
        answer = world.ask()
        return answer.status, answer.server

    with asking(ask) as answers:
        for number in range(20):
            name = ("v2", "v1")[number % 2]
            world.route(f"{{backendRefs: [{to(name)}]}}")
            world.ask_until(name)
            assert wait_for(partial(_has_only, world.envoy, name), PATIENCE_SECONDS)
    assert {status for status, _ in answers} == {200}, answers
    assert set(answers) == {(200, "v1"), (200, "v2")}


def _has_only(envoy: Envoy, name: str) -> bool:
    return envoy.clusters() == {f"outbound|80||{name}.demo.svc.cluster.local"}


def test_requests_go_on_without_a_controller_and_a_new_one_sends_only_what_changed(world: World) -> None:
    address = world.controller.address("agents")
    world.controller.stop()
    assert {world.ask().server for _ in range(10)} == {"v1"}
    world.route(f"{{backendRefs: [{to('v2')}]}}")
    world.controller.start(AMBIT_LISTEN=address)
    world.ask_until("v2")
    resumed = [line for line in world.controller.log if "xds subscription opened" in line]
    assert any("Listener already_known=1" in line for line in resumed), resumed
    metrics = world.controller.fetch("/metrics")
    assert 'ambit_xds_resources_sent_total{type="RouteConfiguration",change="updated"} 1' in metrics
    assert 'ambit_xds_resources_sent_total{type="Listener",change="updated"} 0' in metrics


def test_an_invalid_route_is_refused_and_the_last_valid_one_goes_on(world: World) -> None:
    world.route("{matches: [{path: {type: RegularExpression, value: '(?=x)'}}], backendRefs: [{name: v2, port: 80}]}")
    assert wait_for(lambda: "regex-value" in world.controller.fetch("/debug/state"), PATIENCE_SECONDS)
    assert {world.ask().server for _ in range(10)} == {"v1"}


def test_endpoints_come_and_go(world: World) -> None:
    world.route(f"{{backendRefs: [{to('both')}]}}")
    world.ask_until("v2")
    world.controller.write("mesh.yaml", mesh_text(world.port, world.v1, world.v2, is_v1_ready=False))
    assert wait_for(lambda: {world.ask().server for _ in range(20)} == {"v2"}, PATIENCE_SECONDS)
