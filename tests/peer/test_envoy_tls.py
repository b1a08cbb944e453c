"""TLS at a Gateway, carried out by the real Envoy: certificates by server name, and what happens without them."""

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from ambit.demo.polling import wait_for
from tests.support.asking import asking
from tests.support.controller_process import PATIENCE_SECONDS, ControllerProcess
from tests.support.curl import ask_over_tls
from tests.support.envoy_proxy import run_gateway
from tests.support.free_ports import find_free_port
from tests.support.mesh_certificates import Authority, Credentials, issue_server, make_authority
from tests.support.secrets import gateway_pod_text, secret_text
from tests.support.texts import pod_text, service_text, text_of
from tests.support.web_backends import serve_web

GATEWAY_API = "gateway.networking.k8s.io/v1"


@dataclass(slots=True)
class World:
    """A controller, an Envoy of the Gateway `web` with one port of TLS and one of plaintext, and a server."""

    controller: ControllerProcess
    authority: Authority
    root: Path
    tls_port: int = field(default_factory=find_free_port)
    plain_port: int = field(default_factory=find_free_port)

    def give(self, name: str, *hosts: str, namespace: str = "demo") -> Credentials:
        """A new certificate for these hosts, as the Secret of that name."""
        made = issue_server(self.authority, *hosts)
        self.controller.write(f"secret-{name}.yaml", secret_text(name, made, namespace))
        return made

    def listen(self, *listeners: str, rest: str = "") -> None:
        """Let the Gateway have these listeners, each on the port of TLS, beside its plaintext one."""
        plain = f"{{name: plain, port: {self.plain_port}, protocol: HTTP}}"
        self.controller.write(
            "gateway.yaml", gateway_text(plain, *(f"{{port: {self.tls_port}, {each}}}" for each in listeners))
        )

    def curl(self, host: str, *options: str, port: int = 0) -> str:
        """What curl says of a request to a host: `STATUS HTTP-VERSION SERVER`, or `refused EXIT-STATUS`."""
        return ask_over_tls(self.root, port or self.tls_port, host, *options)

    def curl_until(self, expected: str, host: str, *options: str) -> None:
        assert wait_for(lambda: self.curl(host, *options) == expected, PATIENCE_SECONDS), self.curl(host, *options)

    def conditions(self, listener: str) -> dict[str, tuple[str, str]]:
        """The conditions of a listener, by type."""
        found = json.loads(self.controller.fetch("/debug/conditions"))
        [status] = (each["status"] for each in found if each["kind"] == "Gateway")
        [conditions] = (each["conditions"] for each in status["listeners"] if each["name"] == listener)
        return {each["type"]: (each["status"], each["reason"]) for each in conditions}


def gateway_text(*listeners: str) -> str:
    return text_of(
        GATEWAY_API, "Gateway", "web", f"spec: {{gatewayClassName: ambit, listeners: [{', '.join(listeners)}]}}"
    )


def https(name: str, host: str, *secrets: str) -> str:
    references = ", ".join(f"{{name: {each}}}" for each in secrets)
    return f"name: {name}, protocol: HTTPS, hostname: '{host}', tls: {{certificateRefs: [{references}]}}"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        backend = stack.enter_context(serve_web("v1", "127.0.1.1"))
        authority = make_authority("test")
        root = tmp_path / "root.pem"
        root.write_bytes(authority.certificate.public_bytes(Encoding.PEM))
        controller = ControllerProcess(tmp_path)
        route = "{parentRefs: [{name: web}], rules: [{backendRefs: [{name: v1, port: 80}]}]}"
        mesh = service_text("v1", "version: v1", f"port: 80, targetPort: {backend.port}")
        mesh += pod_text("v1", backend.address) + text_of(GATEWAY_API, "HTTPRoute", "web", f"spec: {route}")
        controller.write("mesh.yaml", mesh)
        controller.write("pod.yaml", gateway_pod_text("web", "node-1"))
        made = World(controller, authority, root)
        made.give("a", "a.test", "b.test")
        made.listen(https("a", "a.test", "a"))
        controller.start()
        stack.callback(controller.stop)
        envoy = stack.enter_context(run_gateway(controller, tmp_path, "web"))
        made.curl_until("200 2 v1", "a.test")
        yield made
        assert envoy.refusals() == []


def test_requests_come_over_tls_of_the_version_and_protocol_that_the_client_has(world: World) -> None:
    assert world.curl("a.test", "--http1.1") == "200 1.1 v1"
    assert world.curl("a.test", "--tls-max", "1.2") == "200 2 v1"
    assert world.curl("a.test", "--tlsv1.0", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0") == "refused 35"


def test_a_name_that_no_listener_has_is_refused_and_so_is_plaintext(world: World) -> None:
    assert world.curl("b.test") == "refused 35"
    with socket.create_connection(("127.0.0.1", world.tls_port), PATIENCE_SECONDS) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            connection.recv(1024)


def test_each_name_has_its_certificate_and_its_routes(world: World) -> None:
    world.give("b", "b.test")
    world.listen(https("a", "a.test", "a"), https("b", "b.test", "b"), https("wide", "*.wide.test", "many"))
    world.give("many", "*.wide.test")
    world.curl_until("200 2 v1", "b.test")
    world.curl_until("200 2 v1", "x.wide.test")
    assert {host: show_names(world, host) for host in ("a.test", "b.test", "x.wide.test")} == {
        "a.test": {"a.test", "b.test"},
        "b.test": {"b.test"},
        "x.wide.test": {"*.wide.test"},
    }
    assert world.curl("a.test", "--header", "Host: b.test") == "421 2"
    assert world.curl("a.test", "--header", "Host: nobody.test") == "404 2"


def test_of_several_certificates_of_a_listener_the_name_chooses(world: World) -> None:
    world.give("one", "one.test")
    world.give("two", "two.test")
    world.listen("name: all, protocol: HTTPS, tls: {certificateRefs: [{name: one}, {name: two}]}")
    world.curl_until("200 2 v1", "one.test")
    assert world.curl("two.test") == "200 2 v1"


def show_names(world: World, host: str) -> set[str]:
    """The names in the certificate that a client is shown."""
    context = ssl.create_default_context(cafile=str(world.root))
    with (
        socket.create_connection(("127.0.0.1", world.tls_port), PATIENCE_SECONDS) as connection,
        context.wrap_socket(connection, server_hostname=host) as wrapped,
    ):
        certificate = wrapped.getpeercert()
        assert certificate
        return {str(each[1]) for each in certificate["subjectAltName"]}


def shows(world: World, host: str, name: str) -> bool:
    """Whether the certificate for a host has this name among its own."""
    return name in show_names(world, host)


def test_a_name_without_a_certificate_is_refused_and_the_others_serve(world: World) -> None:
    world.give("wide", "*.wide.test")
    world.listen(https("wide", "*.wide.test", "wide"), https("a", "a.wide.test", "missing"))
    world.curl_until("200 2 v1", "b.wide.test")
    assert world.curl("a.wide.test") == "refused 35", "not even with the certificate of *.wide.test"
    assert world.conditions("a")["ResolvedRefs"] == ("False", "InvalidCertificateRef")
    assert world.conditions("a")["Programmed"] == ("False", "Invalid")
    assert world.conditions("wide")["ResolvedRefs"] == ("True", "ResolvedRefs")
    own = world.give("missing", "a.wide.test")
    world.curl_until("200 2 v1", "a.wide.test")
    assert world.conditions("a")["Programmed"] == ("True", "Programmed")
    world.controller.write("secret-missing.yaml", secret_text("missing", Credentials("nonsense", own.key)))
    assert wait_for(lambda: "certificate-value" in world.controller.fetch("/debug/state"), PATIENCE_SECONDS)
    assert world.curl("a.wide.test") == "200 2 v1", "the last valid form goes on"
    world.controller.remove("secret-missing.yaml")
    world.curl_until("refused 35", "a.wide.test")
    assert world.curl("b.wide.test") == "200 2 v1"


def test_a_certificate_of_another_namespace_needs_its_grant(world: World) -> None:
    world.give("far", "far.test", namespace="other")
    reference = "{name: far, namespace: other}"
    world.listen(
        https("a", "a.test", "a"),
        f"name: far, protocol: HTTPS, hostname: far.test, tls: {{certificateRefs: [{reference}]}}",
    )
    assert wait_for(lambda: _has(world, "far"), PATIENCE_SECONDS)
    assert world.conditions("far")["ResolvedRefs"] == ("False", "RefNotPermitted")
    assert world.curl("far.test") == "refused 35"
    grant = (
        "{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {name: g, namespace: other}, "
        "spec: {from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: demo}], "
        "to: [{group: '', kind: Secret}]}}"
    )
    world.controller.write("grant.yaml", grant)
    world.curl_until("200 2 v1", "far.test")
    world.controller.remove("grant.yaml")
    world.curl_until("refused 35", "far.test")


def _has(world: World, listener: str) -> bool:
    try:
        return bool(world.conditions(listener))
    except ValueError:
        return False


def test_no_request_fails_while_certificates_are_replaced(world: World) -> None:
    with asking(lambda: world.curl("a.test")) as outcomes:
        for number in range(10):
            name = f"r{number}.test"
            world.give("a", "a.test", name)
            assert wait_for(partial(shows, world, "a.test", name), PATIENCE_SECONDS)
    assert set(outcomes) == {"200 2 v1"}, outcomes


def test_no_request_fails_while_a_listener_changes_to_another_secret(world: World) -> None:
    """The listener's last form serves until the secret of the new one has come."""
    with asking(lambda: world.curl("a.test")) as outcomes:
        for number in range(6):
            name = f"n{number}"
            world.give(name, "a.test", f"{name}.test")
            world.listen(https("a", "a.test", name))
            assert wait_for(partial(shows, world, "a.test", f"{name}.test"), PATIENCE_SECONDS)
    assert set(outcomes) == {"200 2 v1"}, outcomes


def test_a_patch_changes_what_one_of_the_hosts_of_a_port_serves(world: World) -> None:
    world.listen(https("a", "a.test", "a"), https("b", "b.test", "a"))
    world.curl_until("200 2 v1", "b.test")
    closed = "{name: closed, match: {prefix: /}, direct_response: {status: 418}}"
    match = "{context: GATEWAY, routeConfiguration: {vhost: {domainName: b.test}}}"
    patch = f"{{applyTo: HTTP_ROUTE, match: {match}, patch: {{operation: INSERT_FIRST, value: {closed}}}}}"
    spec = f"spec: {{targetRefs: [{{kind: Gateway, name: web}}], configPatches: [{patch}]}}"
    world.controller.write("filter.yaml", text_of("networking.istio.io/v1alpha3", "EnvoyFilter", "closed", spec))
    world.curl_until("418 2", "b.test")
    assert world.curl("a.test") == "200 2 v1"
    world.controller.remove("filter.yaml")
    world.curl_until("200 2 v1", "b.test")
