"""What a rule of a delegate becomes under the one that delegates."""

import pytest

from controller.kinds.virtual_service import HttpRoute, RequestMatch, VirtualService
from controller.registry.delegates import list_rules, merge
from tests.support.objects import parse


def virtual_service(
    http: str, name: str = "root", namespace: str = "demo", rest: str = "hosts: [web],"
) -> VirtualService:
    metadata = f"{{name: {name}, namespace: {namespace}}}"
    head = f"apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {metadata}"
    made = parse(f"{{{head}, spec: {{{rest} http: [{http}]}}}}")
    assert isinstance(made, VirtualService)
    return made


def root(match: str, rest: str = "") -> HttpRoute:
    [rule] = virtual_service(f"{{match: [{match}], delegate: {{name: d}}, {rest}}}").spec.http or ()
    return rule


def other(match: str, rest: str = "") -> HttpRoute:
    [rule] = virtual_service(f"{{match: [{match}], route: [{{destination: {{host: s}}}}], {rest}}}").spec.http or ()
    return rule


@pytest.mark.parametrize(
    ("outer", "inner", "merged"),
    [
        pytest.param("", "", "", id="all"),
        pytest.param("{uri: {prefix: /a}}", "", "{uri: {prefix: /a}}", id="the-root's"),
        pytest.param("", "{uri: {prefix: /a}}", "{uri: {prefix: /a}}", id="the-other's"),
        pytest.param("{uri: {prefix: /a}}", "{uri: {prefix: /a/b}}", "{uri: {prefix: /a/b}}", id="narrower"),
        pytest.param("{uri: {prefix: /a}}", "{uri: {exact: /ab}}", "{uri: {exact: /ab}}", id="one-of-them"),
        pytest.param("{uri: {prefix: /a/b}}", "{uri: {prefix: /a}}", None, id="wider"),
        pytest.param("{uri: {exact: /a}}", "{uri: {prefix: /a}}", None, id="all-that-begin-so"),
        pytest.param("{uri: {prefix: /a}}", "{uri: {regex: /a.*}}", None, id="an-expression-within"),
        pytest.param("{uri: {regex: /a.*}}", "{uri: {exact: /a}}", None, id="an-expression-around"),
        pytest.param("{uri: {regex: /a.*}}", "{port: 80}", "{uri: {regex: /a.*}, port: 80}", id="of-something-else"),
        pytest.param("{port: 80}", "{port: 81}", None, id="another-port"),
        pytest.param("{uri: {prefix: /}, ignoreUriCase: true}", "{uri: {prefix: /a}}", None, id="another-case"),
        pytest.param(
            "{headers: {a: {exact: x}}}",
            "{headers: {b: {exact: y}}}",
            "{headers: {a: {exact: x}, b: {exact: y}}}",
            id="headers-of-both",
        ),
        pytest.param("{headers: {a: {exact: x}}}", "{headers: {a: {exact: y}}}", None, id="another-value"),
        pytest.param(
            "{method: {exact: GET}}, {port: 80}",
            "{method: {exact: PUT}}",
            "{method: {exact: PUT}, port: 80}",
            id="only-within-one",
        ),
        pytest.param("{port: 80}, {port: 81}", "{port: 80}, {port: 82}", None, id="one-of-several-outside"),
        pytest.param("{gateways: [a/x]}", "{port: 80}", "{gateways: [a/x], port: 80}", id="the-root's-gateways"),
        pytest.param("{gateways: [a/x, mesh]}", "{gateways: [mesh]}", "{gateways: [mesh]}", id="some-of-its-gateways"),
        pytest.param("{gateways: [a/x]}", "{gateways: [a/x, a/y]}", None, id="another-gateway"),
    ],
)
def test_a_delegates_matches_are_within_the_roots_or_the_rule_is_lost(
    outer: str, inner: str, merged: str | None
) -> None:
    found = merge(root(outer), other(inner))
    expected: list[RequestMatch] | None = None if merged is None else list(other(merged).match or ())
    assert (None if found is None else list(found.match or ())) == expected


def test_gateways_without_a_namespace_are_of_each_ones_own() -> None:
    def merge_with(gateways: str) -> list[list[str] | None]:
        answer = f"{{match: [{{gateways: [{gateways}]}}], directResponse: {{status: 200}}}}"
        delegate = virtual_service(answer, "d", "other", rest="")
        rules = list_rules(
            virtual_service("{match: [{gateways: [web, ./x]}], delegate: {name: d}}"), lambda *_: delegate
        )
        return [list(each.gateways or ()) for rule in rules for each in rule.rule.match or ()]

    assert merge_with("demo/web") == [["demo/web"]]
    assert merge_with("") == [["demo/web", "demo/x"]]
    assert merge_with("web") == []


def test_what_a_delegate_does_not_say_is_the_roots() -> None:
    merged = merge(root("", "timeout: 5s, rewrite: {uri: /}, mirror: {host: m}"), other("", "timeout: 1s"))
    assert merged is not None
    assert (merged.timeout, merged.delegate) == (1000, None)
    assert merged.rewrite is not None
    assert merged.mirror is not None


@pytest.mark.parametrize(
    ("found", "names", "are_lost"),
    [
        pytest.param(None, ["demo/root/0"], [True], id="nobody"),
        pytest.param(
            virtual_service("{name: x, directResponse: {status: 200}}", "d", rest=""),
            ["demo/root/0/x"],
            [False],
            id="there",
        ),
        pytest.param(
            virtual_service("{directResponse: {status: 200}}", "d"), ["demo/root/0"], [True], id="one-with-hosts"
        ),
        pytest.param(
            virtual_service("{directResponse: {status: 200}}", "d", "other", "exportTo: [.],"),
            ["demo/root/0"],
            [True],
            id="not-seen",
        ),
        pytest.param(
            virtual_service("{directResponse: {status: 200}}", "d", "other", "exportTo: [third],"),
            ["demo/root/0"],
            [True],
            id="seen-by-others",
        ),
        pytest.param(
            virtual_service("{directResponse: {status: 200}}", "d", "other", "exportTo: [demo],"),
            ["demo/root/0/0"],
            [False],
            id="seen-from-here",
        ),
    ],
)
def test_a_rule_that_is_left_to_nobody_is_lost(
    found: VirtualService | None, names: list[str], are_lost: list[bool]
) -> None:
    rules = list(list_rules(virtual_service("{delegate: {name: d}}"), lambda *_: found))
    assert ([each.name for each in rules], [each.is_lost for each in rules]) == (names, are_lost)
