"""The L7 resources of a snapshot, and that following changes gives what building everything gives."""

import json
from collections.abc import Iterable, Mapping

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.kinds.key_set import build_key_set
from controller.kinds.meta import KubernetesObject, ObjectKey
from controller.registry.names import MeshSettings
from controller.registry.proxies import Ingress, build_ingress
from controller.routing.publication import Routing
from controller.serve.resources import (
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    ROUTING_TYPES,
    Resource,
    ResourceChanges,
    ResourceTable,
)
from controller.snapshot import Snapshot
from tests.support import objects
from tests.support.mesh_certificates import Credentials, issue_server, make_authority
from tests.support.objects import Steps, end_of, parse
from tests.support.secrets import secret_text

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
        for type_url, changes in self.routing.build(self.snapshot).items():
            self.tables[type_url].apply(changes)

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


def gateway(
    name: str = "web", rest: str = "", where: str = "demo", owner: str = "ambit", labels: str = ""
) -> KubernetesObject:
    listeners = rest or "{name: http, port: 80, protocol: HTTP}"
    metadata = f"{{name: {name}, namespace: {where}, labels: {{{labels}}}}}"
    spec = f"{{gatewayClassName: {owner}, listeners: [{listeners}]}}"
    return parse(f"{{apiVersion: {GATEWAY_API}, kind: Gateway, metadata: {metadata}, spec: {spec}}}")


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


def grant(where: str, source: str, kind: str = "HTTPRoute", to: str = "Service") -> KubernetesObject:
    spec = (
        f"from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: {source}}}], "
        f"to: [{{group: '', kind: {to}}}]"
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
PAIRS = [issue_server(make_authority("test"), "a.test") for _ in range(2)]


def ended(*references: str, host: str = "a.test") -> str:
    """A listener that ends TLS with these certificates."""
    tls = f"tls: {{certificateRefs: [{', '.join(references)}]}}"
    return f"{{name: {host[0]}, port: 443, protocol: HTTPS, hostname: {host}, {tls}, {FROM_ALL}}}"


def gateway_pod(node: str) -> KubernetesObject:
    return objects.pod("p", labels="gateway.networking.k8s.io/gateway-name: web", node=node)


def secret(where: str, pair: Credentials) -> KubernetesObject:
    return parse(secret_text("c", pair, where))


FROM_ALL = "allowedRoutes: {namespaces: {from: All}}"
STREAMS = (
    f"{{name: through, port: 443, protocol: TLS, hostname: '*.test', tls: {{mode: Passthrough}}, {FROM_ALL}}}, "
    f"{{name: tcp, port: 53, protocol: TCP, {FROM_ALL}}}"
)
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
AUTHORITY = json.dumps(make_authority("test").certificate.public_bytes(Encoding.PEM).decode())


def policy(name: str, service: str, rest: str = "") -> KubernetesObject:
    target = f"targetRefs: [{{group: '', kind: Service, name: {service}{rest}}}]"
    validation = f"caCertificateRefs: [{{group: '', kind: ConfigMap, name: ca}}], hostname: {name}.test"
    return made(GATEWAY_API, "BackendTLSPolicy", name, "demo", f"{target}, validation: {{{validation}}}")


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
    st.sampled_from([BACKENDS, CERTIFICATES, CONNECTIONS, PATCHES]).flatmap(lambda values: steps_of(values, least=8))
)
def test_following_changes_of_a_few_objects_gives_the_same(steps: Steps) -> None:
    follow_and_compare(steps)


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
