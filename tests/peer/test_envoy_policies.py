"""Policies at a Gateway that the real Envoy carries out: what they say of requests and tokens is what requests meet."""

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

from ambit.demo.polling import wait_for
from tests.support.controller_process import PATIENCE_SECONDS, ControllerProcess
from tests.support.envoy_proxy import Envoy, WebAnswer, ask, run_gateway
from tests.support.free_ports import find_free_port
from tests.support.texts import pod_text, service_text, text_of
from tests.support.tokens import PAST, Issuer, make_rsa_key, serve_keys
from tests.support.web_backends import serve_web

GATEWAY_API, SECURITY = "gateway.networking.k8s.io/v1", "security.istio.io/v1"
TARGET = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: web}]"
SHOP = {"aud": "shop"}
MARKER = Issuer("https://marker.test")
RSA, EC = Issuer("https://rsa.test", make_rsa_key()), Issuer("https://ec.test")


@dataclass(slots=True)
class World:
    """A controller, an Envoy of the Gateway `web`, and one server."""

    controller: ControllerProcess
    envoy: Envoy
    port: int
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def ask(self, path: str = "/", host: str = "www.test", method: str = "GET", **headers: str) -> WebAnswer:
        return ask(self.port, path, host, method, **headers)

    def status(self, path: str = "/", host: str = "www.test", method: str = "GET", **headers: str) -> int:
        return self.ask(path, host, method, **headers).status

    def serves(self) -> bool:
        try:
            return self.status() == 200
        except OSError:
            return False

    def apply(self, *policies: str) -> None:
        """Let these be all policies; returns once they hold.

        One more tells when: it refuses bad tokens in a header that is new, before any rule about requests is asked;
        where the test has tokens of its own, it denies a path that is new.
        """
        number = next(self.numbers)
        if any("RequestAuthentication" in each for each in policies):
            rules = f"action: DENY, rules: [{{to: [{{operation: {{paths: [/marker-{number}]}}}}]}}]"
            marker, path, headers, status = authorization("marker", rules), f"/marker-{number}", {}, 403
        else:
            marker = authentication(rule_of(MARKER, f"fromHeaders: [{{name: x-marker-{number}}}]"), name="marker")
            path, headers, status = "/", {f"x_marker_{number}": "bad"}, 401
        self.controller.write("policies.yaml", "".join(policies) + marker)
        held = wait_for(lambda: self.status(path, **headers) == status, PATIENCE_SECONDS)
        assert held, f"{self.controller.log[-5:]} {self.envoy.log_file.read_text()}"


def authorization(name: str, spec: str, metadata: str = "") -> str:
    text = text_of(SECURITY, "AuthorizationPolicy", name, f"spec: {{{TARGET}, {spec}}}")
    return text.replace("namespace: demo}", f"namespace: demo, {metadata}}}", 1)


def authentication(*rules: str, name: str = "tokens") -> str:
    return text_of(SECURITY, "RequestAuthentication", name, f"spec: {{{TARGET}, jwtRules: [{', '.join(rules)}]}}")


def rule_of(issuer: Issuer, rest: str = "") -> str:
    return f"{{issuer: '{issuer.name}', jwks: '{issuer.jwks}', {rest}}}"


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        server = stack.enter_context(serve_web("v1", "127.0.1.1"))
        controller = ControllerProcess(tmp_path)
        port = find_free_port()
        listeners = f"[{{name: http, port: {port}, protocol: HTTP}}]"
        mesh = (
            service_text("v1", "version: v1", f"port: 80, targetPort: {server.port}")
            + pod_text("v1", server.address)
            + text_of(GATEWAY_API, "Gateway", "web", f"spec: {{gatewayClassName: ambit, listeners: {listeners}}}")
            + text_of(
                GATEWAY_API,
                "HTTPRoute",
                "web",
                "spec: {parentRefs: [{name: web}], rules: [{backendRefs: [{name: v1, port: 80}]}]}",
            )
        )
        controller.write("mesh.yaml", mesh)
        controller.start(AMBIT_JWKS_HOSTS=f"127.0.0.1:{port}")
        stack.callback(controller.stop)
        envoy = stack.enter_context(run_gateway(controller, tmp_path, "web"))
        made = World(controller, envoy, port)
        assert wait_for(made.serves, PATIENCE_SECONDS), envoy.log_file.read_text()
        yield made
        assert envoy.refusals() == []


Request = tuple[str, str, str, Mapping[str, str]]


def get(path: str = "/", host: str = "www.test", method: str = "GET", **headers: str) -> Request:
    return path, host, method, headers


OPERATIONS: list[tuple[str, list[Request], list[Request]]] = [
    ("methods: [GET, 'P*']", [get(), get(method="POST"), get(method="PUT")], [get(method="DELETE")]),
    ("notMethods: [DELETE]", [get(), get(method="POST")], [get(method="DELETE")]),
    (
        "paths: [/exact, '/prefix*', '*.html', '/user/{*}/profile', '/files/{**}']",
        [
            get("/exact"),
            get("/exact?query=1"),
            get("/prefixed/deep"),
            get("/x/y.html"),
            get("/x/y.html?a=/b"),
            get("/user/me/profile"),
            get("/user/a%7Cb/profile?x"),
            get("/files/"),
            get("/files/a/b/c?d"),
            get("/other/../exact"),
        ],
        [
            get("/"),
            get("/exact/"),
            get("/exactly"),
            get("/Exact"),
            get("/user/me/you/profile"),
            get("/user//profile"),
            get("/files"),
            get("/exact/../other"),
        ],
    ),
    (
        "notPaths: ['/admin*']",
        [get("/"), get("/Admin")],
        [
            get("/admin"),
            get("/admin/x?y"),
            get("/x/../admin"),
            get("/%61dmin"),
            get("/x/%2e%2e/./admin"),
            get("/x\\..\\admin"),
        ],
    ),
    (
        "hosts: [shop.test, '*.shop.test', 'api.*', 'port.test:81']",
        [
            get(host="shop.test"),
            get(host="SHOP.test:8080"),
            get(host="shop.test."),
            get(host="www.shop.test:1"),
            get(host="api.anything"),
            get(host="port.test:81"),
        ],
        [get(host="www.test"), get(host="ashop.test"), get(host="shop.test.evil"), get(host="port.test:82")],
    ),
    ("ports: ['1']", [], [get()]),
    ("notPorts: ['1']", [get()], []),
]


def send(world: World, request: Request) -> int:
    path, host, method, headers = request
    return world.status(path, host, method, **headers)


def test_operations_decide_what_is_allowed_and_what_is_denied(world: World) -> None:
    for operation, matching, others in OPERATIONS:
        rules = f"rules: [{{to: [{{operation: {{{operation}}}}}]}}]"
        world.apply(authorization("p", rules))
        assert [(each, send(world, each)) for each in matching] == [(each, 200) for each in matching], operation
        assert [(each, send(world, each)) for each in others] == [(each, 403) for each in others], operation
        world.apply(authorization("p", f"action: DENY, {rules}"))
        assert [(each, send(world, each)) for each in matching] == [(each, 403) for each in matching], operation
        assert [(each, send(world, each)) for each in others] == [(each, 200) for each in others], operation


def test_who_is_refused_is_told_so_and_deny_goes_before_allow(world: World) -> None:
    allow = authorization(
        "allow", "rules: [{to: [{operation: {methods: [GET]}}]}, {to: [{operation: {methods: [POST]}}]}]"
    )
    deny = authorization("deny", "action: DENY, rules: [{to: [{operation: {paths: [/secret]}}]}]")
    world.apply(allow, deny)
    answer = world.ask("/secret")
    assert (answer.status, answer.body) == (403, b"RBAC: access denied")
    assert world.ask("/secret", content_type="application/grpc").headers["grpc-status"] == "7"  # PERMISSION_DENIED
    assert [world.status(), world.status(method="POST"), world.status(method="PUT")] == [200, 200, 403]
    world.apply(authorization("nothing", ""), authorization("all", "rules: [{}]"))
    assert world.status(method="PUT") == 200
    world.apply(authorization("nothing", ""))
    assert world.status() == 403
    world.apply(authorization("never", "action: DENY"))
    assert world.status() == 200


def test_addresses_and_headers_of_requests_count(world: World) -> None:
    def allow(source: str = "", condition: str = "") -> str:
        sources = f"from: [{{source: {{{source}}}}}], " if source else ""
        return authorization("p", f"rules: [{{{sources} when: [{condition}]}}]")

    loopback, elsewhere = "127.0.0.0/8", "203.0.113.0/24"
    for field_name in ("ipBlocks", "remoteIpBlocks"):
        world.apply(allow(f"{field_name}: [{elsewhere}, {loopback}]"))
        assert world.status() == 200
        world.apply(allow(f"{field_name}: [{elsewhere}]"))
        assert world.status(x_forwarded_for="203.0.113.7") == 403  # a stranger's word
    world.apply(allow("principals: ['*']"))
    assert world.status() == 403
    for key in ("source.ip", "remote.ip", "destination.ip"):
        world.apply(allow(condition=f"{{key: {key}, values: [{loopback}], notValues: ['{elsewhere}']}}"))
        assert world.status() == 200, key
    world.apply(allow(condition="{key: 'request.headers[X-Team]', values: [blue, 'green*'], notValues: [green-x]}"))
    given = {team: world.status(x_team=team) for team in ("blue", "green", "green-y", "green-x", "red")}
    assert given == {"blue": 200, "green": 200, "green-y": 200, "green-x": 403, "red": 403}
    assert world.status() == 403
    world.apply(allow(condition="{key: connection.sni, values: ['*']}"))
    assert world.status() == 403


def test_a_dry_run_lets_everything_pass_and_is_counted(world: World) -> None:
    metadata = "annotations: {istio.io/dry-run: 'true'}"
    world.apply(
        authorization("a", "rules: [{to: [{operation: {paths: [/allowed]}}]}]", metadata),
        authorization("d", "action: DENY, rules: [{to: [{operation: {paths: [/denied]}}]}]", metadata),
    )
    assert [world.status(path) for path in ("/allowed", "/denied", "/")] == [200, 200, 200]
    lines = world.envoy.fetch("/stats?filter=dry_run").splitlines()
    counts = {line.partition("istio_dry_run_")[2] for line in lines}
    assert counts == {
        "allow_.shadow_allowed: 1",
        "allow_.shadow_denied: 2",
        "deny_.shadow_allowed: 2",
        "deny_.shadow_denied: 1",
    }


def test_a_token_is_accepted_refused_or_not_asked_for(world: World) -> None:
    world.apply(authentication(rule_of(RSA, "audiences: [shop]"), rule_of(EC)))
    assert world.status() == 200
    for issuer in (RSA, EC):
        assert world.status(**bearer(issuer.sign(claims=SHOP))) == 200
        assert world.status(f"/?access_token={issuer.sign(claims=SHOP)}") == 200
        assert world.status(**bearer(issuer.sign(expires=PAST, claims=SHOP))) == 401
        assert world.status(**bearer(Issuer(issuer.name, key_id=issuer.key_id).sign(claims=SHOP))) == 401
    assert world.status(**bearer(Issuer("https://unknown.test", EC.key).sign())) == 401
    assert world.status(**bearer("no.token.atall")) == 401
    assert world.status(**bearer(RSA.sign(claims={"aud": "other"}))) == 403
    unsigned = ".".join(EC.sign().split(".")[:2]) + "."
    assert world.status(**bearer(unsigned)) == 401


def test_a_single_rule_refuses_the_tokens_of_others(world: World) -> None:
    world.apply(authentication(rule_of(EC)))
    assert [world.status(), world.status(**bearer(EC.sign()))] == [200, 200]
    assert world.status(**bearer(RSA.sign())) == 401
    assert world.status(**bearer(Issuer("https://unknown.test", EC.key).sign())) == 401


def test_tokens_are_found_where_the_rule_says_and_the_application_gets_what_it_says(world: World) -> None:
    rest = (
        "fromHeaders: [{name: X-Token, prefix: 'Key '}], fromParams: [t], fromCookies: [session], "
        "outputPayloadToHeader: x-payload, outputClaimToHeaders: [{header: x-user, claim: sub}]"
    )
    world.apply(authentication(rule_of(EC, rest)))
    token = EC.sign("me")
    for path, headers in (
        ("/", {"x_token": f"Key {token}"}),
        (f"/?t={token}", {}),
        ("/", {"cookie": f"a=b; session={token}"}),
    ):
        answer = world.ask(path, **headers)
        assert (answer.status, answer.asked.get("x-user")) == (200, "me")
        payload = json.loads(base64.urlsafe_b64decode(answer.asked["x-payload"] + "=="))
        assert payload["iss"] == EC.name
        assert "x-token" not in answer.asked
    forged = world.ask(x_user="admin", x_payload="forged")
    assert forged.status == 200
    assert not {"x-user", "x-payload"} & set(forged.asked)
    preflight = world.ask(method="OPTIONS", origin="http://a.test", access_control_request_method="PUT", x_user="admin")
    assert preflight.status == 200
    assert "x-user" not in preflight.asked
    assert world.status(**bearer("is.not.looked.at")) == 200
    world.apply(authentication(rule_of(EC, "forwardOriginalToken: true")))
    assert world.ask(**bearer(token)).asked["authorization"] == f"Bearer {token}"


CLAIMS: dict[str, object] = {
    "aud": ["shop", "admin"],
    "azp": "robot",
    "groups": ["dev", "ops"],
    "scope": "read write",
    "teams": "blue green",
    "realm": {"roles": ["admin"], "name": "inner"},
}
CONDITIONS: list[tuple[str, bool]] = [
    ("{key: request.auth.principal, values: ['https://ec.test/me/too']}", True),
    ("{key: request.auth.principal, values: ['https://ec.test/*']}", True),
    ("{key: request.auth.principal, values: ['https://ec.test/me/*']}", True),
    ("{key: request.auth.principal, values: ['*/too', 'x/y']}", True),
    ("{key: request.auth.principal, values: ['*.test/me/too']}", True),
    ("{key: request.auth.principal, values: ['https://ec.test/me']}", False),
    ("{key: request.auth.principal, values: ['https://ec.test/too']}", False),
    ("{key: request.auth.principal, values: ['*'], notValues: ['https://ec.test/*']}", False),
    ("{key: request.auth.audiences, values: [admin]}", True),
    ("{key: request.auth.audiences, values: [none]}", False),
    ("{key: request.auth.presenter, values: ['rob*']}", True),
    ("{key: 'request.auth.claims[groups]', values: [ops]}", True),
    ("{key: 'request.auth.claims[groups]', values: ['o*']}", True),
    ("{key: 'request.auth.claims[groups]', notValues: [ops]}", False),
    ("{key: 'request.auth.claims[groups]', values: [sales]}", False),
    ("{key: 'request.auth.claims[scope]', values: [write]}", True),
    ("{key: 'request.auth.claims[teams]', values: [green]}", True),
    ("{key: 'request.auth.claims[realm][roles]', values: [admin]}", True),
    ("{key: 'request.auth.claims[realm][name]', values: [inner]}", True),
    ("{key: 'request.auth.claims[realm][name]', values: ['*']}", True),
    ("{key: 'request.auth.claims[realm][none]', values: ['*']}", False),
    ("{key: 'request.auth.claims[roles]', values: [admin]}", False),
]


def test_what_a_token_claims_decides(world: World) -> None:
    tokens = authentication(rule_of(EC, "spaceDelimitedClaims: [teams]"))
    rules = ", ".join(
        f"{{to: [{{operation: {{paths: [/{number}]}}}}], when: [{condition}]}}"
        for number, (condition, _) in enumerate(CONDITIONS)
    )
    world.apply(tokens, authorization("p", f"rules: [{rules}]"))
    token = bearer(EC.sign("me/too", claims=CLAIMS))
    found = {condition: world.status(f"/{number}", **token) for number, (condition, _) in enumerate(CONDITIONS)}
    assert found == {condition: 200 if is_met else 403 for condition, is_met in CONDITIONS}
    without = {world.status(f"/{number}") for number, (condition, is_met) in enumerate(CONDITIONS) if is_met}
    assert without == {403}


def test_a_policy_may_ask_for_a_token_and_none_is_worth_what_a_bad_one_is(world: World) -> None:
    world.apply(
        authentication(rule_of(EC)),
        authorization("p", "rules: [{from: [{source: {requestPrincipals: ['*']}}]}]"),
    )
    assert [world.status(), world.status(**bearer(EC.sign())), world.status(**bearer("a.b.c"))] == [403, 200, 401]


def test_keys_are_fetched_and_until_they_are_no_token_is_accepted(world: World, tmp_path: Path) -> None:
    controller, address = world.controller, world.controller.address("agents")
    with ExitStack() as stack:
        server = stack.enter_context(serve_keys("not there yet"))
        controller.stop()
        settings = {"AMBIT_LISTEN": address, "AMBIT_JWKS_HOSTS": f"127.0.0.1:{server.port}"}
        controller.start(**settings)
        rule = f"{{issuer: '{EC.name}', jwksUri: '{server.url}'}}"
        token = bearer(EC.sign())
        world.apply(authentication(rule))
        assert [world.status(), world.status(**token)] == [200, 401]
        assert '"reason": "KeysNotFetched"' in controller.fetch("/debug/conditions")
        server.body = EC.jwks
        assert wait_for(lambda: world.status(**token) == 200, PATIENCE_SECONDS)
        assert '"reason": "KeysFetched"' in controller.fetch("/debug/conditions")
        controller.stop()
    # The server is gone; what was fetched is written down.
    controller.start(**settings)
    controller.wait_for_log("keys cannot be fetched")
    world.apply(authentication(rule))
    assert [world.status(**token), world.status(**bearer(RSA.sign()))] == [200, 401]
    controller.stop()
    controller.start(AMBIT_LISTEN=address)
    world.apply(authentication(rule))
    assert [world.status(), world.status(**token)] == [200, 401]
    assert "AMBIT_JWKS_HOSTS" in controller.fetch("/debug/conditions")


def test_a_policy_that_is_refused_changes_nothing_and_its_last_form_goes_on(world: World) -> None:
    world.apply(authorization("p", "rules: [{to: [{operation: {paths: [/open]}}]}]"))
    broken = authorization("p", "rules: [{to: [{operation: {paths: ['/a*b']}}]}]")
    world.apply(broken)
    assert "pattern-star" in world.controller.fetch("/debug/state")
    assert [world.status("/open"), world.status("/a")] == [200, 403]
