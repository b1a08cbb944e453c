"""Policies of requests: what is refused at the door, what is attached where, and what the filters decide."""

import base64
import hashlib
import json
from itertools import pairwise

import pytest
from envoy.extensions.filters.http.jwt_authn.v3 import config_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.kinds.gateway_api import Gateway
from controller.kinds.key_set import build_key_set
from controller.kinds.request_authentication import RequestAuthentication
from controller.kinds.security import AuthorizationPolicy
from controller.registry.names import MeshSettings
from controller.registry.request_policies import RequestPolicies, find_policies
from controller.sources.documents import parse_documents
from controller.translate.jwt import THROW_AWAY_KEYS, THROW_AWAY_SEED
from controller.translate.policy_filters import build_policy_filters
from controller.translate.rbac import ClientIdentity
from tests.support import objects
from tests.support.rbac import Claim, Request, is_allowed, passes

MESH = MeshSettings()
TARGET = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: web}]"
KEYS = '{"keys": [{"kty": "EC"}]}'


def policy(spec: str, name: str = "p", target: str = TARGET, namespace: str = "demo") -> AuthorizationPolicy:
    return objects.authorization(f"{target}, {spec}", name, namespace)


def tokens(rules: str, name: str = "t", target: str = TARGET, namespace: str = "demo") -> RequestAuthentication:
    made = objects.parse(
        f"{{apiVersion: security.istio.io/v1, kind: RequestAuthentication, metadata: {{name: {name}, "
        f"namespace: {namespace}}}, spec: {{{target}, jwtRules: [{rules}]}}}}"
    )
    assert isinstance(made, RequestAuthentication)
    return made


# At the door ---------------------------------------------------------------------------------------------------------

HEAD = "apiVersion: security.istio.io/v1\nkind: {}\nmetadata: {{name: p, namespace: demo}}\nspec:\n  "
GATEWAY = "{group: gateway.networking.k8s.io, kind: Gateway, name: web}"


def operation(text: str) -> str:
    return f"{TARGET}\n  rules: [{{to: [{{operation: {{{text}}}}}]}}]"


def when(text: str) -> str:
    return f"{TARGET}\n  rules: [{{when: [{{{text}}}]}}]"


def jwt_rule(text: str) -> str:
    return f"{TARGET}\n  jwtRules: [{{{text}}}]"


def refusal(kind: str, spec: str) -> tuple[str, str]:
    """The code and field of the one problem."""
    [problem] = parse_documents(HEAD.format(kind) + spec, "p.yaml").problems
    return problem.code, problem.path


@pytest.mark.parametrize(
    ("spec", "code", "field"),
    [
        ("rules: [{to: [{operation: {paths: [/]}}]}]", "needs-targets", "spec.rules[0].to[0].operation.paths"),
        ("rules: [{to: [{operation: {notHosts: [x]}}]}]", "needs-targets", "spec.rules[0].to[0].operation.notHosts"),
        (
            "rules: [{from: [{source: {requestPrincipals: ['*']}}]}]",
            "needs-targets",
            "spec.rules[0].from[0].source.requestPrincipals",
        ),
        ("rules: [{when: [{key: remote.ip, values: [x]}]}]", "needs-targets", "spec.rules[0].when[0].key"),
        (f"{TARGET}\n  selector: {{}}", "combination", "spec"),
        (f"{TARGET}\n  targetRef: {GATEWAY}", "combination", "spec"),
        (f"targetRefs: [{', '.join([GATEWAY] * 17)}]", "invalid-value", "spec.targetRefs"),
        ("targetRefs: [{kind: Gateway, name: web}]", "unsupported", "spec.targetRefs[0]"),
        (
            "targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: x}]",
            "unsupported",
            "spec.targetRefs[0]",
        ),
        ("targetRefs: [{kind: Service, name: s, namespace: other}]", "target-namespace", "spec"),
        ("targetRefs: [{kind: Service, name: s, sectionName: x}]", "unknown-field", "spec.targetRefs[0].sectionName"),
        (f"{TARGET}\n  provider: {{name: x}}", "combination", "spec"),
        (operation("methods: [get]"), "method-value", "spec.rules[0].to[0].operation.methods[0]"),
        (operation("paths: [x]"), "path-value", "spec.rules[0].to[0].operation.paths[0]"),
        (operation("paths: ['/a?b']"), "path-value", "spec.rules[0].to[0].operation.paths[0]"),
        (operation("paths: [/a/..]"), "path-value", "spec.rules[0].to[0].operation.paths[0]"),
        (operation("paths: ['/a*b']"), "pattern-star", "spec.rules[0].to[0].operation.paths[0]"),
        (operation("paths: ['/{*}x']"), "path-template", "spec.rules[0].to[0].operation.paths[0]"),
        (operation("paths: ['/{*}/x*']"), "path-template", "spec.rules[0].to[0].operation.paths[0]"),
        (operation("paths: ['/{**}/{*}']"), "path-template", "spec.rules[0].to[0].operation.paths[0]"),
        (operation("paths: ['/{name}']"), "path-template", "spec.rules[0].to[0].operation.paths[0]"),
        (when("key: request.headers, values: [a]"), "condition-key", "spec.rules[0].when[0].key"),
        (when("key: 'request.headers[a b]', values: [a]"), "header-name", "spec.rules[0].when[0].key"),
        (when("key: request.auth.claims, values: [a]"), "condition-key", "spec.rules[0].when[0].key"),
        (when("key: 'source.ip[a]', values: [a]"), "condition-key", "spec.rules[0].when[0].key"),
        (
            when("key: experimental.envoy.filters.x, values: [a]"),
            "condition-key",
            "spec.rules[0].when[0].key",
        ),
        (when("key: remote.ip, values: [a]"), "ip-value", "spec.rules[0].when[0].values"),
        (
            when("key: request.auth.principal, values: [nobody]"),
            "request-principal",
            "spec.rules[0].when[0].values",
        ),
    ],
)
def test_what_a_policy_cannot_say_is_refused_where_it_stands(spec: str, code: str, field: str) -> None:
    assert refusal("AuthorizationPolicy", spec) == (code, field)


@pytest.mark.parametrize(
    ("spec", "code", "field"),
    [
        (jwt_rule("issuer: ''"), "invalid-value", "spec.jwtRules[0].issuer"),
        (jwt_rule("issuer: x"), "combination", "spec.jwtRules[0]"),
        (jwt_rule(f"issuer: x, jwksUri: 'https://a/', jwks: '{KEYS}'"), "combination", "spec.jwtRules[0]"),
        (jwt_rule("issuer: x, jwks: '{'"), "jwks-value", "spec.jwtRules[0].jwks"),
        (jwt_rule("issuer: x, jwks: '" + "[" * 100_000 + "'"), "jwks-value", "spec.jwtRules[0].jwks"),
        (jwt_rule("issuer: x, jwks: '{\"keys\": []}'"), "jwks-value", "spec.jwtRules[0].jwks"),
        (jwt_rule("issuer: x, jwksUri: file:///etc/passwd"), "url-value", "spec.jwtRules[0].jwksUri"),
        (jwt_rule("issuer: x, jwksUri: 'https://u:p@a/'"), "url-value", "spec.jwtRules[0].jwksUri"),
        (jwt_rule("issuer: x, jwksUri: 'https://a:x/'"), "url-value", "spec.jwtRules[0].jwksUri"),
        (
            jwt_rule(f"issuer: x, jwks: '{KEYS}', fromHeaders: [{{name: 'a b'}}]"),
            "header-name",
            "spec.jwtRules[0].fromHeaders[0].name",
        ),
    ],
)
def test_what_a_token_rule_cannot_say_is_refused_where_it_stands(spec: str, code: str, field: str) -> None:
    assert refusal("RequestAuthentication", spec) == (code, field)


def test_a_target_may_name_its_own_namespace() -> None:
    made = policy("", target="targetRefs: [{kind: Service, name: s, namespace: demo}]")
    assert [str(each) for each in made.targets] == ["Service s"]


# What is attached where ----------------------------------------------------------------------------------------------


def gateway(name: str = "web", namespace: str = "demo", owner: str = "ambit") -> Gateway:
    made = objects.parse(
        f"{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, "
        f"metadata: {{name: {name}, namespace: {namespace}}}, "
        f"spec: {{gatewayClassName: {owner}, listeners: [{{name: http, port: 80, protocol: HTTP}}]}}}}"
    )
    assert isinstance(made, Gateway)
    return made


def test_policies_are_found_by_the_name_of_the_gateway_its_class_and_the_service() -> None:
    of_class = "targetRefs: [{group: gateway.networking.k8s.io, kind: GatewayClass, name: ambit}]"
    of_service = "targetRefs: [{kind: Service, name: web}]"
    snapshot = objects.build_snapshot(
        gateway(),
        policy("", "own"),
        policy("", "elsewhere", namespace="other"),
        policy("", "class", of_class, "istio-system"),
        policy("", "class-of-nobody", of_class, "demo"),
        policy("", "service", of_service, "shop"),
        policy("", "other-service", of_service, "demo"),
        objects.authorization("", "for-ztunnel"),
        tokens("", "t"),
        tokens("", "t", of_service, "shop"),
    )
    found = find_policies(snapshot, MESH, gateway())
    assert [each.name for each in found.authorizations] == ["own", "class"]
    assert [each.namespace for each in found.authentications] == ["demo"]
    found = find_policies(snapshot, MESH, gateway(), objects.service("web", "shop"))
    assert [each.name for each in found.authorizations] == ["own", "class", "service"]
    assert [each.namespace for each in found.authentications] == ["demo", "shop"]
    assert not find_policies(snapshot, MESH, gateway("web", "other", "theirs")).authentications


def provider(policies: RequestPolicies) -> config_pb2.JwtProvider:
    [jwt] = build_policy_filters(policies)
    [made] = config_pb2.JwtAuthentication.FromString(jwt.typed_config.value).providers.values()
    return made


def test_keys_that_were_not_fetched_are_nobodys() -> None:
    url = "https://issuer.test/keys"
    given = tokens(f"{{issuer: x, jwksUri: '{url}'}}")
    for keys in ([], [build_key_set(url, "", "not fetched yet")]):
        found = find_policies(objects.build_snapshot(gateway(), given, *keys), MESH, gateway())
        assert provider(found).local_jwks.inline_string == THROW_AWAY_KEYS
    found = find_policies(objects.build_snapshot(gateway(), given, build_key_set(url, KEYS)), MESH, gateway())
    assert provider(found).local_jwks.inline_string == KEYS


def test_nobody_can_have_the_throw_away_key() -> None:
    [key] = json.loads(THROW_AWAY_KEYS)["keys"]
    x, y = (int.from_bytes(_decode(key[name]), "big") for name in ("x", "y"))
    assert x == int.from_bytes(hashlib.sha256(THROW_AWAY_SEED.encode()).digest(), "big")
    prime = 2**256 - 2**224 + 2**192 + 2**96 - 1
    constant = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    assert (y * y - (x**3 - 3 * x + constant)) % prime == 0


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=")


# What the filters decide ---------------------------------------------------------------------------------------------


def some(name: str, values: list[str]) -> st.SearchStrategy[str]:
    """A field with one or two of these, or its opposite."""
    chosen = st.lists(st.sampled_from(values), min_size=1, max_size=2)
    opposite = f"not{name[0].upper()}{name[1:]}"
    return st.tuples(st.sampled_from([name, opposite]), chosen).map(lambda each: f"{each[0]}: {json.dumps(each[1])}")


def fields(*choices: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """One or two of these fields, of different names."""
    chosen = st.lists(st.one_of(*choices), min_size=1, max_size=2, unique_by=lambda each: each.partition(":")[0])
    return chosen.map(lambda each: "{" + ", ".join(each) + "}")


BLOCKS = ["198.51.100.0/24", "203.0.113.7", "2001:db8::/32"]
PRINCIPALS = ["cluster.local/ns/demo/sa/web", "*/sa/web", "cluster.local/ns/*", "*", "other.test/ns/demo/sa/web"]
NAMES = ["demo", "de*", "*mo", "*", "other", "d.mo"]
REQUEST_PRINCIPALS = [
    "https://a.test/me",
    "https://a.test/me/too",
    "https://a.test*",
    "https://a.test/*",
    "https://a.test/me/*",
    "*/me",
    "*me/too",
    "*.test/me",
    "*",
    "a/b",
]
TEXTS = ["blue", "bl*", "*ue", "*", "red"]
PATHS = ["/a", "/a*", "*.html", "*", "/{*}", "/a/{*}/c", "/a/{**}", "/{**}/c", "/{*}/{**}", "/a.b/{*}"]

SOURCE_FIELDS = {
    "principals": PRINCIPALS,
    "namespaces": NAMES,
    "trustDomains": ["cluster.local", "cluster*", "*.local", "*", "cluster-local"],
    "ipBlocks": BLOCKS,
    "remoteIpBlocks": BLOCKS,
    "requestPrincipals": REQUEST_PRINCIPALS,
    "serviceAccounts": ["web", "demo/web", "other/web", "w.b"],
}
OPERATION_FIELDS = {
    "hosts": ["www.test", "*.test", "www.*", "*", "www.test:80", "www-test"],
    "methods": ["GET", "P*", "*T", "*"],
    "paths": PATHS,
    "ports": ["80", "81"],
}
SOURCES = st.one_of(
    fields(*(some(name, values) for name, values in SOURCE_FIELDS.items() if name != "serviceAccounts")),
    fields(*(some(name, SOURCE_FIELDS[name]) for name in ("serviceAccounts", "ipBlocks", "requestPrincipals"))),
)
OPERATIONS = fields(*(some(name, values) for name, values in OPERATION_FIELDS.items()))
KEYED = {
    "source.ip": BLOCKS,
    "remote.ip": BLOCKS,
    "destination.ip": ["192.0.2.0/24", "192.0.2.9"],
    "destination.port": ["80", "81"],
    "source.namespace": NAMES,
    "source.principal": PRINCIPALS,
    "source.serviceAccount": ["web", "other/web"],
    "source.trustDomain": ["cluster.local", "other*"],
    "connection.sni": ["www.test", "*.test", "*"],
    "request.headers[X-Team]": TEXTS,
    "request.auth.principal": REQUEST_PRINCIPALS,
    "request.auth.audiences": TEXTS,
    "request.auth.presenter": TEXTS,
    "request.auth.claims[groups]": TEXTS,
    "request.auth.claims[realm][name]": TEXTS,
}
CONDITIONS = st.sampled_from(sorted(KEYED)).flatmap(
    lambda key: some("values", KEYED[key]).map(lambda each: f"{{key: '{key}', {each}}}")
)


def listed(name: str, wrap: str, parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    wrapped = parts.map(lambda each: f"{{{wrap}: {each}}}" if wrap else each)
    return st.lists(wrapped, max_size=2).map(lambda each: f"{name}: [{', '.join(each)}]" if each else "")


RULE = st.tuples(
    listed("from", "source", SOURCES), listed("to", "operation", OPERATIONS), listed("when", "", CONDITIONS)
).map(lambda parts: "{" + ", ".join(filter(None, parts)) + "}")
SPEC = st.tuples(st.sampled_from(["ALLOW", "DENY"]), st.lists(RULE, max_size=2)).map(
    lambda each: f"action: {each[0]}, rules: [{', '.join(each[1])}]"
)
ISSUERS = ["https://a.test", "https://a.test/me", "a", "", "not-https://a.test"]
SUBJECTS = ["me", "too", "me/too", "b", ""]
OTHER_CLAIMS: dict[str, list[Claim]] = {
    "aud": ["blue", "red", ["blue", "x"], ["red", "true blue"], [], "BLUE", "true blue", ""],
    "azp": ["blue", "black"],
    "groups": ["blue", ["red", "true blue"], [""], ""],
    "realm": [{"name": "blue"}, {"other": "blue"}],
}
NAMED: list[dict[str, Claim]] = [{"iss": issuer, "sub": subject} for issuer in ISSUERS for subject in SUBJECTS]
TOKENS: list[dict[str, Claim]] = [
    {},
    {"iss": "a"},
    {"sub": "b"},
    *NAMED,
    *({"iss": "a", "sub": "b", name: claim} for name, claims in OTHER_CLAIMS.items() for claim in claims),
]
METHODS = ["GET", "POST", "DELETE"]
HOSTS = ["www.test", "WWW.test:80", "www.test.", "test", "www.test.evil:80", "wwwxtest", "www.test:x", "a.www.test"]
ASKED = ["/", "/a", "/a?x=.html", "/a/", "/ab", "/a/b/c", "/a//c", "/c", "/x.html", "/aXb/c", "/a.b/c", "/a/b/c/d"]
HEADERS = [{"x-team": each} for each in ("blue", "red", "", "true blue")] + [{}]
IDENTITIES = [
    "",
    *(f"spiffe://{domain}/ns/{place}/sa/web" for domain in ("cluster.local", "other.test") for place in ("demo", "x")),
    "spiffe://cluster.local/ns/demo/sa/webs",
    "spiffe://cluster.local/other",
]
ADDRESSES = ["198.51.100.1", "203.0.113.7", "2001:db8::1", "2001:db9::1"]
DESTINATIONS = ["192.0.2.1", "192.0.3.9"]
REQUESTS = st.builds(
    Request,
    method=st.sampled_from(METHODS),
    host=st.sampled_from(HOSTS),
    path=st.sampled_from(ASKED),
    headers=st.sampled_from(HEADERS),
    identity=st.sampled_from(IDENTITIES),
    peer=st.sampled_from(ADDRESSES),
    remote=st.sampled_from(ADDRESSES),
    address=st.sampled_from(DESTINATIONS),
    port=st.sampled_from([80, 81]),
    server_name=st.sampled_from(["", "www.test"]),
    claims=st.sampled_from(TOKENS),
)
# What differs from the plainest request in one thing.
NEIGHBOURS = [
    *(Request(method=each) for each in METHODS),
    *(Request(host=each) for each in HOSTS),
    *(Request(path=each) for each in ASKED),
    *(Request(headers=each) for each in HEADERS),
    *(Request(identity=each) for each in IDENTITIES),
    *(Request(peer=each) for each in ADDRESSES),
    *(Request(remote=each) for each in ADDRESSES),
    *(Request(address=each) for each in DESTINATIONS),
    *(Request(port=each) for each in (80, 81)),
    *(Request(server_name=each) for each in ("", "www.test")),
    *(Request(claims=each) for each in TOKENS),
]


@pytest.mark.parametrize(
    ("form", "name", "values"),
    [
        *(("from: [{source: {%s}}]", *each) for each in SOURCE_FIELDS.items()),
        *(("to: [{operation: {%s}}]", *each) for each in OPERATION_FIELDS.items()),
        *((f"when: [{{key: '{key}', %s}}]", "values", values) for key, values in KEYED.items()),
    ],
)
def test_each_value_of_a_field_decides_as_it_reads(form: str, name: str, values: list[str]) -> None:
    opposite = f"not{name[0].upper()}{name[1:]}"
    for written in (f"{each}: {json.dumps(chosen)}" for each in (name, opposite) for chosen in _choose(values)):
        policies = (policy(f"rules: [{{{form % written}}}]"),)
        filters = build_policy_filters(RequestPolicies(policies))
        for request in NEIGHBOURS:
            assert passes(filters, request) == is_allowed(policies, request), (written, request)


def _choose(values: list[str]) -> list[list[str]]:
    """Each one by itself, and with the next."""
    return [[each] for each in values] + [list(pair) for pair in pairwise(values)]


@settings(max_examples=200)
@given(st.lists(SPEC, max_size=3), st.lists(REQUESTS, min_size=1, max_size=8))
def test_the_filters_decide_as_the_policies_read(specs: list[str], requests: list[Request]) -> None:
    given_policies = tuple(policy(spec, f"p{number}") for number, spec in enumerate(specs))
    for identity in (ClientIdentity(), ClientIdentity("io.istio.peer_principal")):
        filters = build_policy_filters(RequestPolicies(given_policies), identity)
        for request in requests:
            assert passes(filters, request) == is_allowed(given_policies, request), request


def test_a_rehearsed_policy_decides_nothing_and_is_shown_apart() -> None:
    metadata = "annotations: {istio.io/dry-run: 'true'}"
    rehearsed = objects.authorization(f"{TARGET}, action: DENY, rules: [{{}}]", "p", metadata=metadata)
    filters = build_policy_filters(RequestPolicies((rehearsed,)))
    assert passes(filters, Request())
    enforced = RequestPolicies((rehearsed, policy("action: DENY, rules: [{}]", "q")))
    assert not passes(build_policy_filters(enforced), Request())
