"""Connections that a Gateway sends on as they are, by the real Envoy: by weight, and by the server's name."""

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from ambit.demo.polling import wait_for
from tests.support.asking import asking
from tests.support.controller_process import PATIENCE_SECONDS, ControllerProcess
from tests.support.envoy_proxy import Envoy, run_gateway
from tests.support.free_ports import find_free_port
from tests.support.greeters import greet, hear_greeting
from tests.support.mesh_certificates import issue_server, make_authority
from tests.support.secrets import gateway_pod_text, secret_text
from tests.support.texts import pod_text, service_text, text_of

GATEWAY_API = "gateway.networking.k8s.io/v1"


@dataclass(slots=True)
class World:
    """A controller, an Envoy of the Gateway `web`, and two pairs of servers, plain (`v1`, `v2`) and with TLS."""

    controller: ControllerProcess
    envoy: Envoy
    root: Path
    tcp_port: int
    tls_port: int
    ended_port: int

    def route(self, kind: str, name: str, listener: str, backends: str, hosts: str = "") -> None:
        names = f"hostnames: [{hosts}], " if hosts else ""
        spec = (
            f"{{parentRefs: [{{name: web, sectionName: {listener}}}], {names}rules: [{{backendRefs: [{backends}]}}]}}"
        )
        self.controller.write(f"{name}.yaml", text_of(GATEWAY_API, kind, name, f"spec: {spec}"))

    def greeting(self, port: int, host: str = "") -> str:
        """Who greets; empty where the connection is closed."""
        return hear_greeting(port, self.root, host)

    def is_greeted_by(self, name: str) -> bool:
        return self.greeting(self.tcp_port) == name


def backend(name: str, weight: int = 1) -> str:
    return f"{{name: {name}, port: 80, weight: {weight}}}"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        authority = make_authority("test")
        root = tmp_path / "root.pem"
        root.write_bytes(authority.certificate.public_bytes(Encoding.PEM))
        plain = stack.enter_context(greet("v1", "127.0.1.1"))
        stack.enter_context(greet("v2", "127.0.1.2", plain))
        pairs = {name: issue_server(authority, f"{name}.test") for name in ("a", "b")}
        tls = stack.enter_context(greet("a", "127.0.1.1", pair=pairs["a"], folder=tmp_path))
        stack.enter_context(greet("b", "127.0.1.2", tls, pairs["b"], tmp_path))
        ports = find_free_port(), find_free_port(), find_free_port()
        listeners = (
            f"{{name: tcp, port: {ports[0]}, protocol: TCP}}, "
            f"{{name: tls, port: {ports[1]}, protocol: TLS, tls: {{mode: Passthrough}}}}, "
            f"{{name: ended, port: {ports[2]}, protocol: TLS, tls: {{certificateRefs: [{{name: e}}]}}}}"
        )
        controller = ControllerProcess(tmp_path)
        gateway = text_of(GATEWAY_API, "Gateway", "web", f"spec: {{gatewayClassName: ambit, listeners: [{listeners}]}}")
        services = [service_text(name, f"version: {name}", f"port: 80, targetPort: {plain}") for name in ("v1", "v2")]
        services += [
            service_text(name, f"version: {version}", f"port: 80, targetPort: {tls}")
            for name, version in (("a", "v1"), ("b", "v2"))
        ]
        pods = pod_text("v1", "127.0.1.1") + pod_text("v2", "127.0.1.2")
        ended = gateway_pod_text("web", "node-1") + secret_text("e", issue_server(authority, "e.test"))
        controller.write("mesh.yaml", "".join([gateway, pods, ended, *services]))
        controller.start()
        stack.callback(controller.stop)
        envoy = stack.enter_context(run_gateway(controller, tmp_path, "web"))
        yield World(controller, envoy, root, *ports)
        assert envoy.refusals() == []


def test_connections_are_shared_by_weight_and_the_share_of_what_is_missing_is_closed(world: World) -> None:
    world.route("TCPRoute", "t", "tcp", f"{backend('v1', 2)}, {backend('v2')}, {backend('missing')}")
    assert wait_for(lambda: world.greeting(world.tcp_port) == "v1", PATIENCE_SECONDS)
    shares = Counter(world.greeting(world.tcp_port) for _ in range(200))
    assert set(shares) == {"v1", "v2", ""}
    assert 65 <= shares["v1"] <= 135, shares  # five standard deviations around 100
    assert 20 <= shares[""] <= 80, shares


def test_tls_goes_by_its_server_name_to_who_has_the_certificate(world: World) -> None:
    world.route("TLSRoute", "a", "tls", backend("a"), "a.test")
    world.route("TLSRoute", "b", "tls", backend("b"), "b.test")
    assert wait_for(lambda: world.greeting(world.tls_port, "a.test") == "a", PATIENCE_SECONDS)
    assert wait_for(lambda: world.greeting(world.tls_port, "b.test") == "b", PATIENCE_SECONDS)
    assert world.greeting(world.tls_port, "c.test") == ""
    with socket.create_connection(("127.0.0.1", world.tls_port), PATIENCE_SECONDS) as connection:
        connection.sendall(b"no TLS\r\n")
        with pytest.raises(ConnectionResetError):
            connection.recv(100)


def test_no_connection_fails_while_a_route_moves_between_services(world: World) -> None:
    """The listener that names the other cluster goes out once the proxy has that cluster and its endpoints."""
    world.route("TCPRoute", "t", "tcp", backend("v1"))
    assert wait_for(lambda: world.greeting(world.tcp_port) == "v1", PATIENCE_SECONDS)
    with asking(lambda: world.greeting(world.tcp_port)) as greetings:
        for number in range(20):
            name = ("v2", "v1")[number % 2]
            world.route("TCPRoute", "t", "tcp", backend(name))
            assert wait_for(partial(world.is_greeted_by, name), PATIENCE_SECONDS)
    assert set(greetings) == {"v1", "v2"}, greetings


def test_a_port_without_a_route_closes_connections(world: World) -> None:
    world.route("TCPRoute", "t", "tcp", backend("v1"))
    assert wait_for(lambda: world.greeting(world.tcp_port) == "v1", PATIENCE_SECONDS)
    world.controller.remove("t.yaml")
    assert wait_for(lambda: world.greeting(world.tcp_port) == "", PATIENCE_SECONDS)


def test_tls_that_ends_at_the_gateway_goes_on_in_plaintext(world: World) -> None:
    world.route("TLSRoute", "e", "ended", backend("v1"), "e.test")
    assert wait_for(lambda: world.greeting(world.ended_port, "e.test") == "v1", PATIENCE_SECONDS)
    assert world.greeting(world.ended_port, "f.test") == ""
    world.controller.remove("e.yaml")
    world.route("TCPRoute", "e", "ended", backend("v2"))
    assert wait_for(lambda: world.greeting(world.ended_port, "e.test") == "v2", PATIENCE_SECONDS)
