"""The L7 resources of a snapshot: who has which, and what a change touches."""

import pytest

from controller.kinds.key_set import build_key_set
from controller.serve.resources import (
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
)
from tests.support import objects
from tests.support.routing_world import (
    ALL,
    EDGE,
    EDGE_ROUTES,
    ISTIO,
    KEYS_URL,
    LABELLED,
    PAIRS,
    World,
    authentication,
    authorization,
    destination_rule,
    ended,
    gateway,
    gateway_class,
    gateway_pod,
    grant,
    istio_gateway,
    keys_of,
    made,
    policy,
    route,
    secret,
    start,
    target,
    virtual_service,
)


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
    listeners = world.tables["type.googleapis.com/envoy.config.listener.v3.Listener"]
    assert "gateway/demo/web/80" not in listeners
    world.put(gateway_class("ambit.dev/gateway-controller"))
    assert "gateway/demo/web/80" in listeners


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


def test_a_part_of_an_ingress_gateways_routes_is_another_teams() -> None:
    rule = "http: [{match: [{uri: {prefix: /cart}}], delegate: {name: cart, namespace: other}}]"
    world = start(
        istio_gateway("web", "istio: ingress", "'*'"),
        made(ISTIO, "VirtualService", "v", "demo", f"hosts: [www.test], gateways: [web], {rule}"),
        objects.service("cart", "other"),
    )
    world.open(EDGE)
    cluster = "outbound|80||cart.other.svc.cluster.local"
    assert keys_of(world, cluster) == ()
    delegate = made(ISTIO, "VirtualService", "cart", "other", "http: [{route: [{destination: {host: cart}}]}]")
    assert world.put(delegate) == {"RouteConfiguration": {EDGE_ROUTES}, "Cluster": {cluster}}
    assert keys_of(world, cluster) == (f"ingress:{EDGE}",)


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


@pytest.mark.parametrize(
    ("match", "counts"), [("gateways: [web]", False), ("gateways: [web, mesh]", True), ("port: 80", True)]
)
@pytest.mark.parametrize("rule", ["tcp: [{{match: [{{{}}}], {}}}]", "tls: [{{match: [{{sniHosts: ['*'], {}}}], {}}}]"])
def test_rules_of_connections_for_gateways_only_leave_a_service_as_it_is(rule: str, match: str, counts: bool) -> None:
    port = "{name: tls, port: 80}"
    world = start(
        objects.service("s", spec=f"clusterIP: 192.0.2.1, selector: {{app: web}}, ports: [{port}]"),
        objects.service("t", spec="clusterIP: 192.0.2.2, selector: {app: web}, ports: [{port: 80}]"),
    )
    before = world.show()
    rules = rule.format(match, "route: [{destination: {host: t, port: {number: 80}}}]")
    world.put(made(ISTIO, "VirtualService", "v", "demo", f"hosts: [s], gateways: [web, mesh], {rules}"))
    assert (world.show() != before) is counts


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


SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


def readers_of(world: World, name: str) -> tuple[str, ...]:
    found = world.tables[SECRET].find(name)
    return found.keys if found else ()


def test_a_secret_is_there_for_proxies_on_the_nodes_of_its_gateways_pods() -> None:
    world = start(gateway("web", ended("{name: c}")), secret("demo", PAIRS[0]))
    assert readers_of(world, "secret/demo/c") == ()
    assert world.put(gateway_pod("node-1")) == {"Secret": {"secret/demo/c"}}
    assert readers_of(world, "secret/demo/c") == ("proxy:demo/web@node-1",)
    world.put(gateway_pod("node-2"))
    assert readers_of(world, "secret/demo/c") == ("proxy:demo/web@node-2",)
    world.put(gateway("web", ended("{name: none}")))
    assert readers_of(world, "secret/demo/c") == ()


def test_a_secret_that_no_gateway_names_is_nowhere() -> None:
    world = start(gateway("web"), gateway_pod("node-1"), secret("demo", PAIRS[0]), secret("other", PAIRS[1]))
    assert not list(world.tables[SECRET].names())
    world.put(gateway("web", ended("{name: c, namespace: other}")))
    assert not list(world.tables[SECRET].names()), "without a grant"
    world.put(grant("other", "demo", "Gateway", "Secret"))
    assert readers_of(world, "secret/other/c") == ("proxy:demo/web@node-1",)


def test_a_certificate_that_is_replaced_changes_only_itself() -> None:
    world = start(gateway("web", ended("{name: c}")), gateway_pod("node-1"), secret("demo", PAIRS[0]))
    assert world.put(secret("demo", PAIRS[1])) == {"Secret": {"secret/demo/c"}}


def test_a_route_of_connections_leaves_services_as_they_are() -> None:
    world = start(objects.service("s"), objects.service("t"))
    assert world.put(route("a", "{group: '', kind: Service, name: s}", "{name: t, port: 80}", kind="TCPRoute")) == {}


def test_a_backend_over_tls_is_a_cluster_of_its_own_for_gateways_only() -> None:
    world = start(gateway(), route("a", "{name: web}", "{name: s, port: 80}"), objects.service("s"))
    plain = "outbound|80||s.demo.svc.cluster.local"
    changed = world.put(policy("x", "s"))
    assert changed == {
        "Cluster": {plain, f"{plain}|tls"},
        "ClusterLoadAssignment": {f"{plain}|tls"},
        "RouteConfiguration": {"gateway/demo/web/80"},
    }
    assert keys_of(world, plain) == ()
    assert keys_of(world, f"{plain}|tls") == ("gateway:demo/web",)


def test_gateways_speak_tls_to_a_backend_as_its_policy_says_and_others_as_its_rule_does() -> None:
    rule = destination_rule("d", "s", "trafficPolicy: {tls: {mode: SIMPLE, sni: rule.test}, proxyProtocol: {}}")
    world = start(gateway(), route("a", "{name: web}", "{name: s, port: 80}"), objects.service("s"), policy("x", "s"))
    plain = "outbound|80||s.demo.svc.cluster.local"
    assert world.put(rule)["Cluster"] == {plain, f"{plain}|tls"}
    for name, own, others in ((plain, b"rule.test", b"x.test"), (f"{plain}|tls", b"x.test", b"rule.test")):
        resource = world.tables[CLUSTER_TYPE].find(name)
        assert resource
        assert own in resource.wire
        assert others not in resource.wire
        assert b"upstream_proxy_protocol" in resource.wire


def test_a_backend_over_tls_is_preferred_where_it_is_near_too() -> None:
    near = objects.service(
        "s", spec="clusterIP: 192.0.2.1, selector: {app: web}, ports: [{port: 80}], trafficDistribution: PreferClose"
    )
    node = objects.node("node-1", "topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z")
    world = start(near, node, objects.pod("p"), objects.pod("q", node="node-2"), policy("x", "s"))
    plain = "outbound|80||s.demo.svc.cluster.local"
    found = [world.tables[ENDPOINT_TYPE].find(name) for name in (plain, f"{plain}|tls")]
    keys = [each.forms.keys() for each in found if each]
    assert len(keys[0]) > 0
    assert keys[0] == keys[1]
