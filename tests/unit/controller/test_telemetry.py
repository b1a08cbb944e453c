"""Telemetries: what the door refuses, which one decides, and what is said of those that do not."""

import pytest

from controller.analysis.report import analyze_texts
from controller.kinds.gateway_api import Gateway
from controller.kinds.telemetry import Telemetry
from controller.registry.gateway_proxies import describe_gateway
from controller.registry.names import MeshSettings
from controller.registry.telemetry import find_for_proxies
from controller.snapshot import Snapshot
from controller.sources.documents import parse_documents
from controller.status.documents import build_statuses
from tests.support.objects import parse

LOG = "accessLogging: [{}]"
TARGET = "targetRefs: [{kind: Gateway, name: web}],"
LABEL = "selector: {matchLabels: {edge: 'yes'}},"
GATEWAY = (
    "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, "
    "metadata: {name: web, namespace: demo, labels: {edge: 'yes'}}, "
    "spec: {gatewayClassName: ambit, listeners: [{name: http, port: 80, protocol: HTTP}]}}\n---\n"
)
INGRESS = (
    "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: edge, namespace: demo}, spec: "
    "{selector: {istio: edge}, servers: [{port: {number: 82, name: http, protocol: HTTP}, hosts: ['*']}]}}\n---\n"
)


def made(spec: str, name: str = "t", where: str = "demo", created: str = "2026-01-01T00:00:00Z") -> str:
    metadata = f"{{name: {name}, namespace: {where}, creationTimestamp: '{created}'}}"
    return f"{{apiVersion: telemetry.istio.io/v1, kind: Telemetry, metadata: {metadata}, spec: {{{spec}}}}}\n---\n"


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        pytest.param("metrics: [{}]", "unsupported", id="metrics"),
        pytest.param("tracing: [{randomSamplingPercentage: 1}]", "unsupported", id="tracing"),
        pytest.param("targetRefs: [{group: '', kind: Service, name: x}]", "unsupported", id="target"),
        pytest.param(f"{LABEL} {TARGET}", "combination", id="both"),
        pytest.param("accessLogging: [{providers: [{name: otel}]}]", "invalid-value", id="provider"),
        pytest.param("accessLogging: [{match: {mode: SERVER}}]", "unsupported", id="server"),
        pytest.param("accessLogging: [{filter: {expression: 'request.path == x'}}]", "log-expression", id="filter"),
        pytest.param("accessLogging: [{}, {}]", "invalid-value", id="two"),
        pytest.param("accessLogs: []", "unknown-field", id="field"),
    ],
)
def test_what_is_not_carried_out_is_refused_with_its_code(spec: str, code: str) -> None:
    assert [each.code for each in parse_documents(made(spec), "t.yaml").problems] == [code]


@pytest.mark.parametrize(
    ("given", "decides"),
    [
        pytest.param([made(LOG, "a", "istio-system")], "a", id="mesh"),
        pytest.param([made(LOG, "a", "istio-system"), made(LOG, "b")], "b", id="namespace-before-mesh"),
        pytest.param([made(f"{TARGET} {LOG}", "a"), made(LOG, "b")], "a", id="target-before-namespace"),
        pytest.param([made(f"{LABEL} {LOG}", "a"), made(LOG, "b")], "a", id="label-before-namespace"),
        pytest.param([made(LOG, "a", created="2026-02-01T00:00:00Z"), made(LOG, "b")], "b", id="oldest"),
        pytest.param([made("", "a"), made(LOG, "b", "istio-system")], "b", id="one-that-says-nothing"),
        pytest.param([made(LOG, "a", "other")], None, id="another-namespace"),
        pytest.param([made(f"{LABEL} {LOG}", "a", "istio-system")], None, id="label-of-another-namespace"),
    ],
)
def test_the_nearest_decides_and_of_one_level_the_oldest(given: list[str], decides: str | None) -> None:
    objects = [parse(text) for text in given]
    gateway = parse(GATEWAY)
    assert isinstance(gateway, Gateway)
    snapshot = Snapshot().apply({each.key: each for each in objects})
    found = find_for_proxies(snapshot, MeshSettings(), describe_gateway(gateway))
    assert (found.name if found else None) == decides


@pytest.mark.parametrize(
    ("text", "idle"),
    [
        pytest.param(GATEWAY + made(LOG), [], id="decides"),
        pytest.param(made(LOG, where="istio-system"), [], id="for-sidecars"),
        pytest.param(GATEWAY + made(LOG, where="other"), ["Telemetry other/t"], id="nobody"),
        pytest.param(GATEWAY + made(f"{TARGET} {LOG}", "a") + made(LOG, "b"), ["Telemetry demo/b"], id="shadowed"),
        pytest.param(
            made(LOG, "a", "istio-system") + made(LOG, "b", "istio-system"),
            ["Telemetry istio-system/b"],
            id="shadowed-in-root",
        ),
        pytest.param(GATEWAY + made(""), ["Telemetry demo/t"], id="nothing"),
        pytest.param(INGRESS + made(f"selector: {{matchLabels: {{istio: edge}}}}, {LOG}"), [], id="ingress"),
        pytest.param(
            INGRESS + made(f"selector: {{matchLabels: {{istio: x}}}}, {LOG}"), ["Telemetry demo/t"], id="other-ingress"
        ),
    ],
)
def test_one_that_decides_nothing_is_told_of(text: str, idle: list[str]) -> None:
    entries = analyze_texts({"a.yaml": text}).entries
    assert [each.object for each in entries if each.code == "telemetry-idle"] == idle


def test_the_status_says_whether_it_decides_anything() -> None:
    given = [parse(GATEWAY), parse(made(LOG, "a")), parse(made(LOG, "b"))]
    assert isinstance(given[1], Telemetry)
    snapshot = Snapshot().apply({each.key: each for each in given})
    shown = {
        each.key.name: str(each.status)
        for each in build_statuses(snapshot, MeshSettings(), [], "2026-11-28T12:00:00Z")
        if each.key.kind == "Telemetry"
    }
    assert "'status': 'True'" in shown["a"]
    assert "Telemetry demo/a decides instead of it" in shown["b"]
