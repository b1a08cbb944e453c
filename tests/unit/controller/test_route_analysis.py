"""Each check of routes fires on what is wrong, and is silent about its healthy neighbour."""

import pytest

from controller.analysis.report import analyze_texts
from tests.support.mesh_certificates import issue_server, make_authority
from tests.support.secrets import ingress_pod_text, secret_text

GATEWAY_API = "gateway.networking.k8s.io/v1"
ISTIO = "networking.istio.io/v1"


def made(kind: str, spec: str, name: str, version: str = ISTIO, place: str = "demo") -> str:
    return (
        f"{{apiVersion: {version}, kind: {kind}, metadata: {{name: {name}, namespace: {place}}}, spec: {spec}}}\n---\n"
    )


def service(name: str = "s", place: str = "demo") -> str:
    return made("Service", "{selector: {app: web}, ports: [{port: 80}]}", name, "v1", place)


def gateway(listeners: str = "{name: http, port: 80, protocol: HTTP}", owner: str = "ambit") -> str:
    return made("Gateway", f"{{gatewayClassName: {owner}, listeners: [{listeners}]}}", "web", GATEWAY_API)


def route(parent: str = "{name: web}", backend: str = "{name: s, port: 80}", place: str = "demo") -> str:
    spec = f"{{parentRefs: [{parent}], rules: [{{backendRefs: [{backend}]}}]}}"
    return made("HTTPRoute", spec, "r", GATEWAY_API, place)


def virtual_service(host: str = "s", destination: str = "host: s", place: str = "demo") -> str:
    spec = f"{{hosts: [{host}], http: [{{route: [{{destination: {{{destination}}}}}]}}]}}"
    return made("VirtualService", spec, "v", place=place)


def near(rest: str = "") -> str:
    balancer = "loadBalancer: {localityLbSetting: {enabled: true}}"
    return made("DestinationRule", f"{{host: api.example.com, trafficPolicy: {{{balancer}, {rest}}}}}", "d")


def delegating(match: str = "") -> str:
    return made("VirtualService", f"{{hosts: [s], http: [{{{match}delegate: {{name: d}}}}]}}", "v")


DELEGATE = made("VirtualService", "{http: [{match: [{uri: {prefix: /a}}], route: [{destination: {host: s}}]}]}", "d")


def rule(host: str = "s", labels: str = "version: v1") -> str:
    return made("DestinationRule", f"{{host: {host}, subsets: [{{name: v1, labels: {{{labels}}}}}]}}", "d")


def istio_gateway(host: str = "'*'", rest: str = "", place: str = "demo") -> str:
    server = f"{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: [{host}], {rest}}}"
    return made("Gateway", f"{{selector: {{istio: ingress}}, servers: [{server}]}}", "edge", place=place)


def tls_server(mode: str = "SIMPLE", name: str = "edge", port: int = 443, protocol: str = "HTTPS") -> str:
    """An Istio Gateway with one server; of protocol TCP it says nothing of TLS."""
    credential = "" if mode == "PASSTHROUGH" else ", credentialName: c"
    tls = "" if protocol == "TCP" else f", tls: {{mode: {mode}{credential}}}"
    server = f"{{port: {{number: {port}, name: x, protocol: {protocol}}}, hosts: [www.test]{tls}}}"
    return made("Gateway", f"{{selector: {{istio: ingress}}, servers: [{server}]}}", name)


EDGE_POD = ingress_pod_text({"istio": "ingress"}, "node-1")
EDGE_SECRET = secret_text("c", issue_server(make_authority("test"), "www.test"), "istio-system")


def bound(host: str, gateways: str = "edge", name: str = "b", rule: str = "route: [{destination: {host: s}}]") -> str:
    return made("VirtualService", f"{{hosts: [{host}], gateways: [{gateways}], http: [{{{rule}}}]}}", name)


POD = (
    "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: demo, labels: {app: web, version: v1}}, "
    "spec: {containers: [{name: c}]}}\n---\n"
)
ENTRY = made("ServiceEntry", "{hosts: [api.example.com], resolution: DNS, ports: [{number: 80, name: http}]}", "e")
PRIVATE = ENTRY.replace("namespace: demo", "namespace: other").replace("resolution", "exportTo: [.], resolution")
PASSING = ENTRY.replace("resolution: DNS", "addresses: [192.0.2.1]")
HOSTNAME = "{group: networking.istio.io, kind: Hostname, name: api.example.com"
WAYPOINT = made(
    "Gateway",
    "{gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}",
    "waypoint",
    GATEWAY_API,
)
ASKING_POD = POD.replace("app: web", "app: web, istio.io/use-waypoint: waypoint")


def labelled(waypoint: str) -> str:
    """The Service `s`, which asks for a waypoint."""
    return service().replace("name: s,", f"name: s, labels: {{istio.io/use-waypoint: {waypoint}}},")


WITHOUT_WAYPOINT = "route-without-waypoint"


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        pytest.param(gateway() + service() + route(), [], id="healthy"),
        pytest.param(
            gateway() + service() + route("{name: other}"),
            ["route-not-attached", "gateway-without-routes"],
            id="parent",
        ),
        pytest.param(
            gateway() + service() + route("{name: web, sectionName: x}"), ["route-not-attached"], id="section"
        ),
        pytest.param(gateway() + route(), ["route-backend-missing"], id="backend"),
        pytest.param(
            gateway() + service() + route(backend="{name: s, port: 81}"), ["route-backend-missing"], id="port"
        ),
        pytest.param(
            gateway() + service(place="other") + route(backend="{name: s, namespace: other, port: 80}"),
            ["route-backend-missing"],
            id="no-grant",
        ),
        pytest.param(gateway(), ["gateway-without-routes"], id="gateway"),
        pytest.param(gateway(owner="theirs"), [], id="gateway-of-others"),
        pytest.param(
            gateway("{name: a, port: 80, protocol: HTTP}, {name: tls, port: 443, protocol: UDP}") + service() + route(),
            ["listener-not-served"],
            id="listener",
        ),
        pytest.param(service() + route("{group: '', kind: Service, name: s}"), [WITHOUT_WAYPOINT], id="of-a-service"),
        pytest.param(
            WAYPOINT + service("waypoint") + labelled("waypoint") + route("{group: '', kind: Service, name: s}"),
            [],
            id="with-a-waypoint",
        ),
        pytest.param(labelled("waypoint"), ["waypoint-unusable"], id="no-such-waypoint"),
        pytest.param(
            WAYPOINT + service("waypoint") + ASKING_POD, ["waypoint-unusable"], id="a-waypoint-that-is-not-for-pods"
        ),
        pytest.param(
            "{apiVersion: v1, kind: Namespace, metadata: {name: demo, labels: {istio.io/use-waypoint: other}}}\n---\n",
            ["waypoint-unusable"],
            id="a-namespace-without-its-waypoint",
        ),
        pytest.param(WAYPOINT, ["waypoint-without-service"], id="a-waypoint-without-service"),
        pytest.param(service() + virtual_service(), [WITHOUT_WAYPOINT], id="virtual-service"),
        pytest.param(service() + virtual_service("t"), ["virtual-service-host-unknown"], id="host"),
        pytest.param(
            service() + virtual_service("s.demo.svc.cluster.local", "host: s.demo.svc.cluster.local", "other"),
            ["virtual-service-host-unknown"],
            id="host-of-another-namespace",
        ),
        pytest.param(
            ENTRY + virtual_service("api.example.com", "host: api.example.com"), [WITHOUT_WAYPOINT], id="entry"
        ),
        pytest.param(
            ENTRY.replace("namespace: demo", "namespace: other")
            + virtual_service("api.example.com", "host: api.example.com"),
            ["virtual-service-host-unknown"],
            id="entry-of-another-namespace",
        ),
        pytest.param(
            service() + PRIVATE + virtual_service(destination="host: api.example.com"),
            [WITHOUT_WAYPOINT, "route-backend-missing"],
            id="to-a-host-that-is-not-seen",
        ),
        pytest.param(
            service() + PASSING + virtual_service(destination="host: api.example.com"),
            [WITHOUT_WAYPOINT, "route-backend-missing"],
            id="to-where-only-clients-know",
        ),
        pytest.param(
            PASSING + virtual_service("api.example.com", "host: api.example.com"),
            [WITHOUT_WAYPOINT],
            id="to-where-its-own-clients-know",
        ),
        pytest.param(service() + delegating() + DELEGATE, [WITHOUT_WAYPOINT], id="delegate"),
        pytest.param(service() + delegating(), [WITHOUT_WAYPOINT, "delegate-missing"], id="no-delegate"),
        pytest.param(
            service() + delegating() + DELEGATE.replace("namespace: demo", "namespace: other"),
            [WITHOUT_WAYPOINT, "delegate-missing", "delegate-unused", "route-backend-missing"],
            id="delegate-of-another-namespace",
        ),
        pytest.param(
            service() + delegating(match="match: [{uri: {prefix: /b}}], ") + DELEGATE,
            [WITHOUT_WAYPOINT, "delegate-conflict"],
            id="delegate-outside-of-the-roots-match",
        ),
        pytest.param(
            service() + made("VirtualService", "{hosts: [s], tcp: [{route: [{destination: {host: t}}]}]}", "v"),
            [WITHOUT_WAYPOINT, "route-backend-missing"],
            id="bytes-to-nobody",
        ),
        pytest.param(ENTRY + rule("api.example.com"), [], id="rule-for-an-entry"),
        pytest.param(ENTRY + rule("'*.example.com'"), [], id="rule-for-several"),
        pytest.param(ENTRY + near(), ["locality-without-outliers"], id="near-without-outliers"),
        pytest.param(ENTRY + near("outlierDetection: {}"), [], id="near"),
        pytest.param(service() + rule("'*'"), [], id="rule-for-all"),
        pytest.param(service() + rule("'*.example.com'"), ["destination-rule-host-unknown"], id="rule-for-none"),
        pytest.param(
            PRIVATE + rule("api.example.com"), ["destination-rule-host-unknown"], id="rule-for-anothers-entry"
        ),
        pytest.param(ENTRY + gateway() + route(backend=f"{HOSTNAME}, port: 80}}"), [], id="a-host-as-backend"),
        pytest.param(
            ENTRY + gateway() + route(backend=f"{HOSTNAME}, port: 81}}"), ["route-backend-missing"], id="its-port"
        ),
        pytest.param(
            PRIVATE + gateway() + route(backend=f"{HOSTNAME}, port: 80}}"), ["route-backend-missing"], id="not-seen"
        ),
        pytest.param(
            service() + virtual_service() + route("{group: '', kind: Service, name: s}"),
            [WITHOUT_WAYPOINT, "virtual-service-shadowed"],
            id="shadowed",
        ),
        pytest.param(
            service() + virtual_service(destination="host: t"), [WITHOUT_WAYPOINT, "route-backend-missing"], id="to"
        ),
        pytest.param(
            service() + virtual_service(destination="host: s, subset: v1"),
            [WITHOUT_WAYPOINT, "subset-undefined"],
            id="subset",
        ),
        pytest.param(
            service() + rule() + virtual_service(destination="host: s, subset: v1"),
            [WITHOUT_WAYPOINT],
            id="subset-defined",
        ),
        pytest.param(service() + istio_gateway() + bound("www.test"), [], id="bound"),
        pytest.param(
            service() + istio_gateway(place="other") + bound("www.test, s", "other/edge, mesh"),
            [WITHOUT_WAYPOINT],
            id="bound-and-for-the-mesh",
        ),
        pytest.param(
            service() + istio_gateway() + bound("www.test", "other/edge"),
            ["virtual-service-gateway-unknown", "gateway-without-routes"],
            id="bound-to-nothing",
        ),
        pytest.param(
            service() + gateway() + route() + bound("www.test", "web"),
            ["virtual-service-gateway-unknown"],
            id="bound-to-gateway-api",
        ),
        pytest.param(
            service() + istio_gateway("'*.example.com'") + bound("www.test"),
            ["virtual-service-host-not-at-gateway"],
            id="host-not-at-gateway",
        ),
        pytest.param(
            service() + istio_gateway("other/www.test") + bound("www.test"),
            ["virtual-service-host-not-at-gateway"],
            id="host-for-another-namespace",
        ),
        pytest.param(istio_gateway(), ["gateway-without-routes"], id="istio-gateway"),
        pytest.param(istio_gateway(rest="tls: {httpsRedirect: true}"), [], id="only-redirects"),
        pytest.param(
            service() + istio_gateway() + bound("www.test") + bound("www.test", name="c"),
            ["virtual-service-host-twice"],
            id="host-twice",
        ),
        pytest.param(
            service()
            + istio_gateway()
            + bound("www.test")
            + bound("www.test", name="c", rule="match: [{uri: {prefix: /c}}], directResponse: {status: 204}"),
            [],
            id="host-shared",
        ),
        pytest.param(service() + EDGE_POD + EDGE_SECRET + tls_server() + bound("www.test"), [], id="tls"),
        pytest.param(service() + EDGE_SECRET + tls_server() + bound("www.test"), [], id="tls-at-unknown-proxies"),
        pytest.param(
            service() + EDGE_POD + tls_server() + bound("www.test"), ["certificate-missing"], id="no-certificate"
        ),
        pytest.param(
            service() + tls_server() + bound("www.test"), ["certificate-missing"], id="no-certificate-anywhere"
        ),
        pytest.param(
            service() + EDGE_POD + EDGE_SECRET + tls_server("MUTUAL") + bound("www.test"),
            ["certificate-missing"],
            id="no-authorities",
        ),
        pytest.param(
            service() + POD + EDGE_SECRET + tls_server() + bound("www.test"),
            ["certificate-without-proxy"],
            id="no-proxy",
        ),
        pytest.param(
            service()
            + EDGE_POD
            + EDGE_SECRET
            + tls_server()
            + tls_server(name="late")
            + bound("www.test", "edge, late"),
            ["server-not-served"],
            id="names-taken",
        ),
        pytest.param(
            service()
            + EDGE_POD
            + EDGE_SECRET
            + tls_server(port=80)
            + tls_server(name="late", port=80, protocol="TCP")
            + bound("www.test", "edge, late"),
            ["server-not-served"],
            id="port-taken",
        ),
        pytest.param(
            service() + EDGE_POD + EDGE_SECRET + tls_server("PASSTHROUGH") + bound("www.test"),
            ["server-without-rules"],
            id="no-tls-rules",
        ),
        pytest.param(
            service() + EDGE_POD + EDGE_SECRET + tls_server(protocol="TLS") + bound("www.test"),
            ["server-without-rules"],
            id="no-tcp-rules",
        ),
        pytest.param(POD + service() + rule(), [], id="rule"),
        pytest.param(POD + service() + rule(labels="version: v2"), ["subset-matches-nothing"], id="labels"),
        pytest.param(rule("t"), ["destination-rule-host-unknown"], id="rule-host"),
    ],
)
def test_a_check_of_routes_reports_just_this(text: str, codes: list[str]) -> None:
    report = analyze_texts({"mesh.yaml": text})
    found = [entry.code for entry in report.entries if entry.code != "service-selector-matches-nothing"]
    assert sorted(found) == sorted(codes), [entry.message for entry in report.entries]


def test_the_mistake_of_the_fourth_seed_is_named_with_its_line() -> None:
    """A subset that is not defined: Istio takes it, and requests fail."""
    text = service("web-service") + (
        "apiVersion: networking.istio.io/v1beta1\n"
        "kind: VirtualService\n"
        "metadata: {name: web-canary, namespace: demo}\n"
        "spec:\n"
        "  hosts: [web-service]\n"
        "  http:\n"
        "  - route:\n"
        "    - destination:\n"
        "        host: web-service\n"
        "        subset: v1\n"
    )
    [found] = [each for each in analyze_texts({"mesh.yaml": text}).entries if each.code == "subset-undefined"]
    assert found.field == "spec.http[0].route[0].destination.subset"
    assert text.splitlines()[found.line - 1].strip() == "subset: v1"
