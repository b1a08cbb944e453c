"""TLS towards Services by the real Envoy: to whom requests go, and to whom they do not."""

import json
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from ambit.demo.polling import wait_for
from tests.support.controller_process import PATIENCE_SECONDS, ControllerProcess
from tests.support.envoy_proxy import WebAnswer, ask, run_gateway
from tests.support.free_ports import find_free_port
from tests.support.mesh_certificates import Authority, issue_server, make_authority
from tests.support.texts import pod_text, service_text, text_of
from tests.support.web_backends import serve_web

GATEWAY_API = "gateway.networking.k8s.io/v1"
FROM_CONFIG_MAP = "caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]"


@dataclass(slots=True)
class World:
    """A controller, an Envoy of the Gateway `web`, and a server `v1` over TLS, whose certificate is for `v1.test`."""

    controller: ControllerProcess
    port: int

    def trust(self, authority: Authority) -> None:
        """Let the ConfigMap `ca` have this authority's certificate."""
        text = json.dumps(authority.certificate.public_bytes(Encoding.PEM).decode())
        self.controller.write("ca.yaml", text_of("v1", "ConfigMap", "ca", f"data: {{ca.crt: {text}}}"))

    def secure(self, hostname: str, rest: str = "", authorities: str = FROM_CONFIG_MAP) -> None:
        """Let the Service be spoken to over TLS, by this name."""
        targets = "targetRefs: [{group: '', kind: Service, name: v1}]"
        spec = f"spec: {{{targets}, validation: {{{authorities}, hostname: {hostname}, {rest}}}}}"
        self.controller.write("policy.yaml", text_of(GATEWAY_API, "BackendTLSPolicy", "v1", spec))

    def ask(self) -> WebAnswer:
        return ask(self.port)

    def ask_until(self, status: int) -> WebAnswer:
        assert wait_for(lambda: self.ask().status == status, PATIENCE_SECONDS), self.ask()
        return self.ask()

    def conditions(self) -> dict[str, tuple[str, str]]:
        """Those of the policy at the Gateway, by type."""
        found = json.loads(self.controller.fetch("/debug/conditions"))
        [status] = (each["status"] for each in found if each["kind"] == "BackendTLSPolicy")
        [ancestor] = status["ancestors"]
        assert ancestor["ancestorRef"]["name"] == "web"
        return {each["type"]: (each["status"], each["reason"]) for each in ancestor["conditions"]}


@pytest.fixture
def authority() -> Authority:
    return make_authority("test")


@pytest.fixture
def world(tmp_path: Path, authority: Authority) -> Iterator[World]:
    with ExitStack() as stack:
        pair = issue_server(authority, "v1.test", "*.wide.test")
        file = tmp_path / "v1.pem"
        file.write_text(pair.certificate + pair.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        backend = stack.enter_context(serve_web("v1", "127.0.1.1", tls=context))
        controller, port = ControllerProcess(tmp_path), find_free_port()
        listener = f"{{name: http, port: {port}, protocol: HTTP}}"
        route = "{parentRefs: [{name: web}], rules: [{backendRefs: [{name: v1, port: 443}]}]}"
        controller.write(
            "mesh.yaml",
            text_of(GATEWAY_API, "Gateway", "web", f"spec: {{gatewayClassName: ambit, listeners: [{listener}]}}")
            + text_of(GATEWAY_API, "HTTPRoute", "web", f"spec: {route}")
            + service_text("v1", "version: v1", f"name: https, port: 443, targetPort: {backend.port}")
            + pod_text("v1", backend.address),
        )
        made = World(controller, port)
        made.trust(authority)
        made.secure("v1.test")
        controller.start()
        stack.callback(controller.stop)
        envoy = stack.enter_context(run_gateway(controller, tmp_path, "web"))
        made.ask_until(200)
        yield made
        assert envoy.refusals() == []


def test_requests_go_over_tls_to_who_has_the_name(world: World) -> None:
    answer = world.ask()
    assert (answer.server, answer.said["tls"]) == ("v1", {"version": "TLSv1.3", "client": []})
    assert world.conditions() == {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("True", "ResolvedRefs")}


def test_who_has_another_name_gets_no_request(world: World) -> None:
    world.secure("v2.test")
    world.ask_until(503)
    world.secure("a.wide.test")
    world.ask_until(200)
    world.secure("v2.test", "subjectAltNames: [{type: Hostname, hostname: v1.test}]")
    world.ask_until(200)
    world.secure("v1.test", "subjectAltNames: [{type: URI, uri: 'spiffe://x'}]")
    world.ask_until(503)


def test_who_is_vouched_for_by_another_authority_gets_no_request(world: World, authority: Authority) -> None:
    world.trust(make_authority("another"))
    world.ask_until(503)
    world.trust(authority)
    world.ask_until(200)


def test_without_an_authority_nobody_is_believed(world: World, authority: Authority) -> None:
    world.controller.remove("ca.yaml")
    world.ask_until(503)
    assert world.conditions() == {
        "Accepted": ("False", "NoValidCACertificate"),
        "ResolvedRefs": ("False", "InvalidCACertificateRef"),
    }
    world.trust(authority)
    world.ask_until(200)


def test_the_machines_authorities_vouch_for_no_private_one(world: World) -> None:
    world.secure("v1.test", authorities="wellKnownCACertificates: System")
    world.ask_until(503)
    assert world.conditions() == {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("True", "ResolvedRefs")}
    world.secure("v1.test")
    world.ask_until(200)


def test_without_a_policy_the_service_is_spoken_to_in_plaintext(world: World) -> None:
    world.controller.remove("policy.yaml")
    assert wait_for(lambda: world.ask().status != 200, PATIENCE_SECONDS), "the server knows only TLS"
