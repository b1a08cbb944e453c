"""Workloads, services and policies as values: what of an object the mesh goes by."""

import pytest

from controller.kinds.core import Pod, Service
from controller.kinds.meta import KubernetesObject
from controller.registry import policies, services, workloads
from controller.registry.names import MeshSettings
from controller.registry.policies import PeerMode
from controller.registry.services import AppProtocol, Spreading
from controller.registry.workloads import Locality
from tests.support import objects

MESH = MeshSettings()
STRICT = "istio-system/istio_converted_static_strict"


def see(pod: Pod, *selecting: Service, node: str = "") -> workloads.Workload:
    seen = [services.build_service(each, None, MESH) for each in selecting]
    return workloads.build_workload(pod, objects.node(labels=node) if node else None, None, seen, [], MESH)


@pytest.mark.parametrize("ready", ["True", "False", "Unknown"])
def test_pod_with_an_address_is_published_ready_or_not(ready: str) -> None:
    assert workloads.is_published(objects.pod(ready=ready))


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_pod_that_has_ended_is_not_published(phase: str) -> None:
    assert not workloads.is_published(objects.pod(phase=phase))


def test_pod_without_address_is_not_published() -> None:
    waiting = objects.parse("{apiVersion: v1, kind: Pod, metadata: {name: a}, status: {phase: Pending}}")
    assert isinstance(waiting, Pod)
    assert not workloads.is_published(waiting)


def test_health_is_the_ready_condition_unless_the_pod_is_being_deleted() -> None:
    assert see(objects.pod()).is_healthy
    assert not see(objects.pod(ready="False")).is_healthy
    assert not see(objects.pod(metadata='deletionTimestamp: "2026-01-01T00:00:00Z"')).is_healthy


@pytest.mark.parametrize(
    ("metadata", "labels", "speaks_hbone", "has_native_tunnel"),
    [
        pytest.param("", "app: web", False, False, id="outside-the-mesh"),
        pytest.param("annotations: {ambient.istio.io/redirection: enabled}", "app: web", True, False, id="redirected"),
        pytest.param("annotations: {ambient.istio.io/redirection: pending}", "app: web", False, False, id="pending"),
        pytest.param("", "networking.istio.io/tunnel: http", True, True, id="terminates-hbone-itself"),
    ],
)
def test_tunnel_follows_what_the_agent_wrote(
    metadata: str, labels: str, speaks_hbone: bool, has_native_tunnel: bool
) -> None:
    seen = see(objects.pod(metadata=metadata, labels=labels))
    assert (seen.speaks_hbone, seen.has_native_tunnel) == (speaks_hbone, has_native_tunnel)


@pytest.mark.parametrize(
    ("labels", "metadata", "name", "revision", "workload"),
    [
        pytest.param("a: b", "", "web-1", "latest", "web-1", id="bare-pod"),
        pytest.param("app: x, version: v2", "", "x", "v2", "web-1", id="app"),
        pytest.param(
            "app: x, app.kubernetes.io/name: y, app.kubernetes.io/version: v3, version: v2",
            "",
            "y",
            "v3",
            "web-1",
            id="recommended-labels",
        ),
        pytest.param(
            "app: x, service.istio.io/canonical-name: z, service.istio.io/canonical-revision: r",
            "",
            "z",
            "r",
            "web-1",
            id="istio-labels",
        ),
        pytest.param(
            "pod-template-hash: 5f6",
            "ownerReferences: [{kind: ReplicaSet, name: web-5f6, controller: true}]",
            "web",
            "latest",
            "web",
            id="deployment",
        ),
        pytest.param(
            "a: b",
            "ownerReferences: [{kind: ReplicaSet, name: web-5f6, controller: true}]",
            "web-5f6",
            "latest",
            "web-5f6",
            id="replica-set",
        ),
        pytest.param(
            "a: b",
            "ownerReferences: [{kind: Job, name: tick-28912345, controller: true}]",
            "tick",
            "latest",
            "tick",
            id="cron-job",
        ),
        pytest.param(
            "a: b",
            "ownerReferences: [{kind: Job, name: tick-1, controller: true}]",
            "tick-1",
            "latest",
            "tick-1",
            id="job",
        ),
        pytest.param("service.istio.io/workload-name: w", "", "w", "latest", "w", id="workload-label"),
    ],
)
def test_names_follow_labels_and_owner(labels: str, metadata: str, name: str, revision: str, workload: str) -> None:
    seen = see(objects.pod(labels=labels, metadata=metadata))
    assert (seen.canonical_name, seen.canonical_revision, seen.workload_name) == (name, revision, workload)


def test_locality_is_the_nodes() -> None:
    labels = "topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z, topology.istio.io/subzone: s"
    assert see(objects.pod(), node=labels).locality == Locality("r", "z", "s")
    assert see(objects.pod()).locality == Locality()


def test_named_target_port_is_the_containers_and_an_unknown_one_drops_only_that_port() -> None:
    containers = (
        "containers: [{ports: [{name: web, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}]}]"
    )
    always = "{restartPolicy: Always, ports: [{name: side, containerPort: 9}]}"
    sidecars = f"initContainers: [{always}, {{ports: [{{name: i, containerPort: 1}}]}}]"
    wanted = (
        "clusterIP: None, selector: {app: web}, ports: ["
        + ", ".join(
            f"{{port: {port}, targetPort: {target}}}"
            for port, target in [(80, "web"), (81, 8081), (82, "dns"), (83, "side"), (84, "i"), (85, "none")]
        )
        + ", {port: 86}, {port: 87, protocol: UDP}]"
    )
    [endpoint] = see(objects.pod(spec=f"{containers}, {sidecars}"), objects.service(spec=wanted)).endpoints
    assert [(port.service_port, port.target_port) for port in endpoint.ports] == [
        (80, 8080),
        (81, 8081),
        (83, 9),
        (86, 86),
    ]


@pytest.mark.parametrize(
    ("selector", "is_selected"),
    [
        pytest.param("selector: {app: web}", True, id="match"),
        pytest.param("selector: {app: web, tier: x}", False, id="one-label-missing"),
        pytest.param("selector: {}", False, id="empty"),
        pytest.param("type: ClusterIP", False, id="none"),
    ],
)
def test_selector_picks_pods_that_carry_all_of_it(selector: str, is_selected: bool) -> None:
    assert services.selects(objects.service(spec=selector), {"app": "web", "other": "y"}) is is_selected


def test_headless_and_external_services() -> None:
    headless = services.build_service(objects.service(spec="clusterIP: None, clusterIPs: [None]"), None, MESH)
    assert headless.addresses == ()
    assert not services.is_served(objects.service(spec="type: ExternalName, externalName: example.com"))


def test_addresses_are_of_both_families() -> None:
    both = services.build_service(
        objects.service(spec='clusterIP: 192.0.2.1, clusterIPs: [192.0.2.1, "2001:db8::1"]'), None, MESH
    )
    assert [str(address) for address in both.addresses] == ["192.0.2.1", "2001:db8::1"]
    assert both.resource_name == "demo/web.demo.svc.cluster.local"


@pytest.mark.parametrize(
    ("port", "protocol"),
    [
        pytest.param("port: 80", AppProtocol.UNKNOWN, id="nothing"),
        pytest.param("port: 80, name: http", AppProtocol.HTTP11, id="name"),
        pytest.param("port: 80, name: http2-api", AppProtocol.HTTP2, id="name-prefix"),
        pytest.param("port: 80, name: grpc-web", AppProtocol.HTTP11, id="grpc-web"),
        pytest.param("port: 80, name: grpcish", AppProtocol.UNKNOWN, id="no-prefix"),
        pytest.param("port: 80, name: http, appProtocol: grpc", AppProtocol.GRPC, id="field-wins"),
        pytest.param("port: 80, appProtocol: kubernetes.io/h2c", AppProtocol.HTTP2, id="h2c"),
        pytest.param("port: 80, name: https", AppProtocol.TLS, id="https"),
    ],
)
def test_protocol_is_what_the_author_says(port: str, protocol: AppProtocol) -> None:
    built = services.build_service(objects.service(spec=f"ports: [{{{port}}}]"), None, MESH)
    assert built.ports[0].protocol is protocol


@pytest.mark.parametrize(
    ("spec", "metadata", "namespace", "spreading"),
    [
        pytest.param("type: ClusterIP", "", "", Spreading.ANYWHERE, id="default"),
        pytest.param("trafficDistribution: PreferClose", "", "", Spreading.PREFER_CLOSE, id="field"),
        pytest.param("trafficDistribution: PreferSameNode", "", "", Spreading.PREFER_SAME_NODE, id="same-node"),
        pytest.param("trafficDistribution: Unheard", "", "", Spreading.ANYWHERE, id="unknown"),
        pytest.param("type: ClusterIP", "PreferSameZone", "PreferSameNode", Spreading.PREFER_CLOSE, id="annotation"),
        pytest.param("type: ClusterIP", "", "preferclose", Spreading.PREFER_CLOSE, id="namespace"),
        pytest.param(
            "internalTrafficPolicy: Local, trafficDistribution: PreferClose",
            "",
            "",
            Spreading.SAME_NODE_ONLY,
            id="local",
        ),
    ],
)
def test_traffic_distribution_precedence(spec: str, metadata: str, namespace: str, spreading: Spreading) -> None:
    key = "networking.istio.io/traffic-distribution"
    own = f"annotations: {{{key}: {metadata}}}" if metadata else ""
    owner = objects.namespace(annotations=f"{key}: {namespace}" if namespace else "")
    assert services.build_service(objects.service(spec=spec, metadata=own), owner, MESH).spreading is spreading


SELECT = "selector: {matchLabels: {app: web}}"


@pytest.mark.parametrize(
    ("given", "names"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([objects.peer("mtls: {mode: STRICT}", namespace="istio-system")], [STRICT], id="mesh-strict"),
        pytest.param([objects.peer("mtls: {mode: STRICT}")], [STRICT], id="namespace-strict"),
        pytest.param([objects.peer("mtls: {mode: STRICT}", namespace="other")], [], id="other-namespace"),
        pytest.param(
            [objects.peer("mtls: {mode: STRICT}", namespace="istio-system"), objects.peer("mtls: {mode: PERMISSIVE}")],
            [],
            id="namespace-beats-mesh",
        ),
        pytest.param(
            [objects.peer("mtls: {mode: STRICT}", namespace="istio-system"), objects.peer("mtls: {mode: UNSET}")],
            [STRICT],
            id="unset-inherits",
        ),
        pytest.param(
            [objects.peer("mtls: {mode: STRICT}"), objects.peer(f"{SELECT}, mtls: {{mode: DISABLE}}", "own")],
            [],
            id="workload-beats-namespace",
        ),
        pytest.param([objects.peer("selector: {matchLabels: {app: x}}, mtls: {mode: STRICT}")], [], id="not-selected"),
        pytest.param(
            [objects.peer(f"{SELECT}, mtls: {{mode: STRICT}}", namespace="istio-system")],
            [],
            id="root-selector-elsewhere",
        ),
        pytest.param(
            [objects.peer(f"{SELECT}, portLevelMtls: {{80: {{mode: STRICT}}}}")],
            ["demo/converted_peer_authentication_peer"],
            id="strict-port",
        ),
        pytest.param(
            [objects.peer(f"{SELECT}, mtls: {{mode: STRICT}}, portLevelMtls: {{80: {{mode: PERMISSIVE}}}}")],
            ["demo/converted_peer_authentication_peer"],
            id="permissive-port-replaces-static",
        ),
        pytest.param(
            [objects.peer(f"{SELECT}, mtls: {{mode: STRICT}}, portLevelMtls: {{80: {{mode: STRICT}}}}")],
            [STRICT],
            id="port-as-base",
        ),
        pytest.param(
            [
                objects.peer("mtls: {mode: STRICT}", "young", metadata='creationTimestamp: "2026-01-02T00:00:00Z"'),
                objects.peer("mtls: {mode: PERMISSIVE}", "old", metadata='creationTimestamp: "2026-01-01T00:00:00Z"'),
            ],
            [],
            id="oldest-wins",
        ),
        pytest.param([objects.authorization(f"{SELECT}, action: DENY")], ["demo/policy"], id="selecting-policy"),
        pytest.param([objects.authorization("action: DENY")], [], id="namespace-policy-is-not-listed"),
        pytest.param([objects.authorization("selector: {matchLabels: {}}")], [], id="empty-selector-is-none"),
        pytest.param(
            [objects.authorization(SELECT, namespace="istio-system")],
            ["istio-system/policy"],
            id="root-selecting-policy",
        ),
        pytest.param([objects.authorization(SELECT, namespace="other")], [], id="other-namespaces-policy"),
        pytest.param(
            [objects.authorization(SELECT, metadata='annotations: {istio.io/dry-run: "true"}')],
            ["demo/policy"],
            id="dry-run",
        ),
        pytest.param(
            [
                objects.authorization(SELECT, "z"),
                objects.authorization(SELECT, "a"),
                objects.peer("mtls: {mode: STRICT}"),
            ],
            ["demo/a", "demo/z", STRICT],
            id="sorted",
        ),
    ],
)
def test_policies_that_a_workload_lists(given: list[KubernetesObject], names: list[str]) -> None:
    snapshot = objects.build_snapshot(*given)
    assert policies.find_policy_names(snapshot, "demo", {"app": "web"}, MESH) == names


def test_base_mode_of_a_selecting_policy_without_mode_is_its_namespaces() -> None:
    policy = objects.peer(f"{SELECT}, portLevelMtls: {{80: {{mode: PERMISSIVE}}}}")
    snapshot = objects.build_snapshot(policy, objects.peer("mtls: {mode: STRICT}", "ns"))
    assert policies.find_base_mode(snapshot, policy, MESH) is PeerMode.STRICT
    assert policies.find_port_exceptions(policy, PeerMode.STRICT) == [80]
    assert policies.find_port_exceptions(policy, PeerMode.PERMISSIVE) == []


@pytest.mark.parametrize(
    ("of_namespace", "of_pod", "demands"),
    [
        pytest.param("", "", False, id="nobody-says"),
        pytest.param("disabled", "", True, id="namespace"),
        pytest.param("", "disabled", True, id="pod"),
        pytest.param("disabled", "enabled", False, id="pod-before-namespace"),
        pytest.param("enabled", "disabled", True, id="pod-against-namespace"),
    ],
)
def test_a_tunnel_is_demanded_by_pod_or_namespace(of_namespace: str, of_pod: str, demands: bool) -> None:
    label = "ambit.dev/node-local: "
    owner = objects.namespace(labels=label + of_namespace if of_namespace else "")
    pod = objects.pod(labels=label + of_pod if of_pod else "")
    assert workloads.build_workload(pod, None, owner, [], [], MESH).demands_tunnel is demands
