"""WorkloadGroups: what the door refuses, and what is said of those that do nothing."""

import pytest

from controller.analysis.report import analyze_texts
from controller.registry.names import MeshSettings
from controller.snapshot import Snapshot
from controller.sources.documents import parse_documents
from controller.status.documents import build_statuses
from tests.support.objects import parse

FULL = (
    "metadata: {labels: {app: web}, annotations: {a: b}}, "
    "template: {serviceAccount: web, ports: {http: 8080}, labels: {v: one}, weight: 2, locality: r/z}, "
    "probe: {initialDelaySeconds: 0, periodSeconds: 5, httpGet: {port: 8080, path: /, httpHeaders: [{name: a}]}}"
)


def made(spec: str, version: str = "v1") -> str:
    head = f"apiVersion: networking.istio.io/{version}, kind: WorkloadGroup, metadata: {{name: web, namespace: demo}}"
    return f"{{{head}, spec: {{{spec}}}}}\n---\n"


def entry(group: str, namespace: str = "demo") -> str:
    metadata = f"name: vm, namespace: {namespace}, annotations: {{istio.io/autoRegistrationGroup: {group}}}"
    head = f"apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{{metadata}}}"
    return f"{{{head}, spec: {{address: 192.0.2.1}}}}\n---\n"


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha3"])
@pytest.mark.parametrize(
    "spec",
    [
        FULL,
        "template: {}",
        "template: {}, probe: {tcpSocket: {port: 1}}",
        "template: {}, probe: {grpc: {port: 1}}",
        "template: {}, probe: {exec: {command: [a]}}",
    ],
    ids=["full", "empty", "tcp", "grpc", "command"],
)
def test_what_istio_takes_is_taken(spec: str, version: str) -> None:
    assert parse_documents(made(spec, version), "g.yaml").problems == []


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        pytest.param("probe: {tcpSocket: {port: 1}}", "missing-field", id="no-template"),
        pytest.param("template: {address: 192.0.2.1}", "combination", id="address"),
        pytest.param("template: {network: n}", "unsupported", id="network"),
        pytest.param("template: {}, probe: {periodSeconds: 1}", "combination", id="probe-of-nothing"),
        pytest.param(
            "template: {}, probe: {tcpSocket: {port: 1}, exec: {command: [a]}}", "combination", id="two-probes"
        ),
        pytest.param("template: {}, probe: {exec: {command: []}}", "invalid-value", id="no-command"),
        pytest.param("template: {}, probe: {tcpSocket: {port: 0}}", "invalid-value", id="port"),
        pytest.param("template: {}, labels: {}", "unknown-field", id="misplaced"),
    ],
)
def test_what_is_wrong_is_refused_with_its_code(spec: str, code: str) -> None:
    assert [each.code for each in parse_documents(made(spec), "g.yaml").problems] == [code]


@pytest.mark.parametrize(
    ("others", "code"),
    [
        pytest.param("", "workload-group-idle", id="alone"),
        pytest.param(entry("other"), "workload-group-idle", id="entry-of-another-group"),
        pytest.param(entry("web", "other"), "workload-group-idle", id="entry-of-another-namespace"),
        pytest.param(entry("web"), "workload-group-unapplied", id="with-an-entry"),
    ],
)
def test_analysis_and_status_say_what_has_no_effect(others: str, code: str) -> None:
    report = analyze_texts({"mesh.yaml": made(FULL) + others})
    assert [(each.object, each.code) for each in report.entries] == [("WorkloadGroup demo/web", code)]
    found = [parse(each) for each in (made(FULL) + others).split("\n---\n") if each]
    snapshot = Snapshot().apply({each.key: each for each in found})
    [document] = build_statuses(snapshot, MeshSettings(), [], "2026-01-01T00:00:00Z")
    shown = str(document.status)
    assert f"'type': 'Accepted', 'status': '{code == 'workload-group-unapplied'}'" in shown
    assert repr(report.entries[0].message) in shown
