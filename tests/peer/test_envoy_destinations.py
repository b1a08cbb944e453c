"""Where a real Envoy's requests lead beside Services: hosts of ServiceEntries, over TLS, and what is near."""

import ssl
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from ambit.demo.polling import wait_for
from tests.support.controller_process import PATIENCE_SECONDS, ControllerProcess
from tests.support.envoy_proxy import Envoy, WebAnswer, ask, run_gateway
from tests.support.free_ports import find_free_port
from tests.support.mesh_certificates import Authority, issue, make_authority
from tests.support.texts import text_of
from tests.support.web_backends import serve_web

GATEWAY_API, ISTIO = "gateway.networking.k8s.io/v1", "networking.istio.io/v1"
HOST = "api.example.com"


@dataclass(slots=True)
class World:
    """A controller and an Envoy of the Gateway `web`, whose one route leads to port 80 of HOST."""

    controller: ControllerProcess
    envoy: Envoy
    port: int
    folder: Path
    stack: ExitStack

    def ask(self, **headers: str) -> WebAnswer:
        return ask(self.port, **headers)

    def ask_until(self, status: int, server: str = "") -> WebAnswer:
        """Ask until such an answer comes; fails when it never does."""

        def comes() -> bool:
            try:
                answer = self.ask()
            except OSError:
                return False
            return (answer.status, answer.server) == (status, server)

        assert wait_for(comes, PATIENCE_SECONDS), self.envoy.log_file.read_text()
        return self.ask()


def entry_text(rest: str, ports: str = "{number: 80, name: http, protocol: HTTP}") -> str:
    return text_of(ISTIO, "ServiceEntry", "api", f"spec: {{hosts: [{HOST}], ports: [{ports}], {rest}}}")


def rule_text(policy: str) -> str:
    return text_of(ISTIO, "DestinationRule", "api", f"spec: {{host: {HOST}, trafficPolicy: {{{policy}}}}}")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        controller = ControllerProcess(tmp_path)
        port = find_free_port()
        listeners = f"[{{name: http, port: {port}, protocol: HTTP}}]"
        backend = f"{{group: networking.istio.io, kind: Hostname, name: {HOST}, port: 80}}"
        controller.write(
            "gateway.yaml",
            text_of(GATEWAY_API, "Gateway", "web", f"spec: {{gatewayClassName: ambit, listeners: {listeners}}}")
            + text_of(
                GATEWAY_API,
                "HTTPRoute",
                "web",
                f"spec: {{parentRefs: [{{name: web}}], rules: [{{backendRefs: [{backend}]}}]}}",
            ),
        )
        controller.start()
        stack.callback(controller.stop)
        envoy = stack.enter_context(run_gateway(controller, tmp_path, "web"))
        made = World(controller, envoy, port, tmp_path, stack)
        made.ask_until(500)  # the host is nobody's yet
        yield made
        assert envoy.refusals() == []


def test_a_host_is_reached_by_addresses_or_by_name_and_ends_with_its_entry(world: World) -> None:
    one = world.stack.enter_context(serve_web("one", "127.0.3.1"))
    two = world.stack.enter_context(serve_web("two", "127.0.0.1"))
    ports = f"{{number: 80, name: http, protocol: HTTP, targetPort: {one.port}}}"
    world.controller.write("api.yaml", entry_text("resolution: STATIC, endpoints: [{address: 127.0.3.1}]", ports))
    world.ask_until(200, "one")
    named = f"resolution: DNS, endpoints: [{{address: localhost, ports: {{http: {two.port}}}}}]"
    world.controller.write("api.yaml", entry_text(named))
    world.ask_until(200, "two")
    world.controller.write("api.yaml", entry_text(named.replace("DNS", "DNS_ROUND_ROBIN")))

    def dials_one_address() -> bool:
        return "LOGICAL_DNS" in world.envoy.fetch("/config_dump?resource=dynamic_active_clusters")

    assert wait_for(dials_one_address, PATIENCE_SECONDS)
    assert world.ask().server == "two"
    world.controller.remove("api.yaml")
    world.ask_until(500)


@dataclass(frozen=True, slots=True)
class Files:
    """Those of an authority that the server's certificate is from, and of a client's certificate."""

    roots: Path
    certificate: Path
    key: Path


def write_files(folder: Path, authority: Authority, name: str, *identities: str) -> Files:
    files = Files(folder / f"{name}-roots.pem", folder / f"{name}.pem", folder / f"{name}-key.pem")
    credentials = issue(authority, *identities)
    files.roots.write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    files.certificate.write_text(credentials.certificate)
    files.key.write_text(credentials.key)
    return files


def build_server_context(files: Files, *, asks_client: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(files.certificate, files.key)
    if asks_client:
        context.load_verify_locations(files.roots)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_tls_is_spoken_to_whom_the_certificate_is_for_and_to_nobody_else(world: World) -> None:
    authority = make_authority("outside")
    server = write_files(world.folder, authority, "server", HOST)
    context = build_server_context(server, asks_client=False)
    backend = world.stack.enter_context(serve_web("secure", "127.0.3.1", tls=context))
    ports = f"{{number: 80, name: http, protocol: HTTP, targetPort: {backend.port}}}"
    world.controller.write("api.yaml", entry_text("resolution: STATIC, endpoints: [{address: 127.0.3.1}]", ports))
    world.ask_until(503)  # which wants TLS
    world.controller.write("rule.yaml", rule_text(f"tls: {{mode: SIMPLE, caCertificates: {server.roots}}}"))
    answer = world.ask_until(200, "secure")
    assert answer.said["tls"] == {"version": "TLSv1.3", "client": []}
    other = write_files(world.folder, make_authority("another"), "other")
    for tls in (
        f"mode: SIMPLE, caCertificates: {other.roots}",
        f"mode: SIMPLE, caCertificates: {server.roots}, subjectAltNames: [other.example.com]",
        f"mode: SIMPLE, caCertificates: {server.roots}, sni: other.example.com",
    ):
        world.controller.write("rule.yaml", rule_text(f"tls: {{{tls}}}"))
        world.ask_until(503)
        world.controller.write("rule.yaml", rule_text("tls: {mode: SIMPLE, insecureSkipVerify: true}"))
        world.ask_until(200, "secure")


def test_a_certificate_is_shown_to_who_asks_for_one(world: World) -> None:
    authority = make_authority("outside")
    server = write_files(world.folder, authority, "server", HOST)
    context = build_server_context(server, asks_client=True)
    backend = world.stack.enter_context(serve_web("secure", "127.0.3.1", tls=context))
    ports = f"{{number: 80, name: http, protocol: HTTP, targetPort: {backend.port}}}"
    world.controller.write("api.yaml", entry_text("resolution: STATIC, endpoints: [{address: 127.0.3.1}]", ports))
    world.controller.write("rule.yaml", rule_text(f"tls: {{mode: SIMPLE, caCertificates: {server.roots}}}"))
    world.ask_until(503)
    client = write_files(world.folder, authority, "client", "spiffe://example.com/client")
    tls = f"mode: MUTUAL, caCertificates: {server.roots}, clientCertificate: {client.certificate}"
    world.controller.write("rule.yaml", rule_text(f"tls: {{{tls}, privateKey: {client.key}}}"))
    answer = world.ask_until(200, "secure")
    assert answer.said["tls"] == {"version": "TLSv1.3", "client": [["URI", "spiffe://example.com/client"]]}


def locality_rule(setting: str = "") -> str:
    """Fails over at the first error, and takes an endpoint back after a second."""
    outliers = "consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 60s, maxEjectionPercent: 100"
    balancer = f"loadBalancer: {{simple: ROUND_ROBIN, localityLbSetting: {{{setting}}}}}"
    return rule_text(f"outlierDetection: {{{outliers}}}, {balancer}")


def node_text(region: str, zone: str) -> str:
    labels = f"topology.kubernetes.io/region: {region}, topology.kubernetes.io/zone: {zone}"
    return f"{{apiVersion: v1, kind: Node, metadata: {{name: node-1, labels: {{{labels}}}}}}}\n---\n"


def servers_of(world: World, count: int = 40) -> Counter[str]:
    return Counter(answer.server or str(answer.status) for answer in (world.ask() for _ in range(count)))


def test_requests_stay_near_and_go_further_as_who_is_near_dies(world: World) -> None:
    near, zone, far = (ExitStack() for _ in range(3))
    port = near.enter_context(serve_web("near", "127.0.3.1")).port
    zone.enter_context(serve_web("other-zone", "127.0.3.2", port))
    far.enter_context(serve_web("other-region", "127.0.3.3", port))
    with near, zone, far:
        places = {"127.0.3.1": "north/a", "127.0.3.2": "north/b", "127.0.3.3": "south/a"}
        endpoints = ", ".join(f"{{address: {address}, locality: {place}}}" for address, place in places.items())
        ports = f"{{number: 80, name: http, protocol: HTTP, targetPort: {port}}}"
        world.controller.write("api.yaml", entry_text(f"resolution: STATIC, endpoints: [{endpoints}]", ports))
        everybody = {"near", "other-zone", "other-region"}
        assert wait_for(lambda: set(servers_of(world)) == everybody, PATIENCE_SECONDS)
        world.controller.write("rule.yaml", locality_rule())
        assert set(servers_of(world)) == everybody, "nobody knows where the proxy stands"
        # The proxy is connected already: it is told anew when its node has a place.
        world.controller.write("node.yaml", node_text("north", "a"))
        assert wait_for(lambda: set(servers_of(world)) == {"near"}, PATIENCE_SECONDS)
        world.controller.write("node.yaml", node_text("south", "a"))
        assert wait_for(lambda: set(servers_of(world)) == {"other-region"}, PATIENCE_SECONDS)
        world.controller.write("node.yaml", node_text("north", "a"))
        assert wait_for(lambda: set(servers_of(world)) == {"near"}, PATIENCE_SECONDS)
        shares = "distribute: [{from: north/a, to: {north/a: 70, south/a: 30}}]"
        world.controller.write("rule.yaml", locality_rule(shares))
        assert wait_for(lambda: set(servers_of(world)) == {"near", "other-region"}, PATIENCE_SECONDS)
        counted = servers_of(world, 400)
        assert 75 <= counted["other-region"] <= 165, counted  # five standard deviations around 120
        world.controller.write("rule.yaml", locality_rule())
        assert wait_for(lambda: set(servers_of(world)) == {"near"}, PATIENCE_SECONDS)
        near.close()
        assert wait_for(lambda: set(servers_of(world)) == {"other-zone"}, PATIENCE_SECONDS)
        zone.close()
        assert wait_for(lambda: set(servers_of(world)) == {"other-region"}, PATIENCE_SECONDS)
