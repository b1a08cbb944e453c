"""Policies that select an ingress gateway by its labels, and are carried out by the real Envoy there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ingress_world import World, run_ingress_world
from tests.support.tokens import Issuer

SECURITY = "security.istio.io/v1"
SELECTOR = "selector: {matchLabels: {istio: ingressgateway}}"
OTHERS = "selector: {matchLabels: {istio: egressgateway}}"
ISSUER = Issuer("https://issuer.test")
RULES = f"jwtRules: [{{issuer: '{ISSUER.name}', jwks: '{ISSUER.jwks}'}}]"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with run_ingress_world(tmp_path) as made:
        yield made


def test_requests_are_judged_by_what_selects_the_gateway(world: World) -> None:
    deny = "action: DENY, rules: [{to: [{operation: {paths: [/admin*], methods: [GET]}}]}]"
    world.apply("p", SECURITY, "AuthorizationPolicy", f"{SELECTOR}, {deny}")
    world.eventually(403, "/admin/x")
    assert world.status("/") == 200
    world.apply("p", SECURITY, "AuthorizationPolicy", f"{OTHERS}, {deny}")
    world.eventually(200, "/admin/x")
    world.apply("q", SECURITY, "AuthorizationPolicy", f"{SELECTOR}, {deny}", namespace="demo")
    world.apply("r", SECURITY, "AuthorizationPolicy", f"{SELECTOR}, {deny.replace('/admin', '/other')}")
    world.eventually(403, "/other")
    assert world.status("/admin/x") == 200, "of another namespace than the gateway's"


def test_tokens_are_read_where_a_selector_says_so(world: World) -> None:
    world.apply("t", SECURITY, "RequestAuthentication", f"{SELECTOR}, {RULES}")
    world.eventually(401, authorization="Bearer bad")
    token = ISSUER.sign(claims={"groups": ["staff"]})
    assert world.status(authorization=f"Bearer {token}") == 200
    demand = "rules: [{from: [{source: {requestPrincipals: ['*']}}], when: [{key: 'request.auth.claims[groups]'"
    world.apply("p", SECURITY, "AuthorizationPolicy", f"{SELECTOR}, {demand}, values: [staff]}}]}}]")
    world.eventually(403)
    assert world.status(authorization=f"Bearer {token}") == 200
    assert world.status(authorization=f"Bearer {ISSUER.sign(claims={'groups': ['guests']})}") == 403


def test_tokens_of_a_namespace_are_read_at_all_its_gateways(world: World) -> None:
    world.apply("t", SECURITY, "RequestAuthentication", RULES, namespace="demo")
    world.apply("u", SECURITY, "RequestAuthentication", f"{OTHERS}, {RULES}")
    world.apply(
        "p",
        SECURITY,
        "AuthorizationPolicy",
        f"{SELECTOR}, action: DENY, rules: [{{to: [{{operation: {{paths: [/x]}}}}]}}]",
    )
    world.eventually(403, "/x")
    assert world.status(authorization="Bearer bad") == 200
    world.apply("t", SECURITY, "RequestAuthentication", RULES)
    world.eventually(401, authorization="Bearer bad")
