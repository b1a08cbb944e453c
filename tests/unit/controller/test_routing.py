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
        for type_url, changes in self.routing.build(self.snapshot).items():
            self.tables[type_url].apply(changes)

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


def gateway(
    name: str = "web", rest: str = "", where: str = "demo", owner: str = "ambit", labels: str = ""
) -> KubernetesObject:
    listeners = rest or "{name: http, port: 80, protocol: HTTP}"
    metadata = f"{{name: {name}, namespace: {where}, labels: {{{labels}}}}}"
    spec = f"{{gatewayClassName: {owner}, listeners: [{listeners}]}}"
    return parse(f"{{apiVersion: {GATEWAY_API}, kind: Gateway, metadata: {metadata}, spec: {spec}}}")


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


def envoy_filter(where: str, rest: str, patch: str, name: str = "f") -> KubernetesObject:
    return made("networking.istio.io/v1alpha3", "EnvoyFilter", name, where, f"{rest} configPatches: [{{{patch}}}]")


def telemetry(where: str, spec: str, name: str = "t") -> KubernetesObject:
    return made("telemetry.istio.io/v1", "Telemetry", name, where, spec)


def sidecar(where: str, hosts: str, name: str = "default") -> KubernetesObject:
    return made("networking.istio.io/v1", "Sidecar", name, where, f"egress: [{{hosts: [{hosts}]}}]")


NAMED = "match: {listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager}}}}"
_TYPE = "'@type': type.googleapis.com/envoy.extensions.filters.http"
LUA = f"{{name: lua, typed_config: {{{_TYPE}.lua.v3.Lua, default_source_code: {{inline_string: x}}}}}}"
AUTHORIZER = (
    f"{{name: authorizer, typed_config: {{{_TYPE}.ext_authz.v3.ExtAuthz, "
    "grpc_service: {envoy_grpc: {cluster_name: outbound|80||s.other.svc.cluster.local}}}}"
)
_HCM = (
    "'@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, "
    f"http_filters: [{LUA}]"
)
_AUTHORIZER = (
    "'@type': type.googleapis.com/envoy.extensions.filters.network.ext_authz.v3.ExtAuthz, stat_prefix: x, "
    "grpc_service: {envoy_grpc: {cluster_name: outbound|80||t.other.svc.cluster.local}}"
)
OTHERS = f"{{operation: INSERT_BEFORE, value: {{name: authorizer, typed_config: {{{_AUTHORIZER}}}}}}}"
SPOILING = f"applyTo: NETWORK_FILTER, {NAMED}, patch: {{operation: MERGE, value: {{typed_config: {{{_HCM}}}}}}}"
BUFFER = "{operation: MERGE, value: {per_connection_buffer_limit_bytes: 32768}}"
STATUS = "{operation: ADD, value: {name: status, match: {path: /status}, direct_response: {status: 200}}}"
EXTRA = "{name: extra, type: STATIC, connect_timeout: 1s}"
ALL = "{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}"
LABELLED = (
    "{name: labelled, port: 81, protocol: HTTP, "
    "allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {routes: allowed}}}}}"
)
VALUES: list[KubernetesObject] = [
    *(gateway("web", rest) for rest in ("", ALL, LABELLED, f"{ALL}, {LABELLED}")),
    gateway("web", owner="theirs"),
    gateway("web", labels="edge: 'yes'"),
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
    *(objects.service(name, where) for name in ("s", "t") for where in ("demo", "other")),
    objects.service("s", spec="clusterIP: 192.0.2.1, selector: {app: x}, ports: [{port: 80}, {name: grpc, port: 81}]"),
    objects.service("s", spec="clusterIP: 192.0.2.1, ports: [{port: 80}]"),
    objects.service("s", spec="type: ExternalName"),
    objects.service("t", spec="clusterIP: 192.0.2.2, selector: {app: x}, ports: [{port: 80}]"),
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
        envoy_filter(where, rest, patch)
        for where in ("demo", "istio-system")
        for rest, patch in (
            ("", f"applyTo: HTTP_FILTER, {NAMED}, patch: {{operation: INSERT_BEFORE, value: {LUA}}}"),
            ("workloadSelector: {labels: {edge: 'yes'}},", f"applyTo: LISTENER, patch: {BUFFER}"),
            ("targetRefs: [{kind: Gateway, name: web}],", f"applyTo: HTTP_ROUTE, patch: {STATUS}"),
            ("priority: -1,", f"applyTo: HTTP_ROUTE, match: {{context: SIDECAR_OUTBOUND}}, patch: {STATUS}"),
            ("", f"applyTo: CLUSTER, patch: {{operation: ADD, value: {EXTRA}}}"),
            ("", "applyTo: CLUSTER, patch: {operation: MERGE, value: {connect_timeout: 3s}}"),
            ("", "applyTo: LISTENER, match: {listener: {portNumber: 80}}, patch: {operation: REMOVE}"),
            ("", f"applyTo: HTTP_FILTER, {NAMED}, patch: {{operation: INSERT_FIRST, value: {AUTHORIZER}}}"),
        )
    ),
    *(
        sidecar(where, hosts, name)
        for where in ("demo", "other", "istio-system")
        for name in ("default", "second")
        for hosts in ("./*", "'*/s.other.svc.cluster.local'", "~/*", "other/*, './t.demo.svc.cluster.local'")
    ),
    envoy_filter("istio-system", "", f"applyTo: NETWORK_FILTER, {NAMED}, patch: {OTHERS}"),
    *(
        telemetry(where, rest, name)
        for where in ("demo", "istio-system")
        for name in ("t", "u")
        for rest in (
            "accessLogging: [{disabled: true}]",
            "accessLogging: [{filter: {expression: response.code >= 400}}]",
            "targetRefs: [{kind: Gateway, name: web}], accessLogging: [{}]",
            "selector: {matchLabels: {edge: 'yes'}}, accessLogging: [{disabled: true}]",
        )
    ),
    *(
        objects.endpoint_slice(f"endpoints: [{endpoints}], ports: [{{port: 8080}}]", "x", service="s")
        for endpoints in ("{addresses: [203.0.113.7]}", "{addresses: [203.0.113.8], targetRef: {kind: Pod, name: p}}")
    ),
]
_change = st.sampled_from(VALUES).flatmap(lambda value: st.tuples(st.just(value.key), st.just(value) | st.none()))


@settings(max_examples=200, deadline=None)
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
    return tuple(key for key in found.keys if not key.startswith("sidecars")) if found else ()


def list_told(world: World, key: str) -> set[str]:
    """The listeners that sidecars find under a name, by the host that they are for."""
    table = world.tables["type.googleapis.com/envoy.config.listener.v3.Listener"]
    return {name.removeprefix("sidecar/").partition(".")[0] for name in table.find_names(key)}


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


def test_a_filter_for_one_gateway_rebuilds_nothing_else() -> None:
    world = start(gateway(), gateway("other"), objects.service("s"), route("a", "{name: web}", "{name: s, port: 80}"))
    patch = f"applyTo: HTTP_FILTER, {NAMED}, patch: {{operation: INSERT_FIRST, value: {LUA}}}"
    changed = world.put(envoy_filter("demo", "targetRefs: [{kind: Gateway, name: web}],", patch))
    assert changed == {"Listener": {"gateway/demo/web/80"}}


def test_a_gateways_proxies_have_the_service_that_a_patch_names() -> None:
    world = start(gateway(), objects.service("s", "other"))
    cluster = "outbound|80||s.other.svc.cluster.local"
    assert keys_of(world, cluster) == ()
    patch = f"applyTo: HTTP_FILTER, {NAMED}, patch: {{operation: INSERT_FIRST, value: {AUTHORIZER}}}"
    world.put(envoy_filter("demo", "", patch))
    assert keys_of(world, cluster) == ("gateway:demo/web",)


def test_what_a_filter_spoils_stays_as_it_was_until_the_filter_is_right_again() -> None:
    world = start(gateway(), gateway("other"), envoy_filter("demo", "", f"applyTo: LISTENER, patch: {BUFFER}"))
    before = world.show()
    spoiling = envoy_filter("demo", "priority: 1,", SPOILING, "spoiling")
    assert world.put(spoiling) == {}
    assert world.show() == before
    [(key, fault)] = world.routing.patches.faults.items()
    assert (key, fault.partition(":")[0]) == (spoiling.key, "gateway/demo/other/80")
    assert "router" in fault
    # Another change of the same listeners waits, too, and comes when nothing spoils them any more.
    assert world.apply({envoy_filter("demo", "", SPOILING).key: None}) == {}
    assert world.apply({spoiling.key: None}) == {"Listener": {"gateway/demo/web/80", "gateway/demo/other/80"}}
    assert world.routing.patches.faults == {}


def test_what_is_spoilt_from_the_beginning_is_not_served() -> None:
    world = start(gateway(), envoy_filter("demo", "", SPOILING))
    listeners = world.tables["type.googleapis.com/envoy.config.listener.v3.Listener"]
    assert "gateway/demo/web/80" not in listeners


def test_of_two_clusters_of_one_name_the_first_counts_and_the_other_is_told_of() -> None:
    other = EXTRA.replace("1s", "2s")
    add = "applyTo: CLUSTER, patch: {operation: ADD, value: "
    for_all = envoy_filter("istio-system", "", f"{add}{EXTRA}}}")
    world = start(gateway(), for_all, envoy_filter("demo", "", f"{add}{other}}}"))
    [key] = world.routing.patches.faults
    assert key.namespace == "demo"
    world.apply({for_all.key: None})
    assert world.routing.patches.faults == {}
    assert keys_of(world, "extra") == ("gateway:demo/web",)


def test_a_telemetry_touches_only_what_it_is_for() -> None:
    world = start(gateway(), gateway("other"), objects.service("s", spec="clusterIP: 192.0.2.1, ports: [{port: 80}]"))
    off = "accessLogging: [{disabled: true}]"
    one = world.put(telemetry("demo", f"targetRefs: [{{kind: Gateway, name: web}}], {off}"))
    assert one == {"Listener": {"gateway/demo/web/80"}}
    rest = {"gateway/demo/other/80", "sidecar/outbound", "sidecar/s.demo.svc.cluster.local/80"}
    assert world.put(telemetry("istio-system", off)) == {"Listener": rest}


def test_an_added_listener_that_envoy_would_refuse_is_told_of_until_its_filter_goes() -> None:
    filters = f"filters: [{{name: m, typed_config: {{{_HCM}, stat_prefix: x, route_config: {{}}}}}}]"
    address = "address: {socket_address: {address: '::', port_value: 90}}"
    value = f"{{name: extra, {address}, filter_chains: [{{{filters}}}]}}"
    added = envoy_filter("demo", "", f"applyTo: LISTENER, patch: {{operation: ADD, value: {value}}}")
    world = start(gateway(), added)
    assert "extra" not in world.tables["type.googleapis.com/envoy.config.listener.v3.Listener"]
    assert list(world.routing.patches.faults) == [added.key]
    world.apply({added.key: None})
    assert world.routing.patches.faults == {}


def test_a_sidecar_narrows_what_those_of_its_namespace_are_told_of() -> None:
    addressed = "clusterIP: 192.0.2.1, ports: [{port: 80}]"
    world = start(objects.service("s", spec=addressed), objects.service("t", "other", spec=addressed))
    changed = world.put(sidecar("demo", "./*"))
    assert changed == {
        "Listener": {"sidecar/outbound", "sidecar/s.demo.svc.cluster.local/80"},
        "Cluster": {"passthrough", "outbound|80||s.demo.svc.cluster.local"},
    }
    assert list_told(world, "sidecars:demo") == {"outbound", "s"}
    assert list_told(world, "sidecars") == {"outbound", "s", "t"}
    world.put(sidecar("demo", "~/*"))
    assert list_told(world, "sidecars:demo") == {"outbound"}
    world.apply({sidecar("demo", "~/*").key: None})
    assert list_told(world, "sidecars:demo") == set()


def test_sidecars_have_the_clusters_that_the_routes_of_what_they_see_lead_to() -> None:
    services = [objects.service("s"), objects.service("s", "other"), objects.service("t", "other")]
    world = start(*services, sidecar("demo", "./*"))
    clusters = world.tables["type.googleapis.com/envoy.config.cluster.v3.Cluster"]
    own, led_to = "outbound|80||s.demo.svc.cluster.local", "outbound|80||s.other.svc.cluster.local"
    assert set(clusters.find_names("sidecars:demo")) == {"passthrough", own}
    world.put(virtual_service("v", "s", "host: s.other.svc"))
    assert set(clusters.find_names("sidecars:demo")) == {"passthrough", own, led_to}


def test_a_filter_that_becomes_another_one_is_the_other_one() -> None:
    """One update looks at what a filter was and at what it is."""
    world = start(envoy_filter("istio-system", "", f"applyTo: HTTP_ROUTE, patch: {STATUS}"))
    changed = world.put(
        envoy_filter("istio-system", "", f"applyTo: CLUSTER, patch: {{operation: ADD, value: {EXTRA}}}")
    )
    assert changed == {"Cluster": {"extra"}}
