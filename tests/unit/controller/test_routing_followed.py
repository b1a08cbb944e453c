"""Following changes gives what building everything gives."""

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.kinds.key_set import build_key_set
from controller.kinds.meta import KubernetesObject
from tests.support import objects
from tests.support.objects import Steps, end_of, parse
from tests.support.routing_world import (
    ALL,
    AUTHORITY,
    AUTHORIZER,
    BUFFER,
    EXTRA,
    GATEWAY_API,
    INGRESSES,
    ISTIO,
    KEYS_URL,
    LABELLED,
    LUA,
    NAMED,
    OTHERS,
    PAIRS,
    PEM,
    STATUS,
    STREAMS,
    World,
    authentication,
    authorization,
    destination_rule,
    ended,
    envoy_filter,
    gateway,
    gateway_class,
    gateway_pod,
    grant,
    istio_gateway,
    istio_gateway_tls,
    made,
    policy,
    route,
    secret,
    sidecar,
    target,
    telemetry,
    virtual_service,
)
from tests.support.secrets import opaque_text

CERTIFICATES: list[KubernetesObject] = [
    gateway("web", f"{ALL}, {ended('{name: c}')}"),
    gateway("web", f"{ended('{name: c, namespace: other}')}, {ended('{name: c}', host='b.test')}, {STREAMS}"),
    gateway("other", ended("{name: c, namespace: demo}"), "other"),
    parse(
        f"{{apiVersion: {GATEWAY_API}, kind: Gateway, metadata: {{name: web, namespace: demo, annotations: "
        "{ambit.dev/proxy-nodes: 'node-8, node-9'}}, spec: {gatewayClassName: ambit, "
        f"listeners: [{ended('{name: c}')}]}}}}"
    ),
    *(secret(where, pair) for where in ("demo", "other") for pair in PAIRS),
    parse("{apiVersion: v1, kind: Secret, metadata: {name: c, namespace: demo}, type: other}"),
    *(grant(where, source, "Gateway", "Secret") for where, source in (("demo", "other"), ("other", "demo"))),
    gateway_pod("node-1"),
    gateway_pod("node-2"),
]
SERVERS: list[KubernetesObject] = [
    *(
        istio_gateway_tls(name, servers, where)
        for name, where in (("web", "demo"), ("i", "other"))
        for servers in (
            "HTTPS a.test,*.test mode: SIMPLE, credentialName: c",
            "HTTPS a.test mode: MUTUAL, credentialName: c; TLS b.test mode: SIMPLE, credentialName: c",
            "TLS * mode: PASSTHROUGH; HTTPS a.test mode: OPTIONAL_MUTUAL, credentialName: c",
        )
    ),
    made(ISTIO, "Gateway", "web", "demo", "servers: [{port: {number: 443, name: s, protocol: TCP}, hosts: ['*']}]"),
    parse(
        f"{{apiVersion: {ISTIO}, kind: Gateway, metadata: {{name: web, namespace: demo, annotations: "
        "{ambit.dev/proxy-nodes: 'node-8'}}, spec: {servers: "
        "[{port: {number: 443, name: s, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: c}}]}}"
    ),
]
SERVER_CERTIFICATES: list[KubernetesObject] = [
    istio_gateway_tls("web", "HTTPS * mode: SIMPLE, credentialName: c"),
    *SERVERS,
    *(secret(where, pair) for where in ("demo", "other") for pair in PAIRS),
    *(
        parse(opaque_text(name, "demo", {**keys, "ca.crt": PEM}))
        for name, keys in (("c", {"cert": PAIRS[0].certificate, "key": PAIRS[0].key}), ("c-cacert", {}))
    ),
    *(
        objects.pod("p", where, labels=labels, node=node)
        for where in ("demo", "other")
        for labels in ("app: web, istio: ingress, version: v1", "app: x")
        for node in ("node-1", "node-2")
    ),
]
SERVER_RULES: list[KubernetesObject] = [
    *SERVERS,
    secret("demo", PAIRS[0]),
    objects.service("front", spec="clusterIP: 192.0.2.3, selector: {app: web}, ports: [{port: 443, targetPort: 8443}]"),
    *(objects.service(name) for name in ("s", "t")),
    *(
        made(ISTIO, "VirtualService", name, where, f"hosts: [{hosts}], gateways: [demo/web, other/i], {rules}")
        for name, where in (("v", "demo"), ("w", "demo"), ("v", "other"))
        for hosts in ("'*'", "a.test, b.test")
        for rules in (
            "http: [{route: [{destination: {host: s.demo.svc.cluster.local}}]}]",
            "tcp: [{route: [{destination: {host: s}}]}]",
            "tcp: [{match: [{port: 443, gateways: [demo/web]}], route: [{destination: {host: t}}]}]",
            "tls: [{match: [{sniHosts: [a.test, c.test]}], route: [{destination: {host: t}}]}, "
            "{match: [{sniHosts: ['*.test'], gateways: [other/i]}], route: [{destination: {host: s}}]}]",
        )
    ),
    authorization(target("Gateway", "web")),
]
CONNECTIONS: list[KubernetesObject] = [
    gateway("web", STREAMS),
    objects.service("s"),
    objects.service("s", "other"),
    *(
        route(name, "{name: web, namespace: demo}", backends, where, kind)
        for name, where in (("a", "demo"), ("b", "other"))
        for kind in ("TLSRoute", "TCPRoute")
        for backends in ("{name: s, port: 80}", "{name: s, port: 80}, {name: s, namespace: other, port: 80, weight: 2}")
    ),
    route("a", "{group: '', kind: Service, name: s}", "{name: t, port: 80}", kind="TCPRoute"),
]
BACKENDS: list[KubernetesObject] = [
    gateway("web", f"{ALL}, {STREAMS}"),
    route("a", "{name: web}", "{name: s, port: 80}, {name: t, port: 80}"),
    route("a", "{name: web}", "{name: s, port: 80}", kind="TCPRoute"),
    *(
        policy(name, service, rest)
        for name in ("x", "y")
        for service in ("s", "t")
        for rest in ("", ", sectionName: h")
    ),
    objects.service("s", spec="clusterIP: 192.0.2.1, selector: {app: web}, ports: [{name: h, port: 80}]"),
    objects.service("s"),
    objects.service("t"),
    objects.pod("p"),
    destination_rule("d", "s", "subsets: [{name: one, labels: {version: one}}]"),
    parse(
        f"{{apiVersion: v1, kind: ConfigMap, metadata: {{name: ca, namespace: demo}}, data: {{ca.crt: {AUTHORITY}}}}}"
    ),
    parse("{apiVersion: v1, kind: ConfigMap, metadata: {name: ca, namespace: demo}}"),
]
PATCHES: list[KubernetesObject] = [
    gateway("web", f"{ALL}, {ended('{name: c}')}", labels="edge: 'yes'"),
    gateway("web", f"{ALL}, {STREAMS}"),
    secret("demo", PAIRS[0]),
    objects.waypoint(name="web"),
    istio_gateway("i", "istio: ingress", "'*'"),
    virtual_service("v", "www.test", "host: s", gateways="i"),
    *(
        objects.service(name, spec="clusterIP: 192.0.2.2, selector: {app: x}, ports: [{port: 80}]")
        for name in ("s", "t")
    ),
    objects.service("s", "other"),
    route("a", "{name: web}", "{name: s, port: 80}"),
    *(
        envoy_filter(where, rest, patch)
        for where in ("demo", "istio-system")
        for rest, patch in (
            ("", f"applyTo: HTTP_FILTER, {NAMED}, patch: {{operation: INSERT_BEFORE, value: {LUA}}}"),
            ("workloadSelector: {labels: {edge: 'yes'}},", f"applyTo: LISTENER, patch: {BUFFER}"),
            (
                "workloadSelector: {labels: {istio: ingress}},",
                f"applyTo: CLUSTER, patch: {{operation: ADD, value: {EXTRA}}}",
            ),
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
            "selector: {matchLabels: {istio: ingress}}, accessLogging: [{disabled: true}]",
        )
    ),
]
VALUES: list[KubernetesObject] = [
    *BACKENDS,
    *CERTIFICATES,
    *CONNECTIONS,
    *PATCHES,
    *SERVER_CERTIFICATES,
    *SERVER_RULES,
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
    *(
        authorization(f"selector: {{matchLabels: {{{labels}}}}}", where=where)
        for labels in ("app: web", "istio: ingress", "gateway.networking.k8s.io/gateway-name: web")
        for where in ("demo", "istio-system")
    ),
    *(
        parse(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n"
            f"data: {{mesh: 'extensionProviders: [{{name: decider, {each}}}]'}}"
        )
        for each in (
            "envoyExtAuthzHttp: {service: t.other.svc.cluster.local, port: 80}",
            "envoyExtAuthzGrpc: {service: other/s.other.svc.cluster.local, port: 80}",
            "envoyExtAuthzHttp: {service: one.example, port: 80}",
            "zipkin: {}",
        )
    ),
    *(
        authorization(f"{chosen}, {action}", "rules: [{}]")
        for chosen in (
            target("Gateway", "web"),
            target("Service", "s"),
            target("Gateway", "w"),
            "selector: {matchLabels: {istio: ingress}}",
        )
        for action in ("action: CUSTOM, provider: {name: decider}", "action: AUDIT")
    ),
    *(authentication(chosen) for chosen in ("selector: {matchLabels: {istio: ingress}}", "selector: {}")),
    authentication("selector: {}", "istio-system"),
    authorization(target("Gateway", "other"), where="other"),
    *(authorization(target("GatewayClass", owner), where="istio-system") for owner in ("ambit", "theirs")),
    authentication(target("Gateway", "web")),
    authentication(target("Gateway", "other"), "other"),
    authentication(target("GatewayClass", "ambit"), "istio-system"),
    *(build_key_set(KEYS_URL, keys) for keys in ("", "some", "others")),
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
    objects.service("s", spec="clusterIP: 192.0.2.1, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]"),
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
    objects.namespace(labels="istio.io/use-waypoint: w, istio.io/ingress-use-waypoint: 'true'"),
    *(
        objects.service(name, metadata=f"labels: {{istio.io/use-waypoint: w, istio.io/ingress-use-waypoint: '{use}'}}")
        for name in ("s", "t")
        for use in ("true", "false")
    ),
    objects.service_entry(
        "hosts: [one.example], resolution: DNS, ports: [{number: 80, name: http}]",
        "e",
        metadata="labels: {istio.io/use-waypoint: w, istio.io/ingress-use-waypoint: 'true'}",
    ),
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
            ("v", "demo", "hosts: ['*'], gateways: [web, other/other],", ""),
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


def steps_of(values: list[KubernetesObject], least: int = 1) -> st.SearchStrategy[Steps]:
    """Changes, each to one of these objects or to none."""
    change = st.sampled_from(values).flatmap(lambda value: st.tuples(st.just(value.key), st.just(value) | st.none()))
    return st.lists(st.lists(change, min_size=1, max_size=4), min_size=least, max_size=12)


def follow_and_compare(steps: Steps) -> None:
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


@settings(max_examples=200, deadline=None)
@given(steps_of(VALUES))
def test_following_changes_gives_what_building_everything_gives(steps: Steps) -> None:
    follow_and_compare(steps)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([BACKENDS, CERTIFICATES, CONNECTIONS, PATCHES, SERVER_CERTIFICATES, SERVER_RULES]).flatmap(
        lambda values: steps_of(values, least=8)
    )
)
def test_following_changes_of_a_few_objects_gives_the_same(steps: Steps) -> None:
    follow_and_compare(steps)
