"""Policies by selector: whom they reach, what a ztunnel lists of them, and what is said of those that miss."""

import pytest

from controller.analysis.report import analyze_texts
from controller.kinds.meta import KubernetesObject
from controller.registry.entries import EntryHosts
from controller.registry.members import Members
from controller.registry.names import MeshSettings
from controller.status.documents import build_statuses
from tests.support import objects
from tests.support.routing_world import authentication, authorization, gateway, istio_gateway

MESH = MeshSettings()
WEB = "selector: {matchLabels: {app: web}}"
REQUESTS = "rules: [{to: [{operation: {methods: [GET]}}]}]"
GATEWAY_LABEL = "gateway.networking.k8s.io/gateway-name"
EDGE = istio_gateway("edge", "app: web", "'*'")


@pytest.mark.parametrize(
    ("pod", "others", "is_listed"),
    [
        pytest.param(objects.pod(), [], True, id="pod"),
        pytest.param(objects.pod(), [EDGE], True, id="somebody-elses-word"),
        pytest.param(
            objects.pod(metadata="annotations: {inject.istio.io/templates: gateway}"), [], False, id="its-own"
        ),
        pytest.param(
            objects.pod(metadata="annotations: {inject.istio.io/templates: sidecar}"), [], True, id="another-template"
        ),
        pytest.param(objects.pod(labels=f"app: web, {GATEWAY_LABEL}: web"), [gateway()], False, id="gateway"),
        pytest.param(objects.pod(labels=f"app: web, {GATEWAY_LABEL}: web"), [], True, id="gateway-that-is-not-there"),
        pytest.param(
            objects.pod(labels=f"app: web, {GATEWAY_LABEL}: web"), [gateway(owner="theirs")], True, id="of-others"
        ),
        pytest.param(
            objects.pod(labels=f"app: web, {GATEWAY_LABEL}: w"), [objects.waypoint(name="w")], True, id="waypoint"
        ),
    ],
)
def test_a_ztunnel_leaves_requests_to_an_envoy_only_where_there_is_one(
    pod: KubernetesObject, others: list[KubernetesObject], is_listed: bool
) -> None:
    connections = objects.authorization(f"{WEB}, rules: [{{}}]", "connections")
    snapshot = objects.build_snapshot(
        pod, connections, objects.authorization(f"{WEB}, {REQUESTS}", "requests"), *others
    )
    workload = Members(snapshot, MESH, EntryHosts(snapshot, MESH)).find_workload("demo", "web-1")
    assert workload
    assert workload.policies == ("demo/connections", *(["demo/requests"] if is_listed else []))


@pytest.mark.parametrize(
    ("given", "conditions"),
    [
        pytest.param([authorization(WEB)], ["ZtunnelAccepted True"], id="connections"),
        pytest.param(
            [authorization(WEB, REQUESTS)], ["WaypointAccepted False", "ZtunnelAccepted False"], id="of-no-gateway"
        ),
        pytest.param(
            [authorization(WEB, REQUESTS), EDGE], ["WaypointAccepted True", "ZtunnelAccepted False"], id="requests"
        ),
        pytest.param([authentication("selector: {}"), EDGE], ["WaypointAccepted True", "KeysFetched False"], id="all"),
        pytest.param([authentication(WEB)], ["WaypointAccepted False", "KeysFetched False"], id="tokens-of-nobody"),
    ],
)
def test_the_status_says_who_enforces_it(given: list[KubernetesObject], conditions: list[str]) -> None:
    documents = build_statuses(objects.build_snapshot(*given), MESH, [], "2026-01-01T00:00:00Z")
    [document] = (each for each in documents if each.key == given[0].key)
    found = document.status["conditions"]
    assert isinstance(found, list)
    assert [f"{each['type']} {each['status']}" for each in found] == conditions


POD = "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: demo, labels: {app: web}%s}, spec: {}}\n---\n"
ANNOTATED = ", annotations: {inject.istio.io/templates: gateway}"
EDGE_TEXT = (
    "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: g, namespace: demo}, "
    "spec: {selector: {app: web}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}}\n---\n"
    "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: g, namespace: demo}, "
    "spec: {hosts: ['*'], gateways: [g], http: [{directResponse: {status: 200}}]}}\n---\n"
)


def text(kind: str, spec: str) -> str:
    head = f"apiVersion: security.istio.io/v1, kind: {kind}, metadata: {{name: p, namespace: demo}}"
    return f"{{{head}, spec: {{{spec}}}}}\n---\n"


@pytest.mark.parametrize(
    ("given", "codes"),
    [
        pytest.param(EDGE_TEXT + text("AuthorizationPolicy", f"{WEB}, {REQUESTS}"), [], id="gateway"),
        pytest.param(
            EDGE_TEXT + POD % ANNOTATED + text("AuthorizationPolicy", f"{WEB}, {REQUESTS}"), [], id="gateways-pod"
        ),
        pytest.param(
            EDGE_TEXT + POD % "" + text("AuthorizationPolicy", f"{WEB}, {REQUESTS}"),
            ["policy-beyond-ztunnel"],
            id="pod",
        ),
        pytest.param(
            text("RequestAuthentication", f"{WEB}, jwtRules: []"), ["policy-target-not-bound"], id="tokens-of-nobody"
        ),
        pytest.param(EDGE_TEXT + text("RequestAuthentication", f"{WEB}, jwtRules: []"), [], id="tokens"),
        pytest.param(
            EDGE_TEXT + text("AuthorizationPolicy", f"{WEB}, rules: [{{from: [{{source: {{namespaces: [demo]}}}}]}}]"),
            ["policy-identity-unseen"],
            id="identities",
        ),
        pytest.param(
            EDGE_TEXT
            + text("AuthorizationPolicy", f"{WEB}, rules: [{{from: [{{source: {{requestPrincipals: ['*']}}}}]}}]"),
            ["policy-tokens-unread"],
            id="tokens-that-nobody-reads",
        ),
    ],
)
def test_analysis_says_where_a_selector_misses(given: str, codes: list[str]) -> None:
    assert [each.code for each in analyze_texts({"mesh.yaml": given}).entries] == codes


def test_without_targets_and_selector_what_only_envoys_judge_is_refused() -> None:
    for spec in (REQUESTS, f"selector: {{}}, {REQUESTS}", f"selector: {{matchLabels: {{}}}}, {REQUESTS}"):
        entries = analyze_texts({"p.yaml": text("AuthorizationPolicy", spec)}).entries
        assert [each.code for each in entries] == ["needs-targets"]
