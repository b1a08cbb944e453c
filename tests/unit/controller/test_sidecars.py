"""Sidecars: what the door refuses, what is seen, and what is said of those that count for nobody."""

import pytest

from controller.analysis.report import analyze_texts
from controller.kinds.sidecar import Sidecar
from controller.registry.names import MeshSettings
from controller.registry.sidecars import Visibility
from controller.snapshot import Snapshot
from controller.sources.documents import parse_documents
from controller.status.documents import build_statuses
from tests.support.objects import parse


def made(spec: str, name: str = "default", where: str = "demo") -> str:
    metadata = f"{{name: {name}, namespace: {where}}}"
    return f"{{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {metadata}, spec: {{{spec}}}}}\n---\n"


def egress(*hosts: str) -> str:
    return f"egress: [{{hosts: [{', '.join(repr(each) for each in hosts)}]}}]"


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        pytest.param("workloadSelector: {labels: {a: b}}", "unsupported", id="selector"),
        pytest.param("ingress: []", "unsupported", id="ingress"),
        pytest.param("outboundTrafficPolicy: {mode: REGISTRY_ONLY}", "unsupported", id="registry-only"),
        pytest.param("egress: [{hosts: ['*/*'], port: {number: 80}}]", "unsupported", id="port"),
        pytest.param(egress("web"), "egress-host", id="no-namespace"),
        pytest.param(egress("~/web.demo"), "egress-host", id="something-of-nothing"),
        pytest.param(egress("DEMO/*"), "egress-host", id="namespace"),
        pytest.param(egress("demo/a b"), "host-value", id="host"),
        pytest.param("egress: [{hosts: []}]", "invalid-value", id="no-hosts"),
    ],
)
def test_what_is_not_carried_out_is_refused_with_its_code(spec: str, code: str) -> None:
    assert [each.code for each in parse_documents(made(spec), "s.yaml").problems] == [code]


@pytest.mark.parametrize(
    ("spec", "seen"),
    [
        pytest.param("", {"demo/web", "demo/api", "other/web"}, id="everything"),
        pytest.param(egress("*/*"), {"demo/web", "demo/api", "other/web"}, id="all"),
        pytest.param(egress("./*"), {"demo/web", "demo/api"}, id="own"),
        pytest.param(egress("other/*"), {"other/web"}, id="another"),
        pytest.param(egress("*/web.demo.svc.cluster.local"), {"demo/web"}, id="host"),
        pytest.param(egress("./*.other.svc.cluster.local"), set(), id="host-of-another-namespace"),
        pytest.param(
            egress("./api.demo.svc.cluster.local", "*/*.other.svc.cluster.local"), {"demo/api", "other/web"}, id="two"
        ),
        pytest.param(egress("~/*"), set(), id="nothing"),
    ],
)
def test_what_is_seen(spec: str, seen: set[str]) -> None:
    found = parse(made(spec))
    visibility = Visibility(Snapshot().apply({found.key: found}), MeshSettings())
    services = [("demo", "web"), ("demo", "api"), ("other", "web")]
    found_seen = {
        f"{place}/{name}"
        for place, name in services
        if visibility.sees("demo", place, f"{name}.{place}.svc.cluster.local")
    }
    assert found_seen == seen
    assert not visibility.sees("other", "demo", "web.demo.svc.cluster.local"), "it has none, and is told of all"


@pytest.mark.parametrize(
    ("text", "idle"),
    [
        pytest.param(made(""), [], id="counts"),
        pytest.param(made("", "b") + made("", "a"), ["Sidecar demo/b"], id="second"),
        pytest.param(made("", where="istio-system"), ["Sidecar istio-system/default"], id="mesh"),
    ],
)
def test_one_that_counts_for_nobody_is_told_of(text: str, idle: list[str]) -> None:
    entries = analyze_texts({"a.yaml": text}).entries
    assert [each.object for each in entries if each.code == "sidecar-idle"] == idle


def test_the_status_says_whether_it_counts() -> None:
    given = [parse(made("", "a")), parse(made("", "b"))]
    assert isinstance(given[0], Sidecar)
    snapshot = Snapshot().apply({each.key: each for each in given})
    shown = {
        each.key.name: str(each.status) for each in build_statuses(snapshot, MeshSettings(), [], "2026-11-28T12:00:00Z")
    }
    assert "'status': 'True'" in shown["a"]
    assert "Sidecar demo/a is older and counts instead of it" in shown["b"]
