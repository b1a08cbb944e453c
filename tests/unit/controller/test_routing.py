"""The L7 resources of a snapshot, and that following changes gives what building everything gives."""

from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.kinds.key_set import build_key_set
from controller.kinds.meta import KubernetesObject, ObjectKey
from controller.registry.names import MeshSettings
from controller.registry.proxies import Ingress, build_ingress
from controller.routing.publication import Routing
from controller.serve.resources import ROUTING_TYPES, Resource, ResourceChanges, ResourceTable
from controller.snapshot import Snapshot
from tests.support import objects
from tests.support.objects import Steps, end_of, parse

GATEWAY_API = "gateway.networking.k8s.io/v1"
ISTIO = "networking.istio.io/v1"
INGRESSES = (build_ingress("demo", {"app": "web", "istio": "ingress"}), build_ingress("other", {"app": "x"}))
SECURITY = "security.istio.io/v1"
KEYS_URL = "https://issuer.test/keys"


class World:
    """What is served, followed change by change."""

    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self.routing = Routing(MeshSettings())
        self.tables = {type_url: ResourceTable() for type_url in ROUTING_TYPES}

    def apply(self, changes: dict[ObjectKey, KubernetesObject | None]) -> dict[str, set[str]]:
        """Gives the names of the resources that changed, by the last part of their type."""
        old, self.snapshot = self.snapshot, self.snapshot.apply(changes)
        return self._take(self.routing.update(old, self.snapshot, changes))

    def open(self, ingress: Ingress) -> dict[str, set[str]]:
        return self._take(self.routing.open(self.snapshot, ingress))

    def close(self, ingress: Ingress) -> dict[str, set[str]]:
        return self._take(self.routing.close(self.snapshot, ingress))

    def _take(self, published: Mapping[str, ResourceChanges]) -> dict[str, set[str]]:
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


def virtual_service(
    name: str, host: str, destination: str, where: str = "demo", gateways: str = "mesh"
) -> KubernetesObject:
    spec = f"hosts: [{host}], gateways: [{gateways}], http: [{{route: [{{destination: {{{destination}}}}}]}}]"
    return made(ISTIO, "VirtualService", name, where, spec)


def istio_gateway(name: str, selector: str, hosts: str, where: str = "demo", port: int = 80) -> KubernetesObject:
    server = f"{{port: {{number: {port}, name: http, protocol: HTTP}}, hosts: [{hosts}]}}"
    return made(ISTIO, "Gateway", name, where, f"selector: {{{selector}}}, servers: [{server}]")


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


def target(kind: str, name: str) -> str:
    group = "" if kind == "Service" else "gateway.networking.k8s.io"
    return f"targetRefs: [{{group: '{group}', kind: {kind}, name: {name}}}]"


def authorization(to: str, rest: str = "action: DENY, rules: [{}]", where: str = "demo") -> KubernetesObject:
    return made(SECURITY, "AuthorizationPolicy", "p", where, f"{to}, {rest}" if to else rest)


def authentication(to: str, where: str = "demo") -> KubernetesObject:
    rules = f"jwtRules: [{{issuer: issuer, jwksUri: '{KEYS_URL}'}}]"
    return made(SECURITY, "RequestAuthentication", "p", where, f"{to}, {rules}")


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
        istio_gateway("web", selector, hosts, port=port)
        for selector in ("istio: ingress", "app: x", "")
        for hosts, port in (("'*'", 80), ("other/*.test, ./own.test", 81))
    ),
    istio_gateway("other", "app: web", "'*'", "other"),
    *(
        virtual_service(name, host, to, where, gateways)
        for name, where in (("v", "demo"), ("w", "demo"), ("v", "other"))
        for host, to, gateways in (
            ("s", "host: s", "mesh, demo/web"),
            ("own.test", "host: t, subset: one", "web, other/other"),
            ("'*'", "host: s.demo.svc", "demo/web"),
        )
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
        authorization(target(*to), rest)
        for to in (("Gateway", "web"), ("Gateway", "other"), ("Service", "s"))
        for rest in ("action: DENY, rules: [{}]", "rules: [{to: [{operation: {methods: [GET]}}]}]")
    ),
    authorization(""),
    authorization(target("Gateway", "other"), where="other"),
    *(authorization(target("GatewayClass", owner), where="istio-system") for owner in ("ambit", "theirs")),
    authentication(target("Gateway", "web")),
    authentication(target("Gateway", "other"), "other"),
    authentication(target("GatewayClass", "ambit"), "istio-system"),
    *(build_key_set(KEYS_URL, keys) for keys in ("", "some", "others")),
    *(objects.service(name, where) for name in ("s", "t") for where in ("demo", "other")),
    objects.service("s", spec="clusterIP: 192.0.2.1, selector: {app: x}, ports: [{port: 80}, {name: grpc, port: 81}]"),
    objects.service("s", spec="clusterIP: 192.0.2.1, ports: [{port: 80}]"),
    objects.service("s", spec="clusterIP: 192.0.2.1, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]"),
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
        objects.endpoint_slice(f"endpoints: [{endpoints}], ports: [{{port: 8080}}]", "x", service="s")
        for endpoints in ("{addresses: [203.0.113.7]}", "{addresses: [203.0.113.8], targetRef: {kind: Pod, name: p}}")
    ),
]
_change = st.sampled_from(VALUES).flatmap(lambda value: st.tuples(st.just(value.key), st.just(value) | st.none()))


@settings(max_examples=200)
@given(st.lists(st.lists(_change, min_size=1, max_size=4), min_size=1, max_size=12))
def test_following_changes_gives_what_building_everything_gives(steps: Steps) -> None:
    following = World()
    for ingress in INGRESSES:
        following.open(ingress)
    for step in steps:
        following.apply(dict(step))
    fresh = World()
    fresh.apply(dict(end_of(steps)))
    without = fresh.show()
    for ingress in INGRESSES:
        fresh.open(ingress)
    assert following.show() == fresh.show()
    for ingress in INGRESSES:
        following.close(ingress)
    assert following.show() == without


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


EDGE = INGRESSES[0]
EDGE_ROUTES = f"ingress/{EDGE}/80"


def test_an_ingress_gateway_has_only_what_its_gateways_and_their_routes_need() -> None:
    world = start(
        istio_gateway("web", "istio: ingress", "'*'"),
        istio_gateway("not", "istio: egress", "'*'", port=82),
        virtual_service("v", "www.test", "host: u", gateways="web"),
        virtual_service("mesh", "www.test", "host: t"),
        objects.service("u", spec="clusterIP: 192.0.2.1, selector: {app: u}, ports: [{port: 80}]"),
        objects.service("t", spec="clusterIP: 192.0.2.2, selector: {app: t}, ports: [{port: 80}]"),
    )
    assert not any(EDGE_ROUTES in table for table in world.tables.values())
    changed = world.open(EDGE)
    assert changed == {
        "Listener": {EDGE_ROUTES},
        "RouteConfiguration": {EDGE_ROUTES},
        "Cluster": {"outbound|80||u.demo.svc.cluster.local"},
    }
    assert keys_of(world, "outbound|80||u.demo.svc.cluster.local") == (f"ingress:{EDGE}",)
    assert keys_of(world, "outbound|80||t.demo.svc.cluster.local") == ()
    assert world.put(virtual_service("v", "www.test", "host: t", gateways="web")).keys() == {
        "Cluster",
        "RouteConfiguration",
    }


def test_an_ingress_gateway_listens_where_the_service_before_it_leads() -> None:
    world = start(istio_gateway("web", "istio: ingress", "'*'"))
    world.open(EDGE)
    ports = "clusterIP: 192.0.2.1, selector: {istio: ingress}, ports: [{port: 80, targetPort: 8080}]"
    changed = world.put(objects.service("front", spec=ports))
    assert changed["Listener"] >= {EDGE_ROUTES, f"ingress/{EDGE}/8080"}
    assert not any(EDGE_ROUTES in table for table in world.tables.values())


@pytest.mark.parametrize("match", ["gateways: [web]", "port: 81"])
def test_a_virtual_service_with_matches_for_others_only_leaves_a_service_as_it_is(match: str) -> None:
    rule = f"{{match: [{{{match}}}], directResponse: {{status: 404}}}}"
    world = start(objects.service("s"))
    before = world.show()
    world.put(made(ISTIO, "VirtualService", "v", "demo", f"hosts: [s], gateways: [web, mesh], http: [{rule}]"))
    assert world.show() == before


@pytest.mark.parametrize(("scopes", "counts"), [("['*']", True), ("[demo]", True), ("[.]", False), ("[other]", False)])
def test_a_destination_rule_counts_where_the_services_namespace_sees_it(scopes: str, counts: bool) -> None:
    rest = f"exportTo: {scopes}, subsets: [{{name: one, labels: {{version: one}}}}]"
    world = start(
        objects.service("s"), destination_rule("d", "s.demo.svc.cluster.local", rest, "istio-system"), objects.pod("p")
    )
    clusters = world.tables["type.googleapis.com/envoy.config.cluster.v3.Cluster"]
    assert ("outbound|80|one|s.demo.svc.cluster.local" in clusters) is counts
    assert "outbound|80||s.demo.svc.cluster.local" in clusters


def test_a_virtual_service_that_its_own_namespace_does_not_see_is_none_of_its_services() -> None:
    world = start(objects.service("s"))
    before = world.show()
    rule = "{directResponse: {status: 404}}"
    world.put(made(ISTIO, "VirtualService", "v", "demo", f"hosts: [s], exportTo: [other], http: [{rule}]"))
    assert world.show() == before


def test_a_policy_changes_only_the_listeners_that_it_is_attached_to() -> None:
    routes = [route("a", "{name: web}", "{name: s, port: 80}")]
    world = start(gateway("web", f"{ALL}, {LABELLED}"), gateway("other"), objects.service("s"), *routes)
    changed = world.put(authorization(target("Gateway", "web")))
    assert changed == {"Listener": {"gateway/demo/web/80", "gateway/demo/web/81"}}
    assert not world.put(authorization(target("Service", "s"), where="other"))
    changed = world.put(authorization(target("Gateway", "other")))
    assert changed == {"Listener": {"gateway/demo/web/80", "gateway/demo/web/81", "gateway/demo/other/80"}}
    changed = world.put(authorization(target("GatewayClass", "ambit"), where="istio-system"))
    assert changed == {"Listener": {"gateway/demo/web/80", "gateway/demo/web/81", "gateway/demo/other/80"}}


def test_keys_change_the_listeners_of_those_who_take_them() -> None:
    world = start(gateway(), gateway("other"), authentication(target("Gateway", "web")))
    assert world.put(build_key_set(KEYS_URL, "some")) == {"Listener": {"gateway/demo/web/80"}}
    assert not world.put(build_key_set("https://other.test/keys", "others"))
    assert not world.put(build_key_set(KEYS_URL, "some", "a problem"))
