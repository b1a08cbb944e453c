"""Policies that others decide, and that log: what the door refuses, and what is said of missing providers."""

import pytest

from controller.analysis.report import analyze_texts
from controller.kinds.meta import KubernetesObject
from controller.registry.names import MeshSettings
from controller.sources.documents import parse_documents
from controller.status.documents import build_statuses
from tests.support import objects
from tests.support.routing_world import authorization, gateway, target

RULES = "rules: [{to: [{operation: {methods: [GET]}}]}]"
PROVIDER = "provider: {name: decider}"
WEB = "selector: {matchLabels: {app: web}}"
HTTP = "envoyExtAuthzHttp: {service: decider.demo.svc.cluster.local, port: 80}"


def mesh_config(text: str, name: str = "istio", namespace: str = "istio-system") -> str:
    head = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}}}\ndata:\n  mesh: |\n"
    return head + "".join(f"    {line}\n" for line in text.splitlines())


def provided(sort: str) -> KubernetesObject:
    return objects.parse(mesh_config(f"extensionProviders: [{{name: decider, {sort}}}]"))


@pytest.mark.parametrize(
    ("spec", "code", "field"),
    [
        pytest.param(f"action: AUDIT, {RULES}", "needs-targets", "spec.action", id="audit-for-all"),
        pytest.param(f"action: CUSTOM, {PROVIDER}, rules: [{{}}]", "needs-targets", "spec.action", id="custom-for-all"),
        pytest.param(f"{WEB}, action: CUSTOM, {RULES}", "combination", "spec", id="no-provider"),
        pytest.param(f"{WEB}, {PROVIDER}, {RULES}", "combination", "spec", id="no-custom"),
        pytest.param(f"{WEB}, action: CUSTOM, {PROVIDER}", "combination", "spec", id="no-rules"),
        pytest.param(
            f"{WEB}, action: CUSTOM, {PROVIDER}, rules: [{{from: [{{source: {{requestPrincipals: ['*']}}}}]}}]",
            "unsupported",
            "spec",
            id="tokens",
        ),
        pytest.param(
            f"{WEB}, action: CUSTOM, {PROVIDER}, rules: [{{when: [{{key: 'request.auth.claims[a]', values: [b]}}]}}]",
            "unsupported",
            "spec",
            id="claims",
        ),
        pytest.param(f"{WEB}, action: CUSTOM, provider: {{name: ''}}, {RULES}", "invalid-value", "spec.provider.name"),
    ],
)
def test_what_a_policy_cannot_say_is_refused(spec: str, code: str, field: str) -> None:
    head = "apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p, namespace: demo}"
    problems = parse_documents(f"{{{head}, spec: {{{spec}}}}}", "p.yaml").problems
    assert (problems[0].code, problems[0].path) == (code, field)


@pytest.mark.parametrize("action", [f"CUSTOM, {PROVIDER}", "AUDIT"])
def test_neither_can_be_rehearsed(action: str) -> None:
    metadata = "metadata: {name: p, annotations: {istio.io/dry-run: 'true'}}"
    head = f"apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, {metadata}"
    [problem] = parse_documents(f"{{{head}, spec: {{{WEB}, action: {action}, {RULES}}}}}", "p.yaml").problems
    assert problem.code == "unsupported"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("extensionProviders: [{name: a, envoyExtAuthzHttp: {service: a.b}}]", "port: Field required"),
        pytest.param(
            "extensionProviders: [{name: a, envoyExtAuthzGrpc: {service: a.b, port: 1, other: 2}}]",
            "extensionProviders.0.envoyExtAuthzGrpc.other",
        ),
        pytest.param("extensionProviders: [{name: a}, {name: a}]", "two extensionProviders have one name"),
        pytest.param(
            f"extensionProviders: [{{name: a, {HTTP}, envoyExtAuthzGrpc: {{service: a.b, port: 1}}}}]", "two sorts"
        ),
        pytest.param(
            f"extensionProviders: [{{name: a, {HTTP[:-1]}, statusOnError: '99'}}}}]", "must be a status", id="status"
        ),
        pytest.param("a: &a [x]\nb: [*a, *a]", "an alias"),
        pytest.param("a: [", "is no YAML"),
    ],
)
def test_settings_of_the_mesh_that_are_wrong_are_refused(text: str, message: str) -> None:
    [problem] = parse_documents(mesh_config(text), "m.yaml").problems
    assert (problem.code, problem.path) == ("mesh-config", "data")
    assert message in problem.message
    assert not parse_documents(mesh_config(text, "other"), "m.yaml").problems, "somebody else's"


@pytest.mark.parametrize(
    ("others", "found"),
    [
        pytest.param([], "ProviderNotFound", id="no-settings"),
        pytest.param([provided("zipkin: {}")], "ProviderNotFound", id="another-sort"),
        pytest.param([provided(HTTP)], "ProviderNotFound", id="no-service"),
        pytest.param([provided(HTTP), objects.service("decider")], "ProviderFound", id="there"),
        pytest.param(
            [provided(HTTP.replace("port: 80", "port: 81")), objects.service("decider")], "ProviderNotFound", id="port"
        ),
        pytest.param(
            [provided(HTTP.replace("decider", "other/decider", 1)), objects.service("decider")],
            "ProviderNotFound",
            id="of-another-namespace",
        ),
        pytest.param(
            [objects.parse(mesh_config(f"extensionProviders: [{{name: decider, {HTTP}}}]", namespace="demo"))],
            "ProviderNotFound",
            id="not-the-meshs-settings",
        ),
    ],
)
def test_the_status_says_whether_somebody_is_asked(others: list[KubernetesObject], found: str) -> None:
    policy = authorization(f"{target('Gateway', 'web')}, action: CUSTOM, {PROVIDER}", RULES)
    snapshot = objects.build_snapshot(policy, gateway(), *others)
    [document] = (each for each in build_statuses(snapshot, MeshSettings(), [], "") if each.key == policy.key)
    assert f"'type': 'ProviderFound', 'status': '{found == 'ProviderFound'}', 'reason': '{found}'" in str(
        document.status
    )


def test_analysis_says_who_is_not_there() -> None:
    head = "apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p, namespace: demo}"
    text = f"{{{head}, spec: {{{WEB}, action: CUSTOM, {PROVIDER}, {RULES}}}}}"
    codes = [each.code for each in analyze_texts({"p.yaml": text}).entries]
    assert codes == ["policy-provider-missing"]
