"""Each check of policies with targets fires on what is wrong, and is silent about its healthy neighbour."""

import pytest

from controller.analysis.report import analyze_texts
from controller.registry.names import MeshSettings
from controller.snapshot import Snapshot
from controller.webhooks.validation import judge
from tests.support.objects import parse

GATEWAY_API, SECURITY = "gateway.networking.k8s.io/v1", "security.istio.io/v1"


def made(kind: str, spec: str, name: str, version: str = GATEWAY_API, place: str = "demo") -> str:
    return (
        f"{{apiVersion: {version}, kind: {kind}, metadata: {{name: {name}, namespace: {place}}}, spec: {spec}}}\n---\n"
    )


def gateway(owner: str = "ambit") -> str:
    spec = f"{{gatewayClassName: {owner}, listeners: [{{name: http, port: 80, protocol: HTTP}}]}}"
    return made("Gateway", spec, "web") + made("HTTPRoute", "{parentRefs: [{name: web}]}", "web")


def target(kind: str = "Gateway", name: str = "web") -> str:
    group = "" if kind == "Service" else "gateway.networking.k8s.io"
    return f"{{group: '{group}', kind: {kind}, name: {name}}}"


def policy(to: str, rule: str = "", kind: str = "AuthorizationPolicy", place: str = "demo") -> str:
    rules = f"rules: [{{{rule}}}]" if kind == "AuthorizationPolicy" else "jwtRules: []"
    return made(kind, f"{{targetRefs: [{to}], {rules}}}", "p", SECURITY, place)


TOKENS = policy(target(), kind="RequestAuthentication")
SERVICE = made("Service", "{ports: [{port: 80}]}", "web", "v1")
POD = (
    "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: other}, spec: {containers: [{name: c}]}}\n---\n"
    "{apiVersion: v1, kind: Namespace, metadata: {name: demo}}\n---\n"
)


def source(fields: str) -> str:
    return f"from: [{{source: {{{fields}}}}}]"


def when(key: str) -> str:
    return f"when: [{{key: '{key}', values: ['*']}}]"


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        pytest.param(gateway() + policy(target()) + TOKENS, [], id="healthy"),
        pytest.param(POD + gateway() + policy(target()), [], id="of-no-pods"),
        pytest.param(policy(target()), ["policy-target-missing"], id="gateway"),
        pytest.param(TOKENS, ["policy-target-missing"], id="only-tokens"),
        pytest.param(gateway() + policy(target(), place="other"), ["policy-target-missing"], id="namespace"),
        pytest.param(gateway("theirs") + policy(target()), ["policy-target-not-bound"], id="gateway-of-others"),
        pytest.param(SERVICE + policy(target("Service")), ["policy-target-not-bound"], id="service"),
        pytest.param(policy(target("Service")), ["policy-target-missing"], id="no-service"),
        pytest.param(gateway() + policy(target("GatewayClass", "ambit")), ["policy-target-missing"], id="class"),
        pytest.param(gateway() + policy(target("GatewayClass", "ambit"), place="istio-system"), [], id="class-in-root"),
        pytest.param(
            gateway() + policy(target(), source("namespaces: ['*']")), ["policy-identity-unseen"], id="identity"
        ),
        pytest.param(
            gateway() + policy(target(), when("source.principal")), ["policy-identity-unseen"], id="identity-condition"
        ),
        pytest.param(gateway() + policy(target(), source("notPrincipals: ['*']")), [], id="nobody-of-the-mesh"),
        pytest.param(
            gateway() + policy(target(), source("requestPrincipals: ['*']")), ["policy-tokens-unread"], id="tokens"
        ),
        pytest.param(
            gateway() + policy(target(), when("request.auth.claims[a]")), ["policy-tokens-unread"], id="claims"
        ),
        pytest.param(
            gateway() + TOKENS + policy(target(), source("requestPrincipals: ['*']")), [], id="tokens-that-are-read"
        ),
    ],
)
def test_a_check_of_targets_reports_just_this(text: str, codes: list[str]) -> None:
    report = analyze_texts({"mesh.yaml": text})
    assert sorted(entry.code for entry in report.entries) == sorted(codes), [each.message for each in report.entries]


def test_a_finding_names_the_target() -> None:
    [entry] = analyze_texts({"mesh.yaml": gateway() + policy(f"{target()}, {target('Gateway', 'other')}")}).entries
    assert (entry.field, entry.object) == ("spec.targetRefs[1]", "AuthorizationPolicy demo/p")
    assert "Gateway demo/other" in entry.message


def test_whoever_applies_a_policy_for_nothing_is_warned() -> None:
    document = parse(policy(target())).model_dump(mode="json", by_alias=True, exclude_none=True)
    verdict = judge(document, Snapshot(), MeshSettings())
    assert verdict.is_allowed
    assert any("policy-target-missing" in each for each in verdict.warnings)
