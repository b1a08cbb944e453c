"""Servers of Istio's Gateways that serve no requests, by the real Envoy: TLS that passes through or ends, and TCP."""

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
from tests.support.envoy_proxy import Envoy, run_ingress
from tests.support.free_ports import find_free_port
from tests.support.greeters import greet, hear_greeting
from tests.support.mesh_certificates import Authority, issue, issue_server, make_authority
from tests.support.secrets import ingress_pod_text, opaque_text
from tests.support.texts import pod_text, service_text, text_of

ISTIO = "networking.istio.io/v1"
LABELS = {"istio": "ingressgateway", "app": "edge"}


@dataclass(slots=True)
class World:
    """A controller, an Envoy with LABELS, and two pairs of servers, plain (`v1`, `v2`) and with TLS (`a`, `b`).

    The Gateway `web` has a port of TCP, and one of TLS whose server says itself what becomes of it.
    """

    controller: ControllerProcess
    envoy: Envoy
    authority: Authority
    folder: Path
    tcp_port: int
    tls_port: int

    def serve(self, *servers: str) -> None:
        """Let the Gateway have a server of TCP, and these at the port of TLS."""
        tcp = f"{{port: {{number: {self.tcp_port}, name: tcp, protocol: TCP}}, hosts: ['*']}}"
        spec = f"spec: {{selector: {{istio: ingressgateway}}, servers: [{', '.join((tcp, *servers))}]}}"
        self.controller.write("gateway.yaml", text_of(ISTIO, "Gateway", "web", spec))

    def server(self, name: str, hosts: str, tls: str, protocol: str = "TLS") -> str:
        port = f"{{number: {self.tls_port}, name: {name}, protocol: {protocol}}}"
        return f"{{port: {port}, hosts: [{hosts}], tls: {{{tls}}}}}"

    def route(self, name: str, hosts: str, rules: str) -> None:
        spec = f"spec: {{hosts: [{hosts}], gateways: [web], {rules}}}"
        self.controller.write(f"{name}.yaml", text_of(ISTIO, "VirtualService", name, spec))

    def hear(self, host: str = "", pair: Path | None = None) -> str:
        """Who greets at the port of TLS for a host, or at that of TCP."""
        return hear_greeting(self.tls_port if host else self.tcp_port, self.folder / "root.pem", host, pair)

    def hear_until(self, expected: str, host: str = "", pair: Path | None = None) -> None:
        assert wait_for(lambda: self.hear(host, pair) == expected, PATIENCE_SECONDS), self.hear(host, pair)


def to(*names: str) -> str:
    """The same share to each of these."""
    weight = 100 // len(names)
    return f"route: [{', '.join(f'{{destination: {{host: {each}}}, weight: {weight}}}' for each in names)}]"


def named(hosts: str, name: str, rest: str = "") -> str:
    """A rule of connections for these hosts, with commas."""
    quoted = ", ".join(f"'{each}'" for each in hosts.split(", "))
    return f"{{match: [{{sniHosts: [{quoted}], {rest}}}], {to(name)}}}"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        authority = make_authority("test")
        (tmp_path / "root.pem").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
        plain = stack.enter_context(greet("v1", "127.0.1.1"))
        stack.enter_context(greet("v2", "127.0.1.2", plain))
        pairs = {name: issue_server(authority, f"{name}.test", "own.test") for name in ("a", "b")}
        tls = stack.enter_context(greet("a", "127.0.1.1", pair=pairs["a"], folder=tmp_path))
        stack.enter_context(greet("b", "127.0.1.2", tls, pairs["b"], tmp_path))
        controller = ControllerProcess(tmp_path)
        services = [
            service_text(name, f"version: {version}", f"port: 80, targetPort: {port}")
            for name, version, port in (("v1", "v1", plain), ("v2", "v2", plain), ("a", "v1", tls), ("b", "v2", tls))
        ]
        pods = pod_text("v1", "127.0.1.1") + pod_text("v2", "127.0.1.2") + ingress_pod_text(LABELS, "node-1")
        ended = issue_server(authority, "e.test", "f.test")
        root = authority.certificate.public_bytes(Encoding.PEM).decode()
        secret = opaque_text("e", "istio-system", {"cert": ended.certificate, "key": ended.key, "cacert": root})
        controller.write("mesh.yaml", "".join([*services, pods, secret]))
        controller.start()
        stack.callback(controller.stop)
        envoy = stack.enter_context(run_ingress(controller, tmp_path, LABELS))
        made = World(controller, envoy, authority, tmp_path, find_free_port(), find_free_port())
        made.serve()
        made.route("tcp", "'*'", f"tcp: [{{match: [{{port: {made.tcp_port}}}], {to('v1')}}}]")
        made.hear_until("v1")
        yield made
        assert envoy.refusals() == []


@pytest.mark.parametrize("protocol", ["TLS", "HTTPS"])
def test_tls_that_passes_through_goes_by_its_name_to_who_has_the_certificate(world: World, protocol: str) -> None:
    world.serve(world.server("tls", "'*.test'", "mode: PASSTHROUGH", protocol))
    world.route("named", "'*.test'", f"tls: [{named('a.test', 'a')}, {named('*.b.test, b.test', 'b')}]")
    world.hear_until("a", "a.test")
    world.hear_until("b", "b.test")
    assert world.hear("c.test") == "", "no rule is for it"
    assert world.hear() == "v1", "the other port is as it was"


def test_a_name_that_passes_through_and_one_that_ends_share_a_port(world: World) -> None:
    world.serve(
        world.server("through", "a.test", "mode: PASSTHROUGH"),
        world.server("ended", "e.test, f.test", "mode: SIMPLE, credentialName: e"),
    )
    world.route("a", "a.test", f"tls: [{named('a.test', 'a')}]")
    world.route("e", "e.test", f"tcp: [{{{to('v1')}}}]")
    world.route("f", "f.test", f"tcp: [{{{to('v2')}}}]")
    world.hear_until("a", "a.test")
    world.hear_until("v1", "e.test")
    world.hear_until("v2", "f.test")
    assert world.hear("b.test") == ""


def test_a_name_without_a_rule_falls_to_no_wider_server(world: World) -> None:
    world.serve(
        world.server("own", "own.test", "mode: PASSTHROUGH"), world.server("wide", "'*.test'", "mode: PASSTHROUGH")
    )
    world.route("wide", "'*.test'", f"tls: [{named('*.test', 'a')}]")
    world.hear_until("a", "a.test")
    assert world.hear("own.test") == "a", "the rule is for it, too"
    world.route("wide", "'*.test'", f"tls: [{named('*.test', 'a', 'gateways: [other]')}, {named('b.test', 'b')}]")
    world.hear_until("b", "b.test")
    assert world.hear("own.test") == ""
    assert world.hear("a.test") == "", "the rule is another Gateway's"


def test_a_server_may_ask_clients_for_certificates_before_their_bytes_go_on(world: World) -> None:
    world.serve(world.server("ended", "e.test", "mode: MUTUAL, credentialName: e"))
    world.route("e", "e.test", f"tcp: [{{{to('v1')}}}]")
    own, other = world.folder / "own.pem", world.folder / "other.pem"
    for file, authority in ((own, world.authority), (other, make_authority("others"))):
        made = issue(authority, "client.test")
        file.write_text(made.certificate + made.key)
    world.hear_until("v1", "e.test", own)
    assert world.hear("e.test", other) == ""
    assert world.hear("e.test") == ""


def test_connections_are_shared_by_weight_and_the_share_of_what_is_missing_is_closed(world: World) -> None:
    world.route("tcp", "'*'", f"tcp: [{{{to('v1', 'v2', 'missing', 'missing')}}}]")
    assert wait_for(lambda: world.hear() == "v2", PATIENCE_SECONDS)
    shares = Counter(world.hear() for _ in range(200))
    assert set(shares) == {"v1", "v2", ""}
    assert 65 <= shares[""] <= 135, shares  # five standard deviations around 100


def test_of_several_rules_the_first_that_is_for_the_port_and_gateway_counts(world: World) -> None:
    rules = (
        f"{{match: [{{port: {world.tls_port}}}, {{gateways: [mesh]}}], {to('missing')}}}",
        f"{{match: [{{port: {world.tcp_port}, gateways: [web]}}], {to('v2')}}}",
        f"{{{to('v1')}}}",
    )
    world.route("tcp", "'*'", f"tcp: [{', '.join(rules)}]")
    world.hear_until("v2")
    world.controller.remove("tcp.yaml")
    world.hear_until("")


def test_no_connection_fails_while_a_rule_moves_between_services(world: World) -> None:
    with asking(world.hear) as greetings:
        for number in range(20):
            name = ("v2", "v1")[number % 2]
            world.route("tcp", "'*'", f"tcp: [{{{to(name)}}}]")
            assert wait_for(partial(lambda name: world.hear() == name, name), PATIENCE_SECONDS)
    assert set(greetings) == {"v1", "v2"}, greetings
