"""Each check fires on what is wrong, and is silent about its healthy neighbour."""

import ast
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.lab.kinds import LAB_CATALOGUE
from controller.analysis.codes import CODES, CROSS_CHECKS, REFUSALS, Severity
from controller.analysis.report import Report, analyze_texts
from controller.registry.names import MeshSettings
from controller.sources.directory import Unreadable
from controller.sources.problems import ProblemReason

REPOSITORY = Path(__file__).parents[3]


def namespace(name: str, labels: str = "istio.io/dataplane-mode: ambient") -> str:
    return f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n---\n"


def pod(name: str = "web", place: str = "shop", labels: str = "app: web", spec: str = "") -> str:
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {place}, labels: {{{labels}}}}}\n"
        f"spec: {{serviceAccountName: {name}, containers: [{{name: c, {spec}}}]}}\n---\n"
    )


def service(ports: str = "", selector: str = "app: web", place: str = "shop", kind: str = "ClusterIP") -> str:
    return (
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: {place}}}\n"
        f"spec: {{type: {kind}, selector: {{{selector}}}, ports: [{ports}]}}\n---\n"
    )


def policy(spec: str = "", place: str = "shop", kind: str = "AuthorizationPolicy", name: str = "p") -> str:
    return (
        f"apiVersion: security.istio.io/v1\nkind: {kind}\n"
        f"metadata: {{name: {name}, namespace: {place}}}\nspec: {{{spec}}}\n---\n"
    )


def peer(spec: str = "mtls: {mode: STRICT}", place: str = "shop", name: str = "p") -> str:
    return policy(spec, place, "PeerAuthentication", name)


def source(fields: str) -> str:
    return policy(f"rules: [{{from: [{{source: {{{fields}}}}}]}}]")


def port(number: str) -> str:
    return policy(f"rules: [{{to: [{{operation: {{ports: ['{number}']}}}}]}}]")


HTTP_PORT = "ports: [{name: http, containerPort: 8080}]"
DEPLOYMENT = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\n---\n"
SHOP = namespace("shop") + pod()
SHOP_HTTP = namespace("shop") + pod(spec=HTTP_PORT)
ELSEWHERE = "selector: {matchLabels: {app: other}}"
WEB = "selector: {matchLabels: {app: web}}"


def codes_of(*texts: str) -> list[str]:
    report = analyze_texts({f"{index}.yaml": text for index, text in enumerate(texts)})
    return [entry.code for entry in report.entries]


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        pytest.param(SHOP + policy(ELSEWHERE), ["policy-selector-matches-nothing"], id="selector"),
        pytest.param(SHOP + peer(ELSEWHERE), ["policy-selector-matches-nothing"], id="peer-selector"),
        pytest.param(SHOP + policy(ELSEWHERE, "istio-system"), ["policy-selector-matches-nothing"], id="root-selector"),
        pytest.param(
            SHOP + peer("selector: {matchLabels: {app: web}}", "istio-system"),
            ["policy-namespace-without-pods"],
            id="a-peer-of-the-root-namespace-selects-there-only",
        ),
        pytest.param(SHOP + policy(place="shpo"), ["policy-namespace-without-pods"], id="namespace-without-pods"),
        pytest.param(SHOP + service(selector="app: other"), ["service-selector-matches-nothing"], id="service"),
        pytest.param(SHOP_HTTP + service("{port: 80, targetPort: web}"), ["target-port-unknown"], id="name-of-no-port"),
        pytest.param(
            SHOP_HTTP + pod("web-2") + service("{port: 80, targetPort: http}"),
            ["target-port-undeclared"],
            id="name-that-one-pod-lacks",
        ),
        pytest.param(
            SHOP_HTTP + service("{port: 80, targetPort: 8081}"), ["target-port-undeclared"], id="undeclared-number"
        ),
        pytest.param(SHOP_HTTP + service("{port: 80}"), ["target-port-undeclared"], id="no-target-port"),
        pytest.param(
            SHOP_HTTP + service("{port: 80, targetPort: 8080}") + port("80"),
            ["policy-port-is-a-service-port"],
            id="policy-on-the-service-port",
        ),
        pytest.param(
            SHOP + source("principals: [cluster.local/ns/shop/sa/wbe]"), ["unknown-service-account"], id="principal"
        ),
        pytest.param(SHOP + source("serviceAccounts: [wbe]"), ["unknown-service-account"], id="own-account"),
        pytest.param(SHOP + source("notServiceAccounts: [shop/wbe]"), ["unknown-service-account"], id="not-account"),
        pytest.param(
            SHOP + source("principals: [cluster.local/ns/shpo/sa/web]"), ["unknown-namespace"], id="namespace"
        ),
        pytest.param(SHOP + source("namespaces: [shpo]"), ["unknown-namespace"], id="namespaces"),
        pytest.param(
            SHOP + policy("rules: [{when: [{key: source.namespace, values: [shpo]}]}]"),
            ["unknown-namespace"],
            id="condition",
        ),
        pytest.param(SHOP + source("principals: [shop/web]"), ["principal-never-matches"], id="no-principal"),
        pytest.param(namespace("shop", "") + pod() + peer(), ["policy-not-enforced"], id="strict-outside"),
        pytest.param(
            namespace("shop", "") + pod() + peer("selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}"),
            ["policy-not-enforced"],
            id="strict-for-selected-pods-outside",
        ),
        pytest.param(
            SHOP + pod("out", labels="istio.io/dataplane-mode: none") + peer(),
            ["policy-not-enforced"],
            id="strict-for-a-pod-that-opted-out",
        ),
        pytest.param(
            namespace("shop", "") + pod() + peer(f"{WEB}, portLevelMtls: {{80: {{mode: STRICT}}}}"),
            ["policy-not-enforced"],
            id="strict-for-a-port",
        ),
        pytest.param(namespace("shop", "") + pod() + policy(WEB), ["policy-not-enforced"], id="policy-outside"),
        pytest.param(SHOP + peer(name="a") + peer(name="b"), ["peer-authentication-shadowed"], id="two-peers"),
    ],
)
def test_what_fits_nothing_else_is_found(text: str, codes: list[str]) -> None:
    assert codes_of(text) == codes


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(SHOP + policy(WEB) + peer(WEB), id="selector"),
        pytest.param(SHOP + policy(WEB, "istio-system") + peer(place="istio-system"), id="root-namespace"),
        pytest.param(SHOP + policy() + peer(), id="whole-namespace"),
        pytest.param(policy(ELSEWHERE) + peer(ELSEWHERE) + service(), id="policies-and-services-without-any-pod"),
        pytest.param(SHOP + namespace("empty"), id="namespace-without-anything"),
        pytest.param(pod() + policy() + peer() + service(), id="namespace-that-is-not-given"),
        pytest.param(SHOP_HTTP + service("{port: 80, targetPort: http}"), id="name-of-a-port"),
        pytest.param(SHOP_HTTP + service("{port: 80, targetPort: 8080}"), id="declared-number"),
        pytest.param(SHOP + service("{port: 80, targetPort: 8080}"), id="pods-that-declare-nothing"),
        pytest.param(SHOP_HTTP + service("{port: 80, targetPort: dns, protocol: UDP}"), id="not-tcp"),
        pytest.param(SHOP + service(selector=""), id="service-without-selector"),
        pytest.param(SHOP + service(selector="app: other", kind="ExternalName"), id="external-name"),
        pytest.param(SHOP_HTTP + service("{port: 80, targetPort: 8080}") + port("8080"), id="application-port"),
        pytest.param(SHOP_HTTP + service("{port: 80, targetPort: 8080}") + port("9090"), id="port-of-nobody"),
        pytest.param(SHOP + source("principals: [other.domain/ns/shop/sa/web, '*/sa/x', 'x*']"), id="principals"),
        pytest.param(SHOP + source("principals: [cluster.local/ns/shop/sa/default]"), id="default-account"),
        pytest.param(SHOP + source("namespaces: [shop, 'x*', istio-system]"), id="namespaces"),
        pytest.param(SHOP + source("serviceAccounts: [web, shop/web]"), id="accounts"),
        pytest.param(
            SHOP
            + "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: idle, namespace: jobs}\n---\n"
            + source("principals: [cluster.local/ns/jobs/sa/idle], namespaces: [jobs]"),
            id="given-account-without-pods",
        ),
        pytest.param(namespace("shop", "") + pod() + peer("mtls: {mode: PERMISSIVE}"), id="permissive-outside"),
        pytest.param(
            namespace("out", "") + pod(place="out") + SHOP + peer(place="istio-system"), id="mesh-wide-strict"
        ),
        pytest.param(
            namespace("shop", "") + pod(labels="app: web, istio.io/dataplane-mode: ambient") + peer(),
            id="pod-label",
        ),
        pytest.param(
            SHOP + peer(name="a") + peer(f"{WEB}, mtls: {{mode: STRICT}}", name="b"), id="peers-of-two-levels"
        ),
    ],
)
def test_what_is_healthy_is_passed_over(text: str) -> None:
    assert codes_of(text) == []


def test_root_namespace_is_a_setting() -> None:
    text = {"a.yaml": SHOP + policy(WEB, "mesh")}
    assert [entry.code for entry in analyze_texts(text).entries] == ["policy-namespace-without-pods"]
    assert not analyze_texts(text, settings=MeshSettings(root_namespace="mesh")).entries


def test_pods_that_are_made_by_others_or_refused_silence_what_would_select_them() -> None:
    others = peer(ELSEWHERE) + service(selector="app: other") + source("serviceAccounts: [worker]")
    assert len(codes_of(SHOP + others)) == 3
    assert codes_of(SHOP + DEPLOYMENT + others) == ["other-kind"]
    refused = "apiVersion: v1\nkind: Pod\nmetadata: {name: other, namespace: shop, labels: {app: 1}}\n---\n"
    assert codes_of(SHOP + refused + policy(ELSEWHERE)) == ["wrong-type"]
    assert codes_of(SHOP + policy(ELSEWHERE), "[") == ["syntax"]
    elsewhere = DEPLOYMENT.replace("shop", "jobs")
    assert codes_of(SHOP + elsewhere + policy(ELSEWHERE)) == ["other-kind", "policy-selector-matches-nothing"]


def test_kind_that_is_not_read_is_a_warning_and_its_version_an_error() -> None:
    assert codes_of(policy().replace("/v1", "/v9")) == ["unknown-version"]
    assert CODES["unknown-version"].severity is Severity.ERROR
    assert codes_of("apiVersion: extensions.istio.io/v1\nkind: WasmPlugin\nmetadata: {name: x}") == ["unknown-kind"]
    assert CODES["unknown-kind"].severity is Severity.WARNING


def test_documents_of_other_tools_are_a_notice() -> None:
    static = "static_resources: {listeners: []}\n---\n"
    assert codes_of(static + DEPLOYMENT) == ["other-kind", "other-kind"]
    assert CODES["other-kind"].severity is Severity.NOTICE
    assert codes_of("apiVersion: v1\nkind: Servce\nmetadata: {name: x}") == ["unknown-kind"], "no kind of Kubernetes"


def test_object_in_two_files_is_an_error_in_the_second() -> None:
    report = analyze_texts({"a.yaml": SHOP, "b.yaml": pod()})
    [entry] = report.entries
    assert (entry.code, entry.file, entry.line, entry.object) == ("duplicate-object", "b.yaml", 1, "Pod shop/web")
    assert "a.yaml, line 5" in entry.message


def test_finding_names_object_field_line_and_next_step() -> None:
    text = SHOP + policy().replace("spec: {}", "spec:\n  selector:\n    matchLabels: {app: other}")
    [entry] = analyze_texts({"a.yaml": text}).entries
    assert entry.object == "AuthorizationPolicy shop/p"
    assert entry.field == "spec.selector.matchLabels"
    assert text.splitlines()[entry.line - 1].strip() == "matchLabels: {app: other}"
    assert "app=other" in entry.message
    assert entry.fix


def test_item_of_a_list_is_found_in_its_line() -> None:
    item = (
        "- apiVersion: v1\n  kind: Service\n  metadata: {name: s, namespace: shop}\n  spec:\n    selector: {app: no}\n"
    )
    report = analyze_texts({"a.yaml": SHOP, "b.yaml": "apiVersion: v1\nkind: List\nitems:\n" + item})
    assert [(entry.code, entry.line) for entry in report.entries] == [("service-selector-matches-nothing", 8)]


def test_a_checks_own_type_is_the_code_and_others_have_the_reasons() -> None:
    assert codes_of(source("principals: [a*b]")) == ["pattern-star"]
    assert codes_of(policy("rules: [{to: [{operation: {paths: [/]}}]}]")) == ["needs-targets"]
    assert codes_of(policy("bogus: 1")) == ["unknown-field"]
    assert codes_of(peer("mtls: {mode: ON}")) == ["invalid-value"]
    unreadable = analyze_texts({"a.yaml": Unreadable("cannot be read: Permission denied")})
    assert [entry.code for entry in unreadable.entries] == ["unreadable"]


def types_of_checks() -> set[str]:
    """The types of all errors that our own validators raise."""
    found: set[str] = set()
    for path in [*(REPOSITORY / "controller/kinds").glob("*.py"), REPOSITORY / "ambit/lab/kinds.py"]:
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            if isinstance(call.func, ast.Name) and call.func.id == "PydanticCustomError":
                assert isinstance(call.args[0], ast.Constant), f"{path}:{call.lineno}: a type must be a literal"
                found.add(str(call.args[0].value))
    return found


def test_every_refusal_has_its_line_in_the_list_and_nothing_else_is_in_it() -> None:
    words = types_of_checks() | {reason.value for reason in ProblemReason} | {"unknown_version", "other_kind"}
    assert {word.replace("_", "-") for word in words} == set(REFUSALS)


def test_the_page_has_every_code_with_its_severity_and_meaning() -> None:
    page = (REPOSITORY / "docs/analyze.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (error|warning|notice) \| (.+) \| (.+) \|$", page, re.MULTILINE)
    assert rows == [
        (name, code.severity.value, code.meaning, code.fix) for name, code in {**CROSS_CHECKS, **REFUSALS}.items()
    ]


@pytest.mark.parametrize(
    "names",
    [
        ["first-lab.yaml", "deny-client.yaml", "strict.yaml"],
        ["demo/*.yaml"],
        ["gateway.yaml"],
        ["istio-gateway.yaml"],
    ],
)
def test_examples_have_no_problems_alone_or_together(names: list[str]) -> None:
    paths = [path for name in names for path in (REPOSITORY / "examples").glob(name)]
    texts = {str(path): path.read_text() for path in paths}
    assert texts
    assert not analyze_texts(texts, LAB_CATALOGUE).entries
    for name, text in texts.items():
        assert not analyze_texts({name: text}, LAB_CATALOGUE).entries


_FRAGMENTS = [SHOP, SHOP_HTTP, DEPLOYMENT, service(), service("{port: 80, targetPort: x}"), policy(WEB), peer()]
_FRAGMENTS += [
    source("principals: ['*']"),
    "[",
    "kind: [Pod]\n",
    "metadata: {name: [], namespace: {}}\n",
    "&a ",
    "*a",
    "---\n",
]
_FRAGMENTS += [
    "apiVersion: v1\n",
    "kind: Pod\n",
    "kind: List\nitems:\n",
    "- ",
    "spec: ",
    "\t",
    "\0",
    "é",
    ": ",
    "{",
    "}",
]


def assert_complete(report: Report) -> None:
    for entry in report.entries:
        assert entry.message
        assert entry.fix
        assert entry.code in CODES
        assert entry.line >= 1


@given(st.lists(st.lists(st.sampled_from(_FRAGMENTS), max_size=12).map("".join), max_size=3))
def test_no_text_that_looks_like_objects_makes_it_raise(texts: list[str]) -> None:
    assert_complete(analyze_texts({f"{index}.yaml": text for index, text in enumerate(texts)}))


@given(st.text())
def test_no_text_at_all_makes_it_raise(text: str) -> None:
    assert_complete(analyze_texts({"a.yaml": text}))


def test_workload_entries_are_somebody_too() -> None:
    entry = (
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n"
        "metadata: {name: vm, namespace: shop, labels: {app: other}}\nspec: {address: 192.0.2.1}\n---\n"
    )
    chosen = [service("{port: 80}", "app: other"), policy(ELSEWHERE)]
    assert codes_of(SHOP, entry, *chosen) == []
    assert sorted(codes_of(SHOP, *chosen)) == ["policy-selector-matches-nothing", "service-selector-matches-nothing"]
