"""A change is translated where it touches, and the result is what translating everything would have given."""

from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.kinds.meta import KubernetesObject, ObjectKey
from controller.publication import build_changes
from controller.registry.names import MeshSettings
from controller.serve.resources import ADDRESS_TYPE, AUTHORIZATION_TYPE, Resource, ResourceTable
from controller.snapshot import Snapshot
from mesh.wire import authorization_pb2
from tests.support import objects
from tests.support.objects import Steps, end_of
from tests.support.routing_world import gateway

MESH = MeshSettings()
TYPES = (AUTHORIZATION_TYPE, ADDRESS_TYPE)
SELECT = "selector: {matchLabels: {app: web}}"
OF_REQUESTS = "rules: [{to: [{operation: {methods: [GET]}}]}]"


class World:
    """Tables that follow a snapshot."""

    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self.tables = {type_url: ResourceTable() for type_url in TYPES}

    def apply(self, changes: dict[ObjectKey, KubernetesObject | None]) -> dict[str, set[str]]:
        old, self.snapshot = self.snapshot, self.snapshot.apply(changes)
        publication = build_changes(old, self.snapshot, changes, MESH)
        return {type_url: set(self.tables[type_url].apply(change)) for type_url, change in publication.items()}

    def show(self) -> dict[str, list[Resource | None]]:
        return {
            type_url: [table.find(name) for name in sorted(table.names())] for type_url, table in self.tables.items()
        }


def put(*values: KubernetesObject) -> dict[ObjectKey, KubernetesObject | None]:
    return {value.key: value for value in values}


def test_pod_that_changes_among_many_sends_one_resource() -> None:
    world = World()
    world.apply(put(objects.service(), *(objects.pod(f"web-{n}", ip=f"198.51.100.{n}") for n in range(1, 51))))
    changed = world.apply(put(objects.pod("web-7", ip="198.51.100.200")))
    assert changed == {AUTHORIZATION_TYPE: set(), ADDRESS_TYPE: {"Kubernetes//Pod/demo/web-7"}}


def test_namespace_that_demands_tunnels_touches_its_workloads() -> None:
    world = World()
    world.apply(put(objects.namespace(), objects.pod(), objects.pod("other", "elsewhere", ip="198.51.100.9")))
    changed = world.apply(put(objects.namespace(labels="ambit.dev/node-local: disabled")))
    assert changed == {AUTHORIZATION_TYPE: set(), ADDRESS_TYPE: {"Kubernetes//Pod/demo/web-1"}}


def test_policy_with_targets_is_none_of_ztunnels() -> None:
    world = World()
    world.apply(put(objects.authorization(SELECT)))
    changed = world.apply(put(objects.authorization("targetRefs: [{kind: Service, name: s}]")))
    assert changed == {AUTHORIZATION_TYPE: {"demo/policy"}, ADDRESS_TYPE: set()}
    assert not world.apply(put(objects.authorization("targetRefs: [{kind: Service, name: t}]")))[AUTHORIZATION_TYPE]


def test_ztunnels_are_told_to_deny_what_others_would_decide_and_of_audits_nothing() -> None:
    world = World()
    world.apply(put(objects.authorization(f"{SELECT}, action: CUSTOM, provider: {{name: x}}, {OF_REQUESTS}")))
    found = world.tables[AUTHORIZATION_TYPE].find("demo/policy")
    assert found
    told = authorization_pb2.Authorization.FromString(discovery_pb2.Resource.FromString(found.wire).resource.value)
    assert (told.action, len(told.rules)) == (authorization_pb2.DENY, 1)
    world.apply(put(objects.authorization(f"{SELECT}, action: AUDIT, {OF_REQUESTS}"), objects.pod()))
    assert world.tables[AUTHORIZATION_TYPE].find("demo/policy") is None
    workload = world.tables[ADDRESS_TYPE].find("Kubernetes//Pod/demo/web-1")
    assert workload
    assert b"demo/policy" not in workload.wire


def test_policy_of_a_namespace_touches_no_workload() -> None:
    world = World()
    world.apply(put(objects.pod()))
    changed = world.apply(put(objects.authorization("action: DENY")))
    assert changed == {AUTHORIZATION_TYPE: {"demo/policy"}, ADDRESS_TYPE: set()}


def test_service_that_goes_leaves_no_workload_its_endpoint() -> None:
    world = World()
    world.apply(put(objects.service(), objects.pod()))
    changed = world.apply({objects.service().key: None})
    assert changed[ADDRESS_TYPE] == {"Kubernetes//Pod/demo/web-1", "demo/web.demo.svc.cluster.local"}
    assert world.tables[ADDRESS_TYPE].find("demo/web.demo.svc.cluster.local") is None


def test_same_content_again_changes_nothing() -> None:
    world = World()
    world.apply(put(objects.service(), objects.pod()))
    assert world.apply(put(objects.service(), objects.pod())) == {AUTHORIZATION_TYPE: set(), ADDRESS_TYPE: set()}


def test_waypoint_that_comes_touches_those_that_ask_for_it_and_its_own_pods() -> None:
    world = World()
    asks = "labels: {istio.io/use-waypoint: waypoint}"
    world.apply(
        put(
            objects.service("asks", metadata=asks),
            objects.service("other"),
            objects.pod("proxy", labels="gateway.networking.k8s.io/gateway-name: waypoint"),
            objects.pod("other"),
        )
    )
    changed = world.apply(put(objects.waypoint()))
    assert changed[ADDRESS_TYPE] == {"Kubernetes//Pod/demo/proxy", "demo/asks.demo.svc.cluster.local"}


PLACES = ("demo", "other", "istio-system")
VALUES: list[KubernetesObject] = [
    *(
        objects.pod(name, place, labels=f"app: {app}")
        for name in ("a", "b")
        for place in PLACES
        for app in ("web", "x")
    ),
    objects.pod("a", ready="False"),
    objects.pod("a", spec="hostNetwork: true"),
    *(objects.service(name, place) for name in ("s", "t") for place in PLACES),
    objects.service("s", spec="type: ExternalName"),
    objects.service("s", spec="clusterIP: 192.0.2.1, selector: {app: x}, ports: [{port: 1, targetPort: none}]"),
    objects.node(),
    objects.node(labels="topology.kubernetes.io/zone: z"),
    objects.namespace(),
    objects.namespace(annotations="networking.istio.io/traffic-distribution: PreferClose"),
    *(objects.authorization(spec, "p", place) for spec in ("action: DENY", SELECT) for place in PLACES),
    objects.authorization("targetRefs: [{kind: Service, name: s}]", "p"),
    *(
        objects.authorization(f"{SELECT}, action: {each}, {OF_REQUESTS}", "p")
        for each in ("ALLOW", "DENY", "AUDIT", "CUSTOM, provider: {name: x}")
    ),
    objects.pod("a", metadata="annotations: {inject.istio.io/templates: gateway}"),
    objects.pod("a", labels="app: web, gateway.networking.k8s.io/gateway-name: g"),
    *(gateway("g", owner=owner) for owner in ("ambit", "theirs")),
    objects.authorization(SELECT, "p", metadata='annotations: {istio.io/dry-run: "true"}'),
    *(
        objects.peer(f"mtls: {{mode: {mode}}}", "n", place)
        for mode in ("STRICT", "PERMISSIVE", "UNSET")
        for place in PLACES
    ),
    *(
        objects.peer(f"{SELECT}, portLevelMtls: {{80: {{mode: {mode}}}}}", "w", place)
        for mode in ("STRICT", "PERMISSIVE")
        for place in PLACES
    ),
    *(
        objects.service_entry(f"hosts: [{hosts}], resolution: {rest}, ports: [{{number: 80, name: http}}]", name, place)
        for name in ("a", "b")
        for place in PLACES
        for hosts in ("one.example", "'one.example', two.example", "s.demo.svc.cluster.local")
        for rest in (
            "DNS",
            "STATIC, endpoints: [{address: 203.0.113.1}]",
            "STATIC, workloadSelector: {labels: {app: x}}",
        )
    ),
    objects.service_entry("hosts: [one.example], addresses: [203.0.113.0/24], exportTo: ['.']", "a"),
    objects.service_entry("hosts: [one.example], resolution: DNS", "b", metadata='creationTimestamp: "2026-01-01"'),
    *(objects.workload_entry("address: 203.0.113.9, weight: 3", "v", place) for place in PLACES),
    objects.service("s", spec="clusterIP: 192.0.2.1, ports: [{port: 80}]"),
    *(
        objects.endpoint_slice(f"endpoints: [{endpoints}], ports: [{{port: {port}}}]", name, service="s")
        for name in ("x", "y")
        for port in (8080, 8081)
        for endpoints in (
            "{addresses: [203.0.113.7]}",
            "{addresses: [203.0.113.8], targetRef: {kind: Pod, name: a}}, {addresses: [203.0.113.7]}",
        )
    ),
    objects.workload_entry("address: vm.example, ports: {http: 8080}", "v", labels="app: x"),
    *(
        objects.waypoint(name="w", namespace=place, metadata=metadata, listener=listener)
        for place in PLACES[:2]
        for metadata in ("", "labels: {istio.io/waypoint-for: all}")
        for listener in ("", "allowedRoutes: {namespaces: {from: All}}")
    ),
    objects.waypoint("addresses: [{value: 203.0.113.77}],", "w"),
    objects.service("w"),
    objects.namespace(labels="istio.io/use-waypoint: w"),
    *(
        objects.service("s", place, metadata=f"labels: {{istio.io/use-waypoint: {name}, {where}}}")
        for place in PLACES[:2]
        for name in ("w", "none")
        for where in ("", "istio.io/use-waypoint-namespace: demo")
    ),
    objects.pod("a", labels="istio.io/use-waypoint: w, app: web"),
    objects.pod("b", labels="gateway.networking.k8s.io/gateway-name: w"),
    objects.service_entry("hosts: [one.example], resolution: DNS", "a", metadata="labels: {istio.io/use-waypoint: w}"),
    objects.workload_entry("address: 203.0.113.9", "v", labels="istio.io/use-waypoint: w"),
]
_change = st.sampled_from(VALUES).flatmap(lambda value: st.tuples(st.just(value.key), st.just(value) | st.none()))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(_change, min_size=1, max_size=4), min_size=1, max_size=12))
def test_following_changes_gives_what_starting_over_gives(steps: Steps) -> None:
    following = World()
    for step in steps:
        following.apply(dict(step))
    fresh = World()
    fresh.apply(dict(end_of(steps)))
    assert following.show() == fresh.show()
    assert set(following.snapshot.keys()) == set(end_of(steps))
