"""What EnvoyFilters, Telemetries and Sidecars make of the L7 resources, and of nothing else."""

from tests.support import objects
from tests.support.routing_world import (
    AUTHORIZER,
    BUFFER,
    EDGE,
    EDGE_ROUTES,
    EXTRA,
    HCM,
    LUA,
    NAMED,
    PAIRS,
    SPOILING,
    STATUS,
    ended,
    envoy_filter,
    gateway,
    istio_gateway,
    keys_of,
    list_told,
    route,
    secret,
    sidecar,
    start,
    telemetry,
    virtual_service,
)


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
    filters = f"filters: [{{name: m, typed_config: {{{HCM}, stat_prefix: x, route_config: {{}}}}}}]"
    address = "address: {socket_address: {address: '::', port_value: 90}}"
    value = f"{{name: extra, {address}, filter_chains: [{{{filters}}}]}}"
    added = envoy_filter("demo", "", f"applyTo: LISTENER, patch: {{operation: ADD, value: {value}}}")
    world = start(gateway(), added)
    assert "extra" not in world.tables["type.googleapis.com/envoy.config.listener.v3.Listener"]
    assert list(world.routing.patches.faults) == [added.key]
    world.apply({added.key: None})
    assert world.routing.patches.faults == {}


def test_a_sidecar_narrows_what_those_of_its_namespace_are_told_of() -> None:
    first, second = (f"clusterIP: 192.0.2.{number}, ports: [{{port: 80}}]" for number in (1, 2))
    world = start(objects.service("s", spec=first), objects.service("t", "other", spec=second))
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


def test_an_ingress_gateway_has_what_filters_by_its_labels_make_of_it() -> None:
    labels = "workloadSelector: {labels: {istio: ingress}},"
    authorizer = f"applyTo: HTTP_FILTER, {NAMED}, patch: {{operation: INSERT_FIRST, value: {AUTHORIZER}}}"
    extra = f"applyTo: CLUSTER, patch: {{operation: ADD, value: {EXTRA}}}"
    world = start(
        istio_gateway("web", "istio: ingress", "'*'"),
        objects.service("s", "other"),
        envoy_filter("demo", labels, extra),
    )
    cluster = "outbound|80||s.other.svc.cluster.local"
    assert keys_of(world, "extra") == ()
    assert world.open(EDGE)["Cluster"] == {"extra"}
    assert keys_of(world, "extra") == (f"ingress:{EDGE}",)
    changed = world.put(envoy_filter("demo", labels, authorizer, "authorizer"))
    assert changed == {"Listener": {EDGE_ROUTES}, "Cluster": {cluster}}
    assert keys_of(world, cluster) == (f"ingress:{EDGE}",)
    assert not world.put(envoy_filter("other", labels, authorizer))
    assert world.close(EDGE)["Cluster"] == {"extra", cluster}
    assert keys_of(world, cluster) == ()


def test_what_filters_make_of_listeners_with_tls_and_their_routes() -> None:
    world = start(
        gateway("web", f"{ended('{name: c}')}, {ended('{name: c}', host='b.test')}"), secret("demo", PAIRS[0])
    )
    changed = world.put(envoy_filter("demo", "", f"applyTo: HTTP_ROUTE, patch: {STATUS}"))
    assert changed == {"RouteConfiguration": {"gateway/demo/web/443/a", "gateway/demo/web/443/b"}}
    patch = f"applyTo: HTTP_FILTER, {NAMED}, patch: {{operation: INSERT_FIRST, value: {LUA}}}"
    assert world.put(envoy_filter("demo", "", patch, "g")) == {"Listener": {"gateway/demo/web/443"}}


def test_a_waypoint_writes_the_access_log_of_its_telemetry_and_is_not_patched() -> None:
    world = start(objects.waypoint(), objects.service("s", metadata="labels: {istio.io/use-waypoint: waypoint}"))
    off = "targetRefs: [{kind: Gateway, name: waypoint}], accessLogging: [{disabled: true}]"
    assert world.put(telemetry("demo", off)) == {"Listener": {"waypoint/demo/waypoint"}}
    assert not world.put(
        envoy_filter("demo", "", f"applyTo: CLUSTER, patch: {{operation: ADD, value: {EXTRA}}}"),
        envoy_filter("demo", "", f"applyTo: LISTENER, match: {{context: GATEWAY}}, patch: {BUFFER}", "g"),
    )


def test_sidecars_of_a_new_view_have_the_clusters_that_patches_name() -> None:
    patch = f"applyTo: HTTP_FILTER, {NAMED}, patch: {{operation: INSERT_FIRST, value: {AUTHORIZER}}}"
    world = start(objects.service("s", "other"), envoy_filter("istio-system", "", patch), sidecar("demo", "~/*"))
    clusters = world.tables["type.googleapis.com/envoy.config.cluster.v3.Cluster"]
    named = "outbound|80||s.other.svc.cluster.local"
    assert named in set(clusters.find_names("sidecars:demo"))
    world.put(sidecar("other", "~/*"))
    assert named in set(clusters.find_names("sidecars:other"))


def test_a_filter_that_becomes_another_one_is_the_other_one() -> None:
    """One update looks at what a filter was and at what it is."""
    world = start(envoy_filter("istio-system", "", f"applyTo: HTTP_ROUTE, patch: {STATUS}"))
    changed = world.put(
        envoy_filter("istio-system", "", f"applyTo: CLUSTER, patch: {{operation: ADD, value: {EXTRA}}}")
    )
    assert changed == {"Cluster": {"extra"}}
