"""The L7 resources of a snapshot, and that following changes gives what building everything gives."""

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.kinds.meta import KubernetesObject, ObjectKey
from controller.registry.names import MeshSettings
from controller.routing.publication import Routing
from controller.serve.resources import ROUTING_TYPES, Resource, ResourceTable
from controller.snapshot import Snapshot
from tests.support import objects
from tests.support.objects import Steps, end_of, parse

GATEWAY_API = "gateway.networking.k8s.io/v1"
ISTIO = "networking.istio.io/v1"


class World:
    """What is served, followed change by change."""

    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self.routing = Routing(MeshSettings())
        self.tables = {type_url: ResourceTable() for type_url in ROUTING_TYPES}

    def apply(self, changes: dict[ObjectKey, KubernetesObject | None]) -> dict[str, set[str]]:
        """Gives the names of the resources that changed, by the last part of their type."""
        old, self.snapshot = self.snapshot, self.snapshot.apply(changes)
        published = self.routing.update(old, self.snapshot, changes)
        changed = {type_url: set(self.tables[type_url].apply(each)) for type_url, each in published.items()}
        return {type_url.rpartition(".")[2]: names for type_url, names in changed.items() if names}

    def put(self, *values: KubernetesObject) -> dict[str, set[str]]:
        return self.apply({value.key: value for value in values})

    def show(self) -> dict[str, list[Resource | None]]:
        tables = self.tables.items()
        return {type_url: [table.find(name) for name in sorted(table.names())] for type_url, table in tables}


def made(version: str, kind: str, name: str, where: str, spec: str) -> KubernetesObject:
    """An object whose spec is the flow mapping `spec`; of no namespace where `where` is empty."""
    place = f", namespace: {where}" if where else ""
    return parse(f"{{apiVersion: {version}, kind: {kind}, metadata: {{name: {name}{place}}}, spec: {{{spec}}}}}")


def gateway(name: str = "web", rest: str = "", where: str = "demo", owner: str = "ambit") -> KubernetesObject:
    listeners = rest or "{name: http, port: 80, protocol: HTTP}"
    return made(GATEWAY_API, "Gateway", name, where, f"gatewayClassName: {owner}, listeners: [{listeners}]")


def route(name: str, parents: str, backends: str, where: str = "demo", kind: str = "HTTPRoute") -> KubernetesObject:
    return made(GATEWAY_API, kind, name, where, f"parentRefs: [{parents}], rules: [{{backendRefs: [{backends}]}}]")


def virtual_service(name: str, host: str, destination: str, where: str = "demo") -> KubernetesObject:
    spec = f"hosts: [{host}], http: [{{route: [{{destination: {{{destination}}}}}]}}]"
    return made(ISTIO, "VirtualService", name, where, spec)


def destination_rule(name: str, host: str, rest: str, where: str = "demo") -> KubernetesObject:
    return made(ISTIO, "DestinationRule", name, where, f"host: {host}, {rest}")


def grant(where: str, source: str) -> KubernetesObject:
    spec = (
        f"from: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: {source}}}], "
        "to: [{group: '', kind: Service}]"
    )
    return made("gateway.networking.k8s.io/v1beta1", "ReferenceGrant", "g", where, spec)


def gateway_class(controller: str) -> KubernetesObject:
    return made(GATEWAY_API, "GatewayClass", "theirs", "", f"controllerName: {controller}")


ALL = "{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}"
LABELLED = (
    "{name: labelled, port: 81, protocol: HTTP, "
    "allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {routes: allowed}}}}}"
)
VALUES: list[KubernetesObject] = [
    *(gateway("web", rest) for rest in ("", ALL, LABELLED, f"{ALL}, {LABELLED}")),
    gateway("web", owner="theirs"),
    gateway("other", ALL, "other"),
    gateway_class("ambit.dev/gateway-controller"),
    gateway_class("example.com/another"),
    *(
        route(name, parents, backends, where)
        for name in ("a", "b")
        for where in ("demo", "other")
        for parents in ("{name: web, namespace: demo}", "{group: '', kind: Service, name: s}")
        for backends in ("{name: s, port: 80}", "{name: s, namespace: other, port: 80}", "{name: none, port: 80}")
    ),
    *(
        route("c", parents, "{name: s, port: 80}", kind="GRPCRoute")
        for parents in ("{name: web}", "{group: '', kind: Service, name: s}")
    ),
    grant("other", "demo"),
    grant("demo", "other"),
    *(
        virtual_service("v", host, to)
        for host in ("s", "t")
        for to in ("host: s", "host: t, subset: one", "host: s.other.svc")
    ),
    *(
        destination_rule("d", host, rest, where)
        for host in ("s", "t.demo.svc.cluster.local")
        for where in ("demo", "istio-system")
        for rest in (
            "subsets: [{name: one, labels: {version: one}}]",
            "trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}",
        )
    ),
    *(
        destination_rule("h", host, f"trafficPolicy: {{{policy}}}", where)
        for host in ("one.example", "s.demo.svc.cluster.local")
        for where in ("demo", "istio-system")
        for policy in (
            "outlierDetection: {}",
            "loadBalancer: {localityLbSetting: {distribute: [{from: r, to: {r/z: 80, '*': 20}}]}}",
            "outlierDetection: {}, loadBalancer: {localityLbSetting: {failoverPriority: [kubernetes.io/hostname]}}",
        )
    ),
    *(
        objects.service("s", spec=f"clusterIP: 192.0.2.1, selector: {{app: web}}, ports: [{{port: 80}}], {spreading}")
        for spreading in ("trafficDistribution: PreferClose", "internalTrafficPolicy: Local")
    ),
    *(
        destination_rule(name, host, f"trafficPolicy: {{{policy}}}", where)
        for name, host in (("w", "'*.demo.svc.cluster.local'"), ("w", "'*'"), ("x", "'*.example'"))
        for where in ("demo", "istio-system")
        for policy in ("outlierDetection: {}", "loadBalancer: {consistentHash: {useSourceIp: true}}")
    ),
    *(
        objects.node(name, f"topology.kubernetes.io/region: {region}, topology.kubernetes.io/zone: {zone}")
        for name in ("node-1", "node-2")
        for region, zone in (("r", "z"), ("r", "y"), ("q", "z"))
    ),
    objects.pod("q", node="node-2"),
    *(objects.service(name, where) for name in ("s", "t") for where in ("demo", "other")),
    objects.service("s", spec="clusterIP: 192.0.2.1, selector: {app: x}, ports: [{port: 80}, {name: grpc, port: 81}]"),
    objects.service("s", spec="clusterIP: 192.0.2.1, ports: [{port: 80}]"),
    objects.service("s", spec="type: ExternalName"),
    *(
        objects.pod(name, where, labels=f"app: {app}, version: one")
        for name in ("p", "q")
        for where in ("demo", "other")
        for app in ("web", "x")
    ),
    objects.pod("p", ready="False"),
    objects.node(labels="topology.kubernetes.io/zone: z"),
    objects.node(),
    objects.namespace("other", labels="routes: allowed"),
    objects.namespace("other"),
    objects.workload_entry("address: 203.0.113.9, weight: 3", "v"),
    *(
        objects.waypoint(name=name, metadata=metadata, listener=listener)
        for name in ("w", "web")
        for metadata in ("", "labels: {istio.io/waypoint-for: workload}")
        for listener in ("", "allowedRoutes: {namespaces: {from: All}}")
    ),
    *(
        objects.service(name, where, metadata=f"labels: {{istio.io/use-waypoint: {waypoint}, {place}}}")
        for name in ("s", "t")
        for where in ("demo", "other")
        for waypoint in ("w", "web", "none")
        for place in ("", "istio.io/use-waypoint-namespace: demo")
    ),
    objects.namespace(labels="istio.io/use-waypoint: w"),
    *(
        objects.authorization(f"targetRefs: [{target}], action: {action}, rules: [{{}}]", "p")
        for target in (
            "{kind: Service, name: s}",
            "{kind: Gateway, group: gateway.networking.k8s.io, name: w}",
            "{kind: Gateway, group: gateway.networking.k8s.io, name: web}",
        )
        for action in ("ALLOW", "DENY")
    ),
    *(
        objects.service_entry(
            f"hosts: [{hosts}], resolution: DNS, ports: [{{number: 80, name: http}}]", name, metadata=m
        )
        for name in ("e", "f")
        for hosts in ("one.example", "s.demo.svc.cluster.local, two.example")
        for m in ("", "labels: {istio.io/use-waypoint: w}")
    ),
    *(
        objects.service_entry(
            f"hosts: [one.example, two.example], exportTo: ['{scope}'], {rest}, ports: [{{number: 80, name: http}}]",
            name,
            where,
            metadata="labels: {istio.io/use-waypoint: w}",
        )
        for name, where in (("e", "demo"), ("g", "demo"), ("g", "other"))
        for scope in (".", "*")
        for rest in (
            "resolution: STATIC, workloadSelector: {labels: {app: x}}",
            "resolution: STATIC, addresses: [192.0.2.1], endpoints: [{address: 203.0.113.3, labels: {version: one}}]",
            "resolution: NONE, addresses: [192.0.2.1, 192.0.2.9]",
        )
    ),
    *(
        route(name, parents, f"{{group: networking.istio.io, kind: Hostname, name: {host}, port: 80}}", kind=kind)
        for name, kind in (("a", "HTTPRoute"), ("c", "GRPCRoute"))
        for parents in ("{name: web, namespace: demo}", "{group: '', kind: Service, name: s}")
        for host in ("one.example", "s.demo.svc.cluster.local")
    ),
    *(
        virtual_service("v", host, to)
        for host in ("one.example", "s")
        for to in ("host: one.example", "host: two.example, subset: one", "host: s.demo.svc.cluster.local")
    ),
    *(
        made(
            ISTIO,
            "VirtualService",
            name,
            where,
            f"{hosts} http: [{{match: [{{uri: {{prefix: /a}}}}], {to}}}], {rest}",
        )
        for name, where, hosts, rest in (
            ("v", "demo", "hosts: [s, one.example],", "tcp: [{route: [{destination: {host: t}}]}]"),
            (
                "v",
                "demo",
                "hosts: [s, one.example],",
                "tls: [{match: [{sniHosts: ['*']}], route: [{destination: {host: one.example}}]}]",
            ),
            ("v", "demo", "hosts: [t],", ""),
            ("u", "demo", "", ""),
            ("u", "other", "", ""),
        )
        for to in (
            *(("delegate: {name: u}", "delegate: {name: u, namespace: other}") if hosts else ()),
            "route: [{destination: {host: t}}]",
            "route: [{destination: {host: one.example}}]",
        )
    ),
    *(
        destination_rule("h", "one.example", "subsets: [{name: one, labels: {version: one}}]", where)
        for where in ("demo", "istio-system")
    ),
    *(
        objects.endpoint_slice(f"endpoints: [{endpoints}], ports: [{{port: 8080}}]", "x", service="s")
        for endpoints in ("{addresses: [203.0.113.7]}", "{addresses: [203.0.113.8], targetRef: {kind: Pod, name: p}}")
    ),
]
_change = st.sampled_from(VALUES).flatmap(lambda value: st.tuples(st.just(value.key), st.just(value) | st.none()))


@settings(max_examples=200)
@given(st.lists(st.lists(_change, min_size=1, max_size=4), min_size=1, max_size=12))
def test_following_changes_gives_what_building_everything_gives(steps: Steps) -> None:
    following = World()
    for step in steps:
        following.apply(dict(step))
    fresh = World()
    fresh.apply(dict(end_of(steps)))
    assert following.show() == fresh.show()


def start(*values: KubernetesObject) -> World:
    world = World()
    world.put(*values)
    return world


def keys_of(world: World, cluster: str) -> Iterable[str]:
    found = world.tables["type.googleapis.com/envoy.config.cluster.v3.Cluster"].find(cluster)
    return tuple(key for key in found.keys if key != "sidecars") if found else ()


def test_a_pod_changes_only_the_endpoints_of_the_services_that_it_serves() -> None:
    world = start(
        gateway(), route("a", "{name: web}", "{name: s, port: 80}"), objects.service("s"), objects.service("t")
    )
    changed = world.put(objects.pod("p"))
    assert changed == {
        "ClusterLoadAssignment": {"outbound|80||s.demo.svc.cluster.local", "outbound|80||t.demo.svc.cluster.local"}
    }


def test_a_route_that_changes_touches_only_its_own_gateways_routes() -> None:
    services = [objects.service(name) for name in ("s", "t")]
    gateways = [gateway(), gateway("other")]
    world = start(*gateways, *services, route("a", "{name: web}", "{name: s, port: 80}"))
    changed = world.put(route("a", "{name: web}", "{name: s, port: 80}, {name: s, port: 80, weight: 3}"))
    assert changed == {"RouteConfiguration": {"gateway/demo/web/80"}}


def test_a_gateways_proxies_have_only_the_clusters_that_its_routes_name() -> None:
    services = [objects.service(name) for name in ("s", "t")]
    world = start(gateway(), *services, route("a", "{name: web}", "{name: s, port: 80}"))
    assert keys_of(world, "outbound|80||s.demo.svc.cluster.local") == ("gateway:demo/web",)
    assert keys_of(world, "outbound|80||t.demo.svc.cluster.local") == ()
    world.put(route("a", "{name: web}", "{name: t, port: 80}"))
    assert keys_of(world, "outbound|80||s.demo.svc.cluster.local") == ()
    assert keys_of(world, "outbound|80||t.demo.svc.cluster.local") == ("gateway:demo/web",)


def test_a_backend_of_another_namespace_needs_that_namespaces_grant() -> None:
    world = start(
        gateway(), objects.service("s", "other"), route("a", "{name: web}", "{name: s, namespace: other, port: 80}")
    )
    cluster = "outbound|80||s.other.svc.cluster.local"
    assert keys_of(world, cluster) == ()
    world.put(grant("other", "demo"))
    assert keys_of(world, cluster) == ("gateway:demo/web",)


def test_a_gateway_of_somebody_elses_class_is_not_served() -> None:
    world = start(gateway(owner="theirs"))
    assert not world.show()["type.googleapis.com/envoy.config.listener.v3.Listener"]
    world.put(gateway_class("ambit.dev/gateway-controller"))
    assert world.show()["type.googleapis.com/envoy.config.listener.v3.Listener"]


def test_a_waypoint_has_the_clusters_of_its_services_and_of_their_routes() -> None:
    world = start(
        objects.waypoint(),
        objects.service("s", metadata="labels: {istio.io/use-waypoint: waypoint}"),
        objects.service("t"),
        objects.service("u"),
        route("a", "{group: '', kind: Service, name: s}", "{name: t, port: 80}"),
    )
    for name, expected in (("s", True), ("t", True), ("u", False)):
        assert ("gateway:demo/waypoint" in keys_of(world, f"outbound|80||{name}.demo.svc.cluster.local")) is expected
    changed = world.put(route("a", "{group: '', kind: Service, name: s}", "{name: u, port: 80}"))
    assert changed == {
        "RouteConfiguration": {"service/s.demo.svc.cluster.local/80"},
        "Cluster": {"outbound|80||t.demo.svc.cluster.local", "outbound|80||u.demo.svc.cluster.local"},
    }
    changed = world.put(objects.service("s"))
    assert changed == {
        "Listener": {"waypoint/demo/waypoint"},
        "Cluster": {"outbound|80||s.demo.svc.cluster.local", "outbound|80||u.demo.svc.cluster.local"},
    }
