"""Who asks for which waypoint, and what becomes of it."""

import pytest

from controller.kinds.meta import KubernetesObject
from controller.registry.bindings import ApplicationTunnel, BindingReason, Traffic
from controller.registry.entries import EntryHosts
from controller.registry.members import Members
from controller.registry.names import MeshSettings
from controller.registry.waypoints import Waypoints
from controller.translate.addresses import translate_service, translate_workload
from tests.support import objects

MESH = MeshSettings()
ASKS = {"istio.io/use-waypoint": "waypoint"}
ELSEWHERE = {**ASKS, "istio.io/use-waypoint-namespace": "shared"}
FOR_WORKLOADS = "labels: {istio.io/waypoint-for: workload}"
FOR_ALL = "labels: {istio.io/waypoint-for: all}"
FROM_ALL = "allowedRoutes: {namespaces: {from: All}}"
FROM_TEAM = "allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}"
ACCEPTED, NOT_READY, DENIED, UNSUPPORTED = BindingReason
OWN = "waypoint.demo.svc.cluster.local"


def find(labels: dict[str, str], traffic: Traffic, *given: KubernetesObject) -> tuple[BindingReason, str] | None:
    """The reason, and the host name where the waypoint is, of what is called `web` in namespace demo."""
    binding = Waypoints(objects.build_snapshot(*given), MESH).find_binding("demo", "web", labels, traffic)
    return (binding.reason, binding.address.host) if binding else None


@pytest.mark.parametrize(
    ("labels", "given", "service", "workload"),
    [
        pytest.param({}, [objects.waypoint()], None, None, id="nobody asks"),
        pytest.param(ASKS, [objects.waypoint()], ACCEPTED, UNSUPPORTED, id="for services, where nothing is said"),
        pytest.param(ASKS, [objects.waypoint(metadata=FOR_WORKLOADS)], UNSUPPORTED, ACCEPTED, id="for workloads"),
        pytest.param(ASKS, [objects.waypoint(metadata=FOR_ALL)], ACCEPTED, ACCEPTED, id="for both"),
        pytest.param(ASKS, [], NOT_READY, NOT_READY, id="no such Gateway"),
        pytest.param(
            ELSEWHERE, [objects.waypoint(namespace="shared")], DENIED, UNSUPPORTED, id="of another namespace, refused"
        ),
        pytest.param(
            ELSEWHERE,
            [objects.waypoint(namespace="shared", listener=FROM_ALL, metadata=FOR_ALL)],
            ACCEPTED,
            ACCEPTED,
            id="of another namespace, admitted",
        ),
        pytest.param(
            ELSEWHERE,
            [objects.waypoint(namespace="shared", listener=FROM_TEAM), objects.namespace(labels="team: a")],
            ACCEPTED,
            UNSUPPORTED,
            id="of another namespace, admitted by its labels",
        ),
        pytest.param(
            {},
            [objects.waypoint(), objects.namespace(labels="istio.io/use-waypoint: waypoint")],
            ACCEPTED,
            None,
            id="the namespace asks: what the waypoint is not for has none",
        ),
        pytest.param(
            {"istio.io/use-waypoint": "none"},
            [objects.waypoint(), objects.namespace(labels="istio.io/use-waypoint: waypoint")],
            None,
            None,
            id="the namespace asks, the object does not want",
        ),
    ],
)
def test_labels_and_gateways_decide(
    labels: dict[str, str],
    given: list[KubernetesObject],
    service: BindingReason | None,
    workload: BindingReason | None,
) -> None:
    found = find(labels, Traffic.SERVICE, *given), find(labels, Traffic.WORKLOAD, *given)
    assert tuple(each[0] if each else None for each in found) == (service, workload)


def test_what_cannot_be_had_leads_to_nobody() -> None:
    found = find(ASKS, Traffic.SERVICE)
    assert found == (NOT_READY, f"refused.{OWN}")


@pytest.mark.parametrize(
    ("rest", "host"),
    [
        ("", OWN),
        ("addresses: [{type: Hostname, value: edge.other.svc.cluster.local}],", "edge.other.svc.cluster.local"),
        ("addresses: [{value: 203.0.113.7}],", ""),
    ],
    ids=["its service", "another service", "an address"],
)
def test_a_waypoint_is_where_its_gateway_says(rest: str, host: str) -> None:
    assert find(ASKS, Traffic.SERVICE, objects.waypoint(rest)) == (ACCEPTED, host)


def test_a_waypoint_has_none_itself() -> None:
    label = "istio.io/use-waypoint: waypoint"
    snapshot = objects.build_snapshot(objects.waypoint(metadata=FOR_ALL), objects.namespace(labels=label))
    waypoints = Waypoints(snapshot, MESH)
    proxy = {"gateway.networking.k8s.io/gateway-name": "waypoint"}
    assert waypoints.find_binding("demo", "waypoint", {}, Traffic.SERVICE) is None
    assert waypoints.find_binding("demo", "waypoint-1", proxy, Traffic.WORKLOAD) is None
    assert waypoints.find_binding("demo", "web-1", {}, Traffic.WORKLOAD) is not None


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ("", ApplicationTunnel(15088)),
        ("annotations: {ambient.istio.io/waypoint-inbound-binding: PROXY/9000}", ApplicationTunnel(9000)),
        ("annotations: {ambient.istio.io/waypoint-inbound-binding: NONE}", ApplicationTunnel(15088, has_header=False)),
    ],
)
def test_the_ztunnel_before_a_waypoint_hands_on_to_its_port(metadata: str, expected: ApplicationTunnel) -> None:
    proxy = objects.pod("proxy", labels="gateway.networking.k8s.io/gateway-name: waypoint")
    waypoints = Waypoints(objects.build_snapshot(objects.waypoint(metadata=metadata), proxy), MESH)
    assert waypoints.find_application_tunnel(proxy) == expected
    assert waypoints.find_application_tunnel(objects.pod()) is None


def test_ztunnels_are_told() -> None:
    label = "labels: {istio.io/use-waypoint: waypoint}"
    snapshot = objects.build_snapshot(
        objects.waypoint(metadata=FOR_ALL),
        objects.service(metadata=label),
        objects.pod(labels="istio.io/use-waypoint: waypoint, app: web"),
        objects.pod("proxy", labels="gateway.networking.k8s.io/gateway-name: waypoint"),
    )
    members = Members(snapshot, MESH, EntryHosts(snapshot, MESH))
    service, pod, proxy = (
        members.find_service("demo", "web"),
        members.find_workload("demo", "web-1"),
        members.find_workload("demo", "proxy"),
    )
    assert service
    assert pod
    assert proxy
    for told in (translate_service(service).service.waypoint, translate_workload(pod, MESH).workload.waypoint):
        assert (told.hostname.namespace, told.hostname.hostname, told.hbone_mtls_port) == ("demo", OWN, 15008)
    told_proxy = translate_workload(proxy, MESH).workload
    assert not told_proxy.HasField("waypoint")
    assert (told_proxy.application_tunnel.protocol, told_proxy.application_tunnel.port) == (1, 15088)


@pytest.mark.parametrize(
    "metadata",
    ["labels: {istio.io/waypoint-for: services}", "annotations: {ambient.istio.io/waypoint-inbound-binding: proxy}"],
)
def test_a_misspelt_setting_is_refused(metadata: str) -> None:
    with pytest.raises(AssertionError, match="must be"):
        objects.waypoint(metadata=metadata)
