"""The L7 resources of a snapshot, followed change by change, and the objects that they are tested with."""

import json
from collections.abc import Iterable, Mapping

from cryptography.hazmat.primitives.serialization import Encoding

from controller.kinds.meta import KubernetesObject, ObjectKey
from controller.registry.names import MeshSettings
from controller.registry.proxies import Ingress, build_ingress
from controller.routing.publication import Routing
from controller.serve.resources import (
    ROUTING_TYPES,
    Resource,
    ResourceChanges,
    ResourceTable,
)
from controller.snapshot import Snapshot
from tests.support import objects
from tests.support.mesh_certificates import Credentials, issue_server, make_authority
from tests.support.objects import parse
from tests.support.secrets import secret_text

GATEWAY_API = "gateway.networking.k8s.io/v1"
ISTIO = "networking.istio.io/v1"
INGRESSES = (build_ingress("demo", {"app": "web", "istio": "ingress"}), build_ingress("other", {"app": "x"}))
SECURITY = "security.istio.io/v1"
KEYS_URL = "https://issuer.test/keys"
EDGE = INGRESSES[0]
EDGE_ROUTES = f"ingress/{EDGE}/80"


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
HCM = (
    "'@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, "
    f"http_filters: [{LUA}]"
)
AUTHORIZER_OF_BYTES = (
    "'@type': type.googleapis.com/envoy.extensions.filters.network.ext_authz.v3.ExtAuthz, stat_prefix: x, "
    "grpc_service: {envoy_grpc: {cluster_name: outbound|80||t.other.svc.cluster.local}}"
)
OTHERS = f"{{operation: INSERT_BEFORE, value: {{name: authorizer, typed_config: {{{AUTHORIZER_OF_BYTES}}}}}}}"
SPOILING = f"applyTo: NETWORK_FILTER, {NAMED}, patch: {{operation: MERGE, value: {{typed_config: {{{HCM}}}}}}}"
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


def istio_gateway_tls(name: str, servers: str, where: str = "demo") -> KubernetesObject:
    """An Istio Gateway for all proxies; each of its servers is `PROTOCOL HOSTS TLS`, with semicolons."""
    written = []
    for index, each in enumerate(servers.split("; ")):
        protocol, hosts, tls = each.split(" ", 2)
        port = f"{{number: 443, name: s{index}, protocol: {protocol}}}"
        quoted = ", ".join(f"'{host}'" for host in hosts.split(","))
        written.append(f"{{port: {port}, hosts: [{quoted}], tls: {{{tls}}}}}")
    return made(ISTIO, "Gateway", name, where, f"servers: [{', '.join(written)}]")


FROM_ALL = "allowedRoutes: {namespaces: {from: All}}"
STREAMS = (
    f"{{name: through, port: 443, protocol: TLS, hostname: '*.test', tls: {{mode: Passthrough}}, {FROM_ALL}}}, "
    f"{{name: tcp, port: 53, protocol: TCP, {FROM_ALL}}}"
)
PEM = make_authority("test").certificate.public_bytes(Encoding.PEM).decode()
AUTHORITY = json.dumps(PEM)


def policy(name: str, service: str, rest: str = "") -> KubernetesObject:
    target = f"targetRefs: [{{group: '', kind: Service, name: {service}{rest}}}]"
    validation = f"caCertificateRefs: [{{group: '', kind: ConfigMap, name: ca}}], hostname: {name}.test"
    return made(GATEWAY_API, "BackendTLSPolicy", name, "demo", f"{target}, validation: {{{validation}}}")
