"""Gateway API's rules of precedence and attachment, and the hosts and ports of redirects."""

import pytest

from controller.kinds.gateway_api import Gateway
from controller.kinds.http_route import HTTPRoute
from controller.registry.attachment import Reason, attach, check_listener, covers
from controller.registry.gateways import Attached, RequestChain, build_ports
from controller.registry.http import Redirect, Target, VirtualHost
from controller.registry.http_routes import build_routes, sort_routes
from controller.snapshot import Snapshot
from tests.support.objects import build_snapshot, namespace, parse

GATEWAY_API = "gateway.networking.k8s.io/v1"
SOMEWHERE = Target("demo", "s.demo.svc.cluster.local", 80)


def gateway(*listeners: str) -> Gateway:
    spec = f"{{gatewayClassName: ambit, listeners: [{', '.join(listeners)}]}}"
    made = parse(
        f"{{apiVersion: {GATEWAY_API}, kind: Gateway, metadata: {{name: web, namespace: demo}}, spec: {spec}}}"
    )
    assert isinstance(made, Gateway)
    return made


def route(spec: str, name: str = "route", metadata: str = "", where: str = "demo") -> HTTPRoute:
    head = f"apiVersion: {GATEWAY_API}, kind: HTTPRoute, metadata: {{name: {name}, namespace: {where}, {metadata}}}"
    made = parse(f"{{{head}, spec: {{{spec}}}}}")
    assert isinstance(made, HTTPRoute)
    return made


def rule(name: str, match: str) -> str:
    return f"{{name: {name}, matches: [{{{match}}}], backendRefs: [{{name: s, port: 80}}]}}"


def order(*routes: HTTPRoute) -> list[str]:
    """The names of the rules, in the order in which they are tried."""
    ranked = [each for one in routes for each in build_routes(one, lambda namespace, reference: SOMEWHERE)]
    return [each.name.rpartition("/")[2] for each in sort_routes(ranked)]


def test_the_more_specific_match_is_tried_first() -> None:
    given = [
        rule("everything", "path: {value: /}"),
        rule("query", "path: {value: /a}, queryParams: [{name: q, value: '1'}]"),
        rule("prefix", "path: {value: /a}"),
        rule("headers", "path: {value: /a}, headers: [{name: x, value: '1'}, {name: y, value: '1'}]"),
        rule("header", "path: {value: /a}, headers: [{name: x, value: '1'}]"),
        rule("method", "path: {value: /a}, method: GET"),
        rule("long", "path: {value: /a/b}"),
        rule("exact", "path: {type: Exact, value: /a}"),
    ]
    expected = ["exact", "long", "method", "headers", "header", "query", "prefix", "everything"]
    assert order(route(f"rules: [{', '.join(given)}]")) == expected
    assert order(route(f"rules: [{', '.join(reversed(given))}]")) == expected


def test_of_equal_matches_the_oldest_route_goes_first_then_the_name_then_the_place() -> None:
    young = route(f"rules: [{rule('young', '')}]", "a", 'creationTimestamp: "2026-02-01T00:00:00Z"')
    old = route(f"rules: [{rule('old', '')}, {rule('second', '')}]", "c", 'creationTimestamp: "2026-01-01T00:00:00Z"')
    same = route(f"rules: [{rule('same', '')}]", "b", 'creationTimestamp: "2026-01-01T00:00:00Z"')
    assert order(young, old, same) == ["same", "old", "second", "young"]


@pytest.mark.parametrize(
    ("pattern", "host", "expected"),
    [
        ("*", "a.test", True),
        ("a.test", "a.test", True),
        ("*.test", "a.test", True),
        ("*.test", "a.b.test", True),
        ("*.test", "test", False),
        ("*.test", ".test", False),
        ("*.b.test", "*.test", False),
        ("*.test", "*.b.test", True),
        ("a.test", "b.test", False),
    ],
)
def test_a_pattern_covers_hosts(pattern: str, host: str, expected: bool) -> None:
    assert covers(pattern, host) is expected


HTTP = "{name: http, port: 80, protocol: HTTP}"


@pytest.mark.parametrize(
    ("listener", "given", "reason"),
    [
        pytest.param(HTTP, "parentRefs: [{name: web}]", Reason.ACCEPTED, id="plain"),
        pytest.param(HTTP, "parentRefs: [{name: web, sectionName: none}]", Reason.NO_MATCHING_PARENT, id="no-section"),
        pytest.param(HTTP, "parentRefs: [{name: web, port: 81}]", Reason.NO_MATCHING_PARENT, id="no-port"),
        pytest.param(
            "{name: http, port: 80, protocol: HTTP, hostname: a.test}",
            "parentRefs: [{name: web}], hostnames: [b.test]",
            Reason.NO_MATCHING_HOSTNAME,
            id="no-hostname",
        ),
        pytest.param(
            "{name: http, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: GRPCRoute}]}}",
            "parentRefs: [{name: web}]",
            Reason.NOT_ALLOWED,
            id="other-kind",
        ),
        pytest.param(
            "{name: tls, port: 443, protocol: UDP}",
            "parentRefs: [{name: web}]",
            Reason.NO_MATCHING_PARENT,
            id="protocol-that-is-not-carried-out",
        ),
    ],
)
def test_a_route_attaches_or_says_why_not(listener: str, given: str, reason: Reason) -> None:
    one = route(given)
    [reference] = one.spec.parent_refs or ()
    assert attach(build_snapshot(), one, reference, gateway(listener)).reason is reason


@pytest.mark.parametrize(
    ("allowed", "labels", "is_accepted"),
    [
        ("from: Same", "", False),
        ("from: All", "", True),
        ("from: None", "", False),
        ("from: Selector, selector: {matchLabels: {a: b}}", "a: b", True),
        ("from: Selector, selector: {matchLabels: {a: b}}", "", False),
        ("from: Selector, selector: {matchExpressions: [{key: a, operator: In, values: [b]}]}", "a: b", True),
        ("from: Selector, selector: {matchExpressions: [{key: a, operator: DoesNotExist}]}", "a: b", False),
        ("from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: other}}", "", True),
    ],
)
def test_routes_of_other_namespaces_attach_where_they_are_allowed(allowed: str, labels: str, is_accepted: bool) -> None:
    listener = f"{{name: http, port: 80, protocol: HTTP, allowedRoutes: {{namespaces: {{{allowed}}}}}}}"
    one = route("parentRefs: [{name: web, namespace: demo}]", where="other")
    [reference] = one.spec.parent_refs or ()
    found = attach(build_snapshot(namespace("other", labels=labels)), one, reference, gateway(listener))
    assert found.is_accepted is is_accepted


def test_of_two_listeners_of_one_port_and_host_the_first_serves() -> None:
    both = gateway("{name: a, port: 80, protocol: HTTP}", "{name: b, port: 80, protocol: HTTP}")
    assert [check_listener(both, each)[0] for each in both.spec.listeners] == [
        Reason.ACCEPTED,
        Reason.HOSTNAME_CONFLICT,
    ]


def build_hosts(listener: str, spec: str, hosts: tuple[str, ...]) -> list[VirtualHost]:
    one = route(spec)
    routes = build_routes(one, lambda namespace, reference: SOMEWHERE)
    return hosts_of(gateway(listener), Attached({"http": hosts}, routes))


def hosts_of(served: Gateway, *attached: Attached) -> list[VirtualHost]:
    """The virtual hosts of a Gateway with one port, of one chain."""
    [[chain]] = build_ports(Snapshot(), served, attached).values()
    assert isinstance(chain, RequestChain)
    return list(chain.hosts)


def find_redirect(protocol: str, port: int, host: str, redirect: str) -> tuple[str, str, int]:
    """Scheme, host and port of the redirect that a listener answers requests for a host with."""
    spec = f"rules: [{{filters: [{{type: RequestRedirect, requestRedirect: {{{redirect}}}}}]}}]"
    hosts = build_hosts(f"{{name: http, port: {port}, protocol: {protocol}}}", spec, (host,))
    [built] = next(each.routes for each in hosts if each.domains == (host,))
    assert isinstance(built.action, Redirect)
    return built.action.scheme, built.action.host, built.action.port


@pytest.mark.parametrize(
    ("port", "host", "redirect", "expected"),
    [
        pytest.param(80, "a.test", "scheme: https", ("https", "a.test", 0), id="to-https"),
        pytest.param(8080, "a.test", "scheme: https", ("https", "a.test", 0), id="to-https-from-odd-port"),
        pytest.param(80, "*", "scheme: https", ("https", "", 0), id="to-https-of-any-host"),
        pytest.param(8080, "*", "scheme: https", ("https", "", 443), id="to-https-of-any-host-from-odd-port"),
        pytest.param(8080, "a.test", "hostname: b.test", ("", "b.test", 8080), id="host-keeps-port"),
        pytest.param(80, "a.test", "hostname: b.test", ("", "b.test", 0), id="host-of-port-80"),
        pytest.param(80, "a.test", "port: 8080", ("", "a.test", 8080), id="port"),
        pytest.param(8080, "a.test", "port: 80", ("", "a.test", 0), id="to-port-80"),
        pytest.param(8080, "a.test", "statusCode: 301", ("", "", 0), id="neither"),
    ],
)
def test_a_redirect_names_the_port_only_where_it_must(
    port: int, host: str, redirect: str, expected: tuple[str, str, int]
) -> None:
    assert find_redirect("HTTP", port, host, redirect) == expected


@pytest.mark.parametrize(
    ("port", "host", "redirect", "expected"),
    [
        pytest.param(443, "a.test", "scheme: http", ("http", "a.test", 0), id="to-http"),
        pytest.param(443, "a.test", "hostname: b.test", ("", "b.test", 0), id="host-of-port-443"),
        pytest.param(8443, "a.test", "hostname: b.test", ("", "b.test", 8443), id="host-keeps-port"),
        pytest.param(8443, "a.test", "port: 443", ("", "a.test", 0), id="to-port-443"),
        pytest.param(443, "a.test", "port: 80", ("", "a.test", 80), id="port-80-of-https"),
        pytest.param(80, "a.test", "hostname: b.test", ("", "b.test", 80), id="https-on-port-80"),
    ],
)
def test_a_redirect_of_https_leaves_out_its_own_port(
    port: int, host: str, redirect: str, expected: tuple[str, str, int]
) -> None:
    assert find_redirect("HTTPS", port, host, redirect) == expected


def test_requests_for_a_host_see_the_routes_of_wider_hosts_behind_its_own() -> None:
    found = hosts_of(
        gateway(HTTP),
        *(
            Attached({"http": (host,)}, build_routes(route(f"rules: [{rule(name, '')}]", name), lambda *_: SOMEWHERE))
            for name, host in (("wide", "*.test"), ("any", "*"), ("own", "a.test"))
        ),
    )
    hosts = {each.name: [one.name.rpartition("/")[2] for one in each.routes] for each in found}
    assert hosts == {"a.test": ["own", "wide", "any"], "*.test": ["wide", "any"], "*": ["any"]}


@pytest.mark.parametrize(
    "spec",
    [
        "rules: [{filters: [{type: ExtensionRef, extensionRef: {group: x, kind: y, name: z}}]}]",
        "rules: [{filters: [{type: URLRewrite}]}]",
        "rules: [{filters: [{type: CORS, cors: {}}, {type: CORS, cors: {}}]}]",
        "rules: [{matches: [{path: {value: a}}]}]",
        "rules: [{matches: [{path: {type: RegularExpression, value: '(?=a)'}}]}]",
        "rules: [{matches: [{headers: [{name: 'a b', value: x}]}]}]",
        "rules: [{timeouts: {request: 1s, backendRequest: 2s}}]",
        "rules: [{timeouts: {request: 1 second}}]",
        "rules: [{matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, urlRewrite: "
        "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]}]",
        "rules: [{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: host, value: x}]}}]}]",
        "rules: [{sessionPersistence: {}}]",
    ],
)
def test_what_is_not_carried_out_as_written_is_refused(spec: str) -> None:
    from controller.sources.documents import parse_documents

    text = f"{{apiVersion: {GATEWAY_API}, kind: HTTPRoute, metadata: {{name: r, namespace: demo}}, spec: {{{spec}}}}}"
    parsed = parse_documents(text, "test.yaml")
    assert parsed.problems
    assert not parsed.objects
