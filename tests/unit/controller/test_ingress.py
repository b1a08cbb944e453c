"""Istio's Gateways: for which hosts, ports and proxies they are, and who may bind to them."""

import pytest

from controller.kinds.istio_gateway import IstioGateway
from controller.kinds.virtual_service import VirtualService
from controller.metrics import ControllerMetrics
from controller.registry.delegates import list_rules
from controller.registry.gateways import RequestChain
from controller.registry.http import Reply
from controller.registry.ingress import BoundRoutes, find_listen_ports, list_bound_hosts, selects
from controller.registry.ingress_ports import build_ports
from controller.registry.names import MeshSettings
from controller.registry.proxies import Ingress, build_ingress
from controller.registry.virtual_services import build_routes, find_gateways, is_for_mesh
from controller.serve.hub import Hub
from controller.serve.resources import ADDRESS_TYPE, LISTENER_TYPE
from controller.serve.session import SessionLimits
from controller.serve.wire import ClientNode, DeltaRequest
from controller.snapshot import Snapshot
from controller.sources.documents import parse_documents
from tests.support.objects import parse, service

ISTIO = "networking.istio.io/v1"
EDGE = build_ingress("istio-system", {"istio": "ingressgateway", "app": "edge"})


def text(kind: str, spec: str, name: str = "web", where: str = "demo", age: int = 1) -> str:
    metadata = f"{{name: {name}, namespace: {where}, creationTimestamp: '2026-01-0{age}T00:00:00Z'}}"
    return f"{{apiVersion: {ISTIO}, kind: {kind}, metadata: {metadata}, spec: {spec}}}"


def gateway(
    hosts: str = "'*'", selector: str = "istio: ingressgateway", rest: str = "", port: int = 80
) -> IstioGateway:
    servers = f"[{{port: {{number: {port}, name: http, protocol: http}}, hosts: [{hosts}], {rest}}}]"
    made = parse(text("Gateway", f"{{selector: {{{selector}}}, servers: {servers}}}"))
    assert isinstance(made, IstioGateway)
    return made


def virtual_service(
    hosts: str = "'*'", rest: str = "gateways: [web]", where: str = "demo", name: str = "v", age: int = 1, to: int = 200
) -> VirtualService:
    rule = f"directResponse: {{status: {to}}}"
    spec = f"{{hosts: [{hosts}], http: [{{match: [{{uri: {{prefix: /{to}}}}}], {rule}}}, {{{rule}}}], {rest}}}"
    made = parse(text("VirtualService", spec, name, where, age))
    assert isinstance(made, VirtualService)
    return made


@pytest.mark.parametrize(
    ("own", "where", "wanted", "expected"),
    [
        pytest.param("'*'", "demo", "www.test", ["www.test"], id="any"),
        pytest.param("'*.test'", "demo", "www.test, test, other.example", ["www.test"], id="wildcard"),
        pytest.param("www.test, a.test", "demo", "'*.test'", ["www.test", "a.test"], id="the-narrower-counts"),
        pytest.param("'*.test'", "demo", "'*.a.test'", ["*.a.test"], id="both-wild"),
        pytest.param("'*.test'", "demo", "'*'", ["*.test"], id="all-hosts"),
        pytest.param("www.test", "demo", "WWW.Test", ["www.test"], id="case"),
        pytest.param("'*'", "demo", "web", ["web.demo.svc.cluster.local"], id="short"),
        pytest.param("./www.test", "demo", "www.test", ["www.test"], id="own-namespace"),
        pytest.param("./www.test", "other", "www.test", [], id="not-own-namespace"),
        pytest.param("other/www.test", "other", "www.test", ["www.test"], id="named-namespace"),
        pytest.param("other/www.test", "demo", "www.test", [], id="not-the-named-namespace"),
        pytest.param("'*/www.test'", "other", "www.test", ["www.test"], id="any-namespace"),
        pytest.param("'*/*'", "other", "www.test", ["www.test"], id="anything"),
        pytest.param("www.test", "demo", "test", [], id="nothing"),
    ],
)
def test_a_virtual_service_serves_the_hosts_that_it_shares_with_a_server(
    own: str, where: str, wanted: str, expected: list[str]
) -> None:
    given = gateway(own)
    found = list_bound_hosts(MeshSettings(), given, given.spec.servers[0], virtual_service(wanted, where=where))
    assert list(found) == expected


@pytest.mark.parametrize(
    ("selector", "expected"),
    [("istio: ingressgateway", True), ("app: edge, istio: ingressgateway", True), ("", True), ("app: web", False)],
)
def test_a_gateway_is_for_the_proxies_whose_labels_meet_its_selector(selector: str, expected: bool) -> None:
    assert selects(gateway(selector=selector), EDGE) is expected


@pytest.mark.parametrize(
    ("named", "places", "is_mesh"),
    [
        ("", [], True),
        ("gateways: []", [], True),
        ("gateways: [mesh]", [], True),
        ("gateways: [web]", [("demo", "web")], False),
        ("gateways: [./web, other/web, mesh]", [("demo", "web"), ("other", "web")], True),
    ],
)
def test_a_virtual_service_is_bound_to_what_it_names(named: str, places: list[tuple[str, str]], is_mesh: bool) -> None:
    given = virtual_service(rest=named)
    assert sorted(find_gateways(given)) == places
    assert is_for_mesh(given) is is_mesh


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        pytest.param("{port: 80, targetPort: 8080}", {8080}, id="target"),
        pytest.param("{port: 80}", {80}, id="same"),
        pytest.param("{port: 81, targetPort: 8080}", {80}, id="another-port"),
        pytest.param("{port: 80, targetPort: http}", {80}, id="a-name"),
        pytest.param("{port: 80, targetPort: 8080, protocol: UDP}", {80}, id="udp"),
    ],
)
def test_proxies_listen_where_the_service_before_them_leads(ports: str, expected: set[int]) -> None:
    front = service("front", "istio-system", spec=f"selector: {{app: edge}}, ports: [{ports}]")
    others = [
        service("else", "demo", spec="selector: {app: edge}, ports: [{port: 80, targetPort: 1}]"),
        service("apart", "istio-system", spec="selector: {app: web}, ports: [{port: 80, targetPort: 2}]"),
        service("bare", "istio-system", spec="ports: [{port: 80, targetPort: 3}]"),
    ]
    snapshot = Snapshot().apply({each.key: each for each in (front, *others)})
    assert find_listen_ports(snapshot, EDGE, 80) == expected


def replies(given: IstioGateway, *bound: VirtualService, ingress: Ingress = EDGE) -> dict[str, list[tuple[str, int]]]:
    """By host of port 80, the paths and what answers."""
    rooms = BoundRoutes(
        lambda place: [each for each in bound if place in find_gateways(each)],
        lambda each, port, place: (
            route
            for rule in list_rules(each, lambda *_: None)
            for route in build_routes(rule, port, lambda _: None, place)
        ),
        lambda *_: lambda _: None,
    )
    [chain] = build_ports(Snapshot().apply({given.key: given}), MeshSettings(), ingress, rooms)[80]
    assert isinstance(chain, RequestChain)
    return {
        host.name: [
            (route.match.path.value, route.action.status) for route in host.routes if isinstance(route.action, Reply)
        ]
        for host in chain.hosts
    }


def test_on_one_host_the_oldest_goes_first_and_what_any_request_meets_last() -> None:
    younger, older = (virtual_service("a.test", name=f"v{age}", age=age, to=200 + age) for age in (2, 1))
    assert replies(gateway(), younger, older) == {"a.test": [("/201", 201), ("/202", 202), ("/", 201), ("/", 202)]}


@pytest.mark.parametrize(
    ("scopes", "namespaces"),
    [
        ("[]", {"istio-system", "demo"}),
        ("['*']", {"istio-system", "demo"}),
        ("[.]", {"demo"}),
        ("[istio-system]", {"istio-system"}),
        ("[., istio-system]", {"istio-system", "demo"}),
        ("[other]", set[str]()),
    ],
)
def test_a_virtual_service_serves_ingress_gateways_of_namespaces_that_it_is_exported_to(
    scopes: str, namespaces: set[str]
) -> None:
    given = virtual_service("a.test", f"gateways: [web], exportTo: {scopes}")
    seen = {
        namespace
        for namespace in ("istio-system", "demo")
        if replies(gateway(), given, ingress=build_ingress(namespace, dict(EDGE.labels)))
    }
    assert seen == namespaces


@pytest.mark.parametrize(
    ("server", "field"),
    [
        pytest.param("port: {number: 443, name: x, protocol: HTTPS}", "", id="https-without-tls"),
        pytest.param("port: {number: 443, name: x, protocol: TLS}", "", id="tls-without-tls"),
        pytest.param("port: {number: 443, name: x, protocol: MONGO}", "port.protocol", id="mongo"),
        pytest.param("port: {number: 443, name: x, protocol: GRPC-WEB}", "port.protocol", id="grpc-web"),
        pytest.param("port: {number: 80, name: x, protocol: UDP}", "port.protocol", id="unknown"),
        pytest.param("port: {number: 80, name: x, protocol: HTTP, targetPort: 81}", "port.targetPort", id="target"),
        pytest.param("port: {number: 80, protocol: HTTP}", "port.name", id="nameless"),
        pytest.param("tls: {mode: SIMPLE}", "", id="tls-of-plain-http"),
        pytest.param("tls: {credentialName: x}", "", id="credential-of-plain-http"),
        pytest.param("tls: {caCrl: x}", "tls.caCrl", id="revocation"),
        pytest.param("bind: 192.0.2.1", "bind", id="bind"),
        pytest.param("defaultEndpoint: '127.0.0.1:80'", "defaultEndpoint", id="default-endpoint"),
        pytest.param("hosts: []", "hosts", id="no-hosts"),
        pytest.param("hosts: [web]", "hosts[0]", id="short-host"),
        pytest.param("hosts: [Other/www.test]", "hosts[0]", id="namespace"),
        pytest.param("hosts: ['a*.test']", "hosts[0]", id="star"),
        pytest.param("unknown: x", "unknown", id="unknown-field"),
    ],
)
def test_what_a_server_does_not_do_is_refused_by_its_field(server: str, field: str) -> None:
    given = {"port": "{number: 80, name: http, protocol: HTTP}", "hosts": "['*']"}
    key, _, value = server.partition(": ")
    written = ", ".join(f"{name}: {each}" for name, each in {**given, key: value}.items())
    parsed = parse_documents(text("Gateway", f"{{servers: [{{{written}}}]}}"), "a.yaml")
    assert [problem.path for problem in parsed.problems] == [f"spec.servers[0].{field}".rstrip(".")]


def read_tls(tls: str, protocol: str = "HTTPS") -> list[tuple[str, str]]:
    """The fields and codes that a server with this `tls` is refused with."""
    server = f"{{port: {{number: 443, name: x, protocol: {protocol}}}, hosts: ['*'], tls: {{{tls}}}}}"
    problems = parse_documents(text("Gateway", f"{{servers: [{server}]}}"), "a.yaml").problems
    return [(problem.path.removeprefix("spec.servers[0]").lstrip("."), problem.code) for problem in problems]


@pytest.mark.parametrize(
    "tls",
    [
        "mode: SIMPLE, credentialName: c",
        "mode: SIMPLE, credentialNames: [c, d]",
        "mode: SIMPLE, credentialName: c, httpsRedirect: true",
        "mode: MUTUAL, credentialName: c, subjectAltNames: ['spiffe://a/b']",
        "mode: OPTIONAL_MUTUAL, credentialName: c",
        "mode: PASSTHROUGH",
        "httpsRedirect: false",
        "mode: SIMPLE, credentialName: c, minProtocolVersion: TLSV1_2, maxProtocolVersion: TLSV1_2",
        "mode: SIMPLE, credentialName: c, minProtocolVersion: TLSV1_3, cipherSuites: [AES128-SHA]",
    ],
)
@pytest.mark.parametrize("protocol", ["HTTPS", "https", "TLS"])
def test_how_a_server_does_tls_is_taken(tls: str, protocol: str) -> None:
    assert read_tls(tls, protocol) == []


@pytest.mark.parametrize(
    ("tls", "field", "code"),
    [
        pytest.param("mode: AUTO_PASSTHROUGH", "tls.mode", "unsupported", id="auto-passthrough"),
        pytest.param("mode: ISTIO_MUTUAL", "tls.mode", "unsupported", id="istio-mutual"),
        pytest.param("mode: ANY", "tls.mode", "invalid-value", id="no-mode"),
        pytest.param("mode: SIMPLE", "", "combination", id="no-credential"),
        pytest.param("mode: SIMPLE, credentialName: c, credentialNames: [d]", "", "combination", id="both"),
        pytest.param("credentialName: c", "", "combination", id="passthrough-with-credential"),
        pytest.param("minProtocolVersion: TLSV1_2", "", "combination", id="passthrough-with-version"),
        pytest.param("mode: SIMPLE, credentialName: c, subjectAltNames: [a]", "", "combination", id="names-of-nobody"),
        pytest.param(
            "mode: SIMPLE, credentialName: c, minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2",
            "",
            "combination",
            id="versions",
        ),
        pytest.param(
            "mode: SIMPLE, credentialName: c, cipherSuites: [DES-CBC3-SHA]",
            "tls.cipherSuites[0]",
            "cipher-suite",
            id="cipher",
        ),
        pytest.param("mode: SIMPLE, credentialName: demo/c", "tls.credentialName", "invalid-name", id="namespace"),
        pytest.param(
            "mode: SIMPLE, credentialName: 'kubernetes://c'", "tls.credentialName", "invalid-name", id="scheme"
        ),
        pytest.param(
            "mode: SIMPLE, credentialNames: [a, b, c]", "tls.credentialNames", "invalid-value", id="many-credentials"
        ),
        *(
            pytest.param(f"mode: SIMPLE, credentialName: c, {name}: x", f"tls.{name}", "unsupported", id=name)
            for name in (
                "serverCertificate",
                "privateKey",
                "caCertificates",
                "caCrl",
                "caCertCredentialName",
                "tlsCertificates",
                "verifyCertificateSpki",
                "verifyCertificateHash",
            )
        ),
    ],
)
def test_tls_that_a_server_does_not_do_is_refused_by_its_field(tls: str, field: str, code: str) -> None:
    assert read_tls(tls) == [(field, code)]


def test_a_server_of_tcp_has_no_tls() -> None:
    assert read_tls("mode: SIMPLE, credentialName: c", "TCP") == [("", "combination")]
    assert read_tls("httpsRedirect: true", "TCP") == [("", "combination")]


@pytest.mark.parametrize("name", ["a/b/c", "/web", "web.demo", "web.demo.svc.cluster.local", "Web", "*/web"])
def test_what_names_no_gateway_is_refused(name: str) -> None:
    given = text(
        "VirtualService", f"{{hosts: ['*'], gateways: ['{name}'], http: [{{directResponse: {{status: 200}}}}]}}"
    )
    assert [problem.path for problem in parse_documents(given, "a.yaml").problems] == ["spec.gateways[0]"]


def test_an_ingress_gateway_is_open_from_its_first_proxy_to_its_last() -> None:
    hub = Hub(ControllerMetrics(), SessionLimits())
    told: list[str] = []
    hub.publish_routing = lambda: told.append("publish")
    hub.open_ingress = lambda ingress: told.append(f"open {ingress}")
    hub.close_ingress = lambda ingress: told.append(f"close {ingress}")
    node = ClientNode("router~x", "node-1", ingress=EDGE)
    with hub.connect("node-1", "a", 0.0) as first:
        hub.prepare(first, DeltaRequest(ADDRESS_TYPE, node))
        assert told == []
        hub.prepare(first, DeltaRequest(LISTENER_TYPE, node))
        hub.prepare(first, DeltaRequest(LISTENER_TYPE, node))
        assert told == ["publish", f"open {EDGE}"]
        with hub.connect("node-1", "b", 1.0) as second, hub.connect("node-1", "c", 2.0) as other:
            hub.prepare(second, DeltaRequest(LISTENER_TYPE, node))
            hub.prepare(other, DeltaRequest(LISTENER_TYPE, ClientNode("sidecar~x", "node-1")))
    assert told == ["publish", f"open {EDGE}", f"close {EDGE}"]
