"""Policies that are decided elsewhere (CUSTOM), or only logged (AUDIT), carried out by the real Envoy."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ambit.demo.polling import wait_for
from tests.support.controller_process import PATIENCE_SECONDS
from tests.support.ext_authz import serve_grpc_authorizer, serve_http_authorizer
from tests.support.ingress_world import World, run_ingress_world

SECURITY = "security.istio.io/v1"
SELECTOR = "selector: {matchLabels: {istio: ingressgateway}}"
PRIVATE = "rules: [{to: [{operation: {paths: [/private*]}}]}]"
CUSTOM = f"{SELECTOR}, action: CUSTOM, provider: {{name: decider}}, {PRIVATE}"
ADDRESS = "127.0.1.3"
HOST = "decider.istio-system.svc.cluster.local"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with run_ingress_world(tmp_path) as made:
        yield made


def provide(world: World, kind: str, rest: str = "") -> None:
    """Let the mesh have a provider `decider`."""
    provider = f"{{name: decider, {kind}: {{service: {HOST}, port: 9000, timeout: 2s, {rest}}}}}"
    settings = f"accessLogFile: /dev/stdout\nextensionProviders: [{provider}]\n"
    text = "\n".join(f"    {line}" for line in settings.splitlines())
    head = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n"
    world.controller.write("mesh-config.yaml", f"{head}data:\n  mesh: |\n{text}\n")


def serve(world: World, port: int, protocol: str) -> None:
    """Let the provider's service be there."""
    ports = f"{{name: {protocol}, port: 9000, targetPort: {port}}}"
    world.apply("decider", "v1", "Service", f"selector: {{app: decider}}, ports: [{ports}]")
    metadata = "{name: decider, namespace: istio-system, labels: {app: decider}}"
    status = f"{{phase: Running, podIP: {ADDRESS}, conditions: [{{type: Ready, status: 'True'}}]}}"
    pod = f"{{apiVersion: v1, kind: Pod, metadata: {metadata}, spec: {{nodeName: node-1}}, status: {status}}}"
    world.controller.write("decider-pod.yaml", pod)


def test_what_the_rules_match_is_decided_over_http(world: World) -> None:
    with serve_http_authorizer(ADDRESS) as server:
        headers = "includeRequestHeadersInCheck: [x-ext-authz], includeAdditionalHeadersInCheck: {x-mesh: ours}"
        provide(
            world,
            "envoyExtAuthzHttp",
            f"{headers}, pathPrefix: /check, headersToUpstreamOnAllow: [x-decided-by], "
            "headersToDownstreamOnDeny: [x-decided*]",
        )
        serve(world, server.port, "http")
        world.apply("p", SECURITY, "AuthorizationPolicy", CUSTOM)
        world.eventually(403, "/private/a")
        assert wait_for(lambda: bool(server.asked), PATIENCE_SECONDS), "asked, and not denied for want of a provider"
        allowed = world.ask("/private/b?c=d", x_ext_authz="allow", x_other="secret")
        assert allowed.status == 200
        assert allowed.asked["x-decided-by"] == "http"
        path, asked = server.asked[-1]
        assert path == "/check/private/b?c=d"
        assert (asked["x-ext-authz"], asked["x-mesh"]) == ("allow", "ours")
        assert "x-other" not in asked
        assert world.ask("/private/a").headers["x-decided-by"] == "http"
        count = len(server.asked)
        assert world.status("/public") == 200
        assert len(server.asked) == count, "what no rule matches is not asked about"


def test_what_the_rules_match_is_decided_over_grpc(world: World) -> None:
    with serve_grpc_authorizer(ADDRESS) as server:
        provide(world, "envoyExtAuthzGrpc", "statusOnError: '503'")
        serve(world, server.port, "grpc")
        world.apply("p", SECURITY, "AuthorizationPolicy", CUSTOM)
        world.eventually(403, "/private/a")
        world.eventually(200, "/private/a", x_ext_authz="allow")
        assert server.asked[-1][0] == "/private/a"
        assert world.status("/") == 200
    world.eventually(503, "/private/a", x_ext_authz="allow")
    assert world.status("/") == 200
    provide(world, "envoyExtAuthzGrpc", "failOpen: true")
    world.eventually(200, "/private/a")


def test_without_a_provider_what_the_rules_match_is_denied(world: World) -> None:
    world.apply("p", SECURITY, "AuthorizationPolicy", CUSTOM)
    world.eventually(403, "/private/a", x_ext_authz="allow")
    assert world.status("/") == 200
    with serve_http_authorizer(ADDRESS) as server:
        provide(world, "envoyExtAuthzHttp", "includeRequestHeadersInCheck: [x-ext-authz]")
        assert world.status("/private/a", x_ext_authz="allow") == 403
        serve(world, server.port, "http")
        world.eventually(200, "/private/a", x_ext_authz="allow")
        world.controller.remove("decider-Service.yaml")
        world.eventually(403, "/private/a", x_ext_authz="allow")


def test_what_is_denied_stays_denied_whatever_a_provider_says(world: World) -> None:
    with serve_http_authorizer(ADDRESS) as server:
        provide(world, "envoyExtAuthzHttp", "includeRequestHeadersInCheck: [x-ext-authz]")
        serve(world, server.port, "http")
        world.apply("p", SECURITY, "AuthorizationPolicy", CUSTOM)
        world.eventually(200, "/private/a", x_ext_authz="allow")
        deny = "action: DENY, rules: [{to: [{operation: {methods: [DELETE]}}]}]"
        world.apply("q", SECURITY, "AuthorizationPolicy", f"{SELECTOR}, {deny}")
        assert wait_for(lambda: world.ask("/", method="DELETE").status == 403, PATIENCE_SECONDS)
        assert world.ask("/private/a", method="DELETE", x_ext_authz="allow").status == 403
        assert world.status("/private/a", x_ext_authz="allow") == 200


def test_what_is_audited_is_logged_and_passes(world: World) -> None:
    world.apply("p", SECURITY, "AuthorizationPolicy", f"{SELECTOR}, action: AUDIT, {PRIVATE}")
    quiet = "accessLogging: [{disabled: true}]"
    world.apply("quiet", "telemetry.istio.io/v1", "Telemetry", quiet)

    def lines() -> list[str]:
        return [line for line in world.envoy.log_file.read_text().splitlines() if " audit " in line]

    assert wait_for(lambda: world.status("/private/a") == 200 and lines(), PATIENCE_SECONDS)
    assert "audit ns[istio-system]-policy[p]-rule[0] 127.0.0.1:" in lines()[-1]
    assert '"GET /private/a HTTP/1.1" "www.test" 200' in lines()[-1]
    assert world.status("/public") == 200
    assert world.status("/private/last") == 200
    assert wait_for(lambda: "/private/last" in lines()[-1], PATIENCE_SECONDS)
    assert not any("/public" in line for line in lines())
