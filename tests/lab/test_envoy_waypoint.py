"""The real Envoy as a waypoint in a lab: what is addressed to a service goes through it, by its routes, or nowhere."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import mesh
from tests.support.envoy_in_lab import running_gateway_proxy
from tests.support.mesh import Document, Mesh, eventually

WEB_PORT = 8080
GATEWAY_API = "gateway.networking.k8s.io/v1"
WAYPOINT = "spiffe://cluster.local/ns/shop/sa/waypoint"
CLIENT = "spiffe://cluster.local/ns/shop/sa/client"
PROXY_LABELS = {"gateway.networking.k8s.io/gateway-name": "waypoint"}


def web_pod(version: str) -> Document:
    """A web server whose page `name` is its version."""
    pod = mesh.pod(version, "shop", "node-2", "web", {"app": "web", "version": version})
    script = f"cd $(mktemp -d) && echo {version} > name && exec {mesh.PYTHON} -m http.server --bind :: {WEB_PORT}"
    server = {"name": "web", "command": ["sh", "-c", script], "ports": [{"containerPort": WEB_PORT}]}
    pod["spec"] = {"nodeName": "node-2", "serviceAccountName": "web", "containers": [server]}
    return pod


def web_service(name: str, selector: dict[str, str], *, waypoint: str = "") -> Document:
    service = mesh.service(name, "shop", selector, target=WEB_PORT)
    ports = [
        {"name": "http", "port": 80, "targetPort": WEB_PORT},
        {"name": "tcp-echo", "port": 7000, "targetPort": mesh.PORT},
    ]
    labels = {"istio.io/use-waypoint": waypoint} if waypoint else {}
    service["metadata"] = {"name": name, "namespace": "shop", "labels": labels}
    service["spec"] = {"selector": selector, "ports": ports}
    return service


GATEWAY: Document = {
    "apiVersion": GATEWAY_API,
    "kind": "Gateway",
    "metadata": {"name": "waypoint", "namespace": "shop"},
    "spec": {
        "gatewayClassName": "istio-waypoint",
        "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
    },
}
ROUTE: Document = {
    "apiVersion": GATEWAY_API,
    "kind": "HTTPRoute",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {
        "parentRefs": [{"group": "", "kind": "Service", "name": "web"}],
        "rules": [
            {
                "matches": [{"headers": [{"name": "x-version", "value": "v2"}]}],
                "backendRefs": [{"name": "v2", "port": 80}],
            },
            {"backendRefs": [{"name": "v1", "port": 80}]},
        ],
    },
}
OBJECTS = (
    mesh.namespace("shop"),
    mesh.pod("client", "shop", "node-1", "client"),
    mesh.pod("other", "shop", "node-1", "other"),
    mesh.pod("waypoint", "shop", "node-1", "waypoint", PROXY_LABELS),
    mesh.pod("edge", "shop", "node-1", "edge", {"gateway.networking.k8s.io/gateway-name": "edge"}),
    mesh.pod("echo", "shop", "node-2", "web", {"app": "echo"}),
    mesh.namespace("plain", meshed=False),
    mesh.pod("outside", "plain", "node-2", labels={"app": "outside"}),
    web_pod("v1"),
    web_pod("v2"),
    mesh.service("waypoint", "shop", PROXY_LABELS, 15008, 15008),
    web_service("web", {"app": "web"}, waypoint="waypoint"),
    web_service("echo", {"app": "echo"}, waypoint="waypoint"),
    web_service("v1", {"version": "v1"}),
    web_service("v2", {"version": "v2"}),
    GATEWAY,
    ROUTE,
)


@pytest.fixture(scope="module", name="meshed")
def standing_mesh() -> Iterator[Mesh]:
    with mesh.standing("waypoint", *OBJECTS) as standing:
        yield standing


@pytest.fixture(name="proxy", autouse=True)
def running_proxy(meshed: Mesh) -> Iterator[Path]:
    with running_gateway_proxy(meshed, "shop/waypoint", "waypoint", node=1) as log:
        assert eventually(lambda: ask(meshed) == "v1", 15), log.read_text()
        yield log


def ask(meshed: Mesh, host: str = "web", *headers: str) -> str:
    """The version of the server that answers the client; empty where none does."""
    options = [word for header in headers for word in ("--header", header)]
    done = meshed.lab.exec(
        "client", "curl", *mesh.CURL_OPTIONS, *options, f"http://{host}/name", namespace="shop", timeout=30
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def test_requests_go_by_their_routes_with_the_waypoints_identity(meshed: Mesh) -> None:
    near, far = len(meshed.access_lines("node-1")), len(meshed.access_lines("node-2"))
    assert ask(meshed, "web", "x-version: v2") == "v2"
    asked = meshed.wait_for_line(
        "node-1", lambda line: (line.direction, line.source_identity) == ("outbound", CLIENT), near
    )
    assert asked.destination_identity == WAYPOINT
    assert asked.destination_service == "web.shop.svc.cluster.local"
    served = meshed.wait_for_line("node-2", lambda line: line.destination_workload == "v2", far)
    assert (served.direction, served.source_identity, served.error) == ("inbound", WAYPOINT, "")


def test_bytes_go_through_it_as_they_are(meshed: Mesh) -> None:
    far = len(meshed.access_lines("node-2"))
    assert meshed.ask("shop/client", "echo", mesh.PORT) in meshed.pod("shop/waypoint").addresses
    assert meshed.wait_for_line("node-2", lambda line: line.destination_workload == "echo", far).source_identity == (
        WAYPOINT
    )


def test_a_service_that_asks_for_none_is_reached_directly(meshed: Mesh) -> None:
    far = len(meshed.access_lines("node-2"))
    assert ask(meshed, "v1") == "v1"
    line = meshed.wait_for_line("node-2", lambda line: line.source_identity == CLIENT, far)
    assert line.destination_workload == "v1"


def test_a_host_outside_of_the_mesh_is_reached_through_it(meshed: Mesh) -> None:
    entry: Document = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": "api", "namespace": "shop", "labels": {"istio.io/use-waypoint": "waypoint"}},
        "spec": {
            "hosts": ["api.example"],
            "resolution": "STATIC",
            "endpoints": [{"address": meshed.address("plain/outside")}],
            "ports": [{"number": 80, "name": "tcp", "protocol": "TCP", "targetPort": mesh.PORT}],
        },
    }
    with meshed.applied(entry):
        assert eventually(lambda: meshed.ask("shop/client", "api.example", 80) in meshed.pod("shop/waypoint").addresses)
        # The waypoint's own connection has a line of that service, too.
        asked = ("client", "api.example", "")
        line = meshed.wait_for_line(
            "node-1", lambda line: (line.source_workload, line.destination_service, line.error) == asked
        )
        assert line.destination_workload == "waypoint"


def networking(kind: str, name: str, spec: Document, labels: dict[str, str] | None = None) -> Document:
    metadata = {"name": name, "namespace": "shop", "labels": labels or {}}
    return {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


def api_entry(resolution: str, *endpoints: Document) -> Document:
    spec: Document = {
        "hosts": ["api.example"],
        "resolution": resolution,
        "endpoints": list(endpoints),
        "ports": [{"number": 80, "name": "http", "protocol": "HTTP", "targetPort": WEB_PORT}],
    }
    return networking("ServiceEntry", "api", spec, {"istio.io/use-waypoint": "waypoint"})


def test_requests_to_a_host_outside_follow_its_routes_and_subsets(meshed: Mesh) -> None:
    versions = ("v1", "v2")
    endpoints: list[Document] = [
        {"address": meshed.address(f"shop/{each}"), "labels": {"version": each}} for each in versions
    ]
    subsets = [{"name": each, "labels": {"version": each}} for each in versions]
    to = {each: [{"destination": {"host": "api.example", "subset": each}}] for each in versions}
    marked = {"match": [{"headers": {"x-version": {"exact": "v2"}}}], "route": to["v2"]}
    rules = (
        networking("DestinationRule", "api", {"host": "api.example", "subsets": subsets}),
        networking("VirtualService", "api", {"hosts": ["api.example"], "http": [marked, {"route": to["v1"]}]}),
    )
    with meshed.applied(api_entry("STATIC", *endpoints)):
        assert eventually(lambda: {ask(meshed, "api.example", "x-version: v2") for _ in range(9)} == set(versions))
        with meshed.applied(*rules):
            assert eventually(lambda: {ask(meshed, "api.example", "x-version: v2") for _ in range(9)} == {"v2"})
            assert {ask(meshed, "api.example") for _ in range(9)} == {"v1"}


def test_a_host_outside_is_resolved_by_its_endpoints_name(meshed: Mesh) -> None:
    endpoint: Document = {"address": "v2.shop.svc.cluster.local", "ports": {"http": 80}}
    header = {"headers": {"response": {"set": {"x-through": "waypoint"}}}}
    rule: Document = {**header, "route": [{"destination": {"host": "api.example"}}]}
    routes = networking("VirtualService", "api", {"hosts": ["api.example"], "http": [rule]})
    options = ("--silent", "--max-time", "5", "--head", "http://api.example/name")
    with meshed.applied(api_entry("DNS", endpoint), routes):

        def heads() -> str:
            return meshed.lab.exec("client", "curl", *options, namespace="shop", timeout=30).stdout

        assert eventually(lambda: "x-through: waypoint" in heads() and "200 OK" in heads(), 15)
        assert ask(meshed, "api.example") == "v2"


def test_a_host_that_is_its_own_endpoint_is_the_ztunnels_to_resolve(meshed: Mesh) -> None:
    """Its port is another than the endpoint's, which only the ztunnel behind the waypoint knows."""
    host = "outside.plain.svc.cluster.local"
    ports = [{"number": 80, "name": "tcp", "protocol": "TCP", "targetPort": mesh.PORT}]
    spec: Document = {"hosts": [host], "resolution": "DNS", "ports": ports, "exportTo": ["."]}
    entry = networking("ServiceEntry", "outside", spec, {"istio.io/use-waypoint": "waypoint"})
    pool: Document = {"connectionPool": {"tcp": {"connectTimeout": "5s"}}}
    rule = networking("DestinationRule", "outside", {"host": host, "trafficPolicy": pool})
    service = mesh.service("outside", "plain", {"app": "outside"}, mesh.PORT, mesh.PORT)
    with meshed.applied(service, entry, rule):
        through = meshed.pod("shop/waypoint").addresses
        assert eventually(lambda: meshed.ask("shop/client", host, 80) in through, 15)


def test_pods_may_be_reached_through_it_by_their_addresses(meshed: Mesh) -> None:
    address = meshed.address("shop/echo")
    assert meshed.ask("shop/client", address) in meshed.pod("shop/client").addresses
    labels = {"istio.io/waypoint-for": "all"}
    metadata = {"name": "waypoint", "namespace": "shop", "labels": labels}
    owner: Document = {
        "name": "shop",
        "labels": {"istio.io/dataplane-mode": "ambient", "istio.io/use-waypoint": "waypoint"},
    }
    wider: Document = {"apiVersion": "v1", "kind": "Namespace", "metadata": owner}
    meshed.lab.apply(mesh.source({**GATEWAY, "metadata": metadata}, wider))
    try:
        assert eventually(lambda: meshed.ask("shop/client", address) in meshed.pod("shop/waypoint").addresses)
    finally:
        meshed.lab.apply(mesh.source(GATEWAY, mesh.namespace("shop")))
    assert eventually(lambda: meshed.ask("shop/client", address) in meshed.pod("shop/client").addresses)


def authorization(name: str, service: str, action: str, *rules: Document) -> Document:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"targetRefs": [{"kind": "Service", "name": service}], "action": action, "rules": list(rules)},
    }


def status(meshed: Mesh, client: str = "client", method: str = "GET") -> str:
    """The status that the Service `web` answers with; 000 where nobody does."""
    options = ("--silent", "--output", "/dev/null", "--max-time", "5", "--request", method)
    command = ("curl", *options, "--write-out", "%{http_code}", "http://web/name")
    return meshed.lab.exec(client, *command, namespace="shop", timeout=30).stdout


def test_policies_of_requests_are_enforced_for_each_client(meshed: Mesh) -> None:
    client, get = {"principals": ["cluster.local/ns/shop/sa/client"]}, {"operation": {"methods": ["GET"]}}
    allow = authorization(
        "readers", "web", "ALLOW", {"from": [{"source": client}], "to": [{"operation": {"methods": ["GET"]}}]}
    )
    assert status(meshed, "other") == "200"
    with meshed.applied(allow):
        assert eventually(lambda: status(meshed, "other") == "403")
        assert (status(meshed), status(meshed, method="PUT")) == ("200", "403")
        with meshed.applied(authorization("nobody", "web", "DENY", {"to": [get]})):
            assert eventually(lambda: status(meshed) == "403")
    assert eventually(lambda: status(meshed, "other") == "200")


def test_policies_are_enforced_for_bytes_too(meshed: Mesh) -> None:
    def reaches(client: str) -> bool:
        return meshed.ask(f"shop/{client}", "echo", mesh.PORT) in meshed.pod("shop/waypoint").addresses

    other = {"principals": ["cluster.local/ns/shop/sa/other"]}
    assert reaches("other")
    with meshed.applied(authorization("others", "echo", "DENY", {"from": [{"source": other}]})):
        assert eventually(lambda: not reaches("other"))
        assert reaches("client")
    assert eventually(lambda: reaches("other"))


def test_a_route_that_changes_is_followed(meshed: Mesh) -> None:
    rules: Document = {"parentRefs": [{"group": "", "kind": "Service", "name": "web"}]}
    meshed.lab.apply(
        mesh.source({**ROUTE, "spec": {**rules, "rules": [{"backendRefs": [{"name": "v2", "port": 80}]}]}})
    )
    try:
        assert eventually(lambda: ask(meshed) == "v2")
    finally:
        meshed.lab.apply(mesh.source(ROUTE))
    assert eventually(lambda: ask(meshed) == "v1")


def test_without_its_waypoint_a_service_is_not_reached(meshed: Mesh) -> None:
    meshed.lab.delete(mesh.source(GATEWAY))
    try:
        assert eventually(lambda: ask(meshed) == "")
        before = len(meshed.access_lines("node-1"))
        assert ask(meshed) == ""
        line = meshed.wait_for_line("node-1", lambda line: bool(line.error), before)
        assert "refused.waypoint.shop.svc.cluster.local" in line.error
        assert ask(meshed, "v1") == "v1"
    finally:
        meshed.lab.apply(mesh.source(GATEWAY))
    assert eventually(lambda: ask(meshed) == "v1", 15)


EDGE: Document = {
    "apiVersion": GATEWAY_API,
    "kind": "Gateway",
    "metadata": {"name": "edge", "namespace": "shop"},
    "spec": {"gatewayClassName": "ambit", "listeners": [{"name": "http", "port": WEB_PORT, "protocol": "HTTP"}]},
}
TO_WEB: Document = {
    "apiVersion": GATEWAY_API,
    "kind": "HTTPRoute",
    "metadata": {"name": "edge", "namespace": "shop"},
    "spec": {"parentRefs": [{"name": "edge"}], "rules": [{"backendRefs": [{"name": "web", "port": 80}]}]},
}


def ask_edge(meshed: Mesh) -> str:
    """The version of the server that answers the client through the gateway, or the status where none does."""
    url = f"http://{meshed.address('shop/edge')}:{WEB_PORT}/name"
    command = ("curl", "--silent", "--max-time", "5", "--write-out", "\n%{http_code}", url)
    body, _, code = meshed.lab.exec("client", *command, namespace="shop", timeout=30).stdout.rpartition("\n")
    return body.strip() if code == "200" else code


def test_a_gateway_goes_through_it_where_it_is_told_to(meshed: Mesh) -> None:
    """Its routes lead to both versions, and the waypoint's to the first.

    Each request has a connection of its own, for which what was changed counts at once.
    """
    labels = {"istio.io/use-waypoint": "waypoint", "istio.io/ingress-use-waypoint": "true"}
    gated = web_service("web", {"app": "web"})
    gated["metadata"] = {"name": "web", "namespace": "shop", "labels": labels}
    nobody = authorization("nobody", "web", "DENY", {"to": [{"operation": {"paths": ["/name"]}}]})
    own: Document = {"connectionPool": {"http": {"maxRequestsPerConnection": 1}}}
    rule = networking("DestinationRule", "web", {"host": "web", "trafficPolicy": own})
    with meshed.applied(EDGE, TO_WEB, rule), running_gateway_proxy(meshed, "shop/edge", "edge", node=1) as log:
        assert eventually(lambda: ask_edge(meshed) in ("v1", "v2"), 20), log.read_text()
        assert eventually(lambda: ask_edge(meshed) == "v2"), "round the waypoint"
        meshed.lab.apply(mesh.source(gated))
        try:
            assert eventually(lambda: {ask_edge(meshed) for _ in range(10)} == {"v1"}, 20), log.read_text()
            with meshed.applied(nobody):
                assert eventually(lambda: ask_edge(meshed) == "403")
            assert eventually(lambda: ask_edge(meshed) == "v1")
        finally:
            meshed.lab.apply(mesh.source(web_service("web", {"app": "web"}, waypoint="waypoint")))
        assert eventually(lambda: ask_edge(meshed) == "v2", 20)
