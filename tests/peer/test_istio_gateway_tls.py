"""HTTPS servers of Istio's Gateways, carried out by the real Envoy: certificates of servers and clients, by name."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate

from ambit.demo.polling import wait_for
from controller.kinds.server_tls import CIPHER_SUITES
from tests.support.asking import asking
from tests.support.controller_process import PATIENCE_SECONDS, ControllerProcess
from tests.support.curl import ask_over_tls
from tests.support.envoy_proxy import Envoy, ask, run_ingress
from tests.support.free_ports import find_free_port
from tests.support.mesh_certificates import Authority, Credentials, issue, issue_server, make_authority, revoke
from tests.support.secrets import ingress_pod_text, opaque_text, secret_text
from tests.support.texts import pod_text, service_text, text_of
from tests.support.web_backends import Backend, serve_web

ISTIO = "networking.istio.io/v1"
LABELS = {"istio": "ingressgateway", "app": "edge"}
PLACE = "istio-system"


@dataclass(slots=True)
class World:
    """A controller, an Envoy with LABELS, a server, and a Gateway `web` of namespace `demo` with a port of TLS."""

    controller: ControllerProcess
    envoy: Envoy
    authority: Authority
    folder: Path
    port: int
    backend: Backend

    @property
    def root(self) -> Path:
        return self.folder / "root.pem"

    def give(self, name: str, *hosts: str) -> Credentials:
        """A new certificate for these hosts, as the Secret of that name beside the proxies."""
        made = issue_server(self.authority, *hosts)
        self.controller.write(f"secret-{name}.yaml", secret_text(name, made, PLACE))
        return made

    def give_opaque(self, name: str, keys: dict[str, str]) -> None:
        self.controller.write(f"secret-{name}.yaml", opaque_text(name, PLACE, keys))

    def serve(self, *servers: str, name: str = "web") -> None:
        """Let a Gateway have these servers."""
        spec = f"spec: {{selector: {{istio: ingressgateway}}, servers: [{', '.join(servers)}]}}"
        self.controller.write(f"gateway-{name}.yaml", text_of(ISTIO, "Gateway", name, spec))

    def server(self, name: str, hosts: str, tls: str, protocol: str = "HTTPS") -> str:
        return (
            f"{{port: {{number: {self.port}, name: {name}, protocol: {protocol}}}, hosts: [{hosts}], tls: {{{tls}}}}}"
        )

    def curl(self, host: str, *options: str) -> str:
        return ask_over_tls(self.root, self.port, host, *options)

    def curl_until(self, expected: str, host: str, *options: str) -> None:
        assert wait_for(lambda: self.curl(host, *options) == expected, PATIENCE_SECONDS), self.curl(host, *options)

    def show_client(self, name: str, authority: Authority, *identities: str) -> tuple[str, ...]:
        """Options of curl that show a certificate of a client."""
        made = issue(authority, *identities)
        file = self.folder / f"{name}.pem"
        file.write_text(made.certificate + made.key)
        return ("--cert", str(file))


def pem(authority: Authority) -> str:
    return authority.certificate.public_bytes(Encoding.PEM).decode()


def simple(name: str, rest: str = "") -> str:
    return f"mode: SIMPLE, credentialName: {name}, {rest}"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        backend = stack.enter_context(serve_web("v1", "127.0.1.1"))
        authority = make_authority("test")
        (tmp_path / "root.pem").write_text(pem(authority))
        controller = ControllerProcess(tmp_path)
        rule = "spec: {hosts: ['*'], gateways: [web], http: [{route: [{destination: {host: v1}}]}]}"
        mesh = service_text("v1", "version: v1", f"port: 80, targetPort: {backend.port}")
        mesh += pod_text("v1", backend.address) + text_of(ISTIO, "VirtualService", "web", rule)
        controller.write("mesh.yaml", mesh)
        controller.write("pod.yaml", ingress_pod_text(LABELS, "node-1"))
        controller.start()
        stack.callback(controller.stop)
        envoy = stack.enter_context(run_ingress(controller, tmp_path, LABELS))
        made = World(controller, envoy, authority, tmp_path, find_free_port(), backend)
        made.give("a", "a.test")
        made.serve(made.server("https", "a.test", simple("a")))
        made.curl_until("200 2 v1", "a.test")
        yield made
        assert envoy.refusals() == []


def test_requests_come_over_tls_of_the_version_and_protocol_that_the_client_has(world: World) -> None:
    assert world.curl("a.test", "--http1.1") == "200 1.1 v1"
    assert world.curl("a.test", "--tls-max", "1.2") == "200 2 v1"
    assert world.curl("a.test", "--tlsv1.0", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0") == "refused 35"
    assert world.curl("b.test") == "refused 35", "no server has the name"


def test_each_name_has_its_server_on_one_port(world: World) -> None:
    world.give("many", "*.many.test", "own.many.test")
    world.serve(
        world.server("a", "a.test", simple("a")),
        world.server("many", "'*.many.test', a.test", simple("many")),
        world.server("own", "demo/own.many.test", simple("many")),
    )
    world.curl_until("200 2 v1", "x.many.test")
    assert world.curl("a.test") == "200 2 v1", "the first server keeps its name"
    assert world.curl("own.many.test") == "200 2 v1"
    assert world.curl("x.many.test", "--header", "Host: own.many.test") == "421 2"
    assert world.curl("x.many.test", "--header", "Host: nobody.test") == "404 2"


def test_a_server_of_another_gateway_shares_the_port(world: World) -> None:
    world.give("b", "b.test")
    world.serve(world.server("https", "b.test", simple("b")), name="b")
    rule = "spec: {hosts: [b.test], gateways: [b], http: [{directResponse: {status: 299}}]}"
    world.controller.write("b.yaml", text_of(ISTIO, "VirtualService", "b", rule))
    world.curl_until("299 2", "b.test")
    assert world.curl("a.test") == "200 2 v1"


def test_a_server_whose_secret_is_missing_refuses_and_the_others_serve(world: World) -> None:
    world.serve(world.server("a", "a.test", simple("a")), world.server("b", "'*'", simple("b")))
    world.curl_until("refused 35", "b.test")
    assert world.curl("a.test") == "200 2 v1"
    own = world.give("b", "b.test")
    world.curl_until("200 2 v1", "b.test")
    world.give_opaque("b", {"tls.crt": "nonsense", "tls.key": own.key})
    assert wait_for(lambda: "certificate-value" in world.controller.fetch("/debug/state"), PATIENCE_SECONDS)
    assert world.curl("b.test") == "200 2 v1", "the last valid form goes on"
    world.controller.remove("secret-b.yaml")
    world.curl_until("refused 35", "b.test")
    assert world.curl("a.test") == "200 2 v1"


@pytest.mark.parametrize("keys", [("tls.crt", "tls.key"), ("cert", "key")], ids=["kubernetes", "istio"])
def test_a_generic_secret_serves(world: World, keys: tuple[str, str]) -> None:
    made = issue_server(world.authority, "b.test")
    world.give_opaque("b", dict(zip(keys, (made.certificate, made.key), strict=True)))
    world.serve(world.server("b", "b.test", simple("b")))
    world.curl_until("200 2 v1", "b.test")


def test_the_nearest_of_two_certificates_is_shown(world: World) -> None:
    world.give("b", "b.test")
    world.serve(world.server("both", "a.test, b.test", "mode: SIMPLE, credentialNames: [a, b]"))
    world.curl_until("200 2 v1", "b.test")
    assert world.curl("a.test") == "200 2 v1"


@pytest.mark.parametrize("place", ["apart", "beside"])
def test_clients_show_a_certificate_of_an_authority_that_the_server_believes(world: World, place: str) -> None:
    others, clients = make_authority("others"), make_authority("clients")
    pair = issue_server(world.authority, "m.test")
    keys = {"cert": pair.certificate, "key": pair.key}
    if place == "apart":
        world.give_opaque("m-cacert", {"cacert": pem(clients)})
        keys["cacert"] = pem(others)
    else:
        keys["cacert"] = pem(clients)
    world.give_opaque("m", keys)
    world.serve(world.server("m", "m.test", "mode: MUTUAL, credentialName: m"))
    own = world.show_client("own", clients, "spiffe://test/client", "client.test")
    world.curl_until("200 2 v1", "m.test", *own)
    assert world.curl("m.test").startswith("refused")
    assert world.curl("m.test", *world.show_client("other", others, "client.test")).startswith("refused")


def test_applications_are_told_of_the_clients_certificate_and_clients_cannot_say_so_themselves(world: World) -> None:
    pair = issue_server(world.authority, "m.test")
    keys = {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": pem(world.authority)}
    world.give_opaque("m", keys)
    world.serve(world.server("m", "m.test", "mode: OPTIONAL_MUTUAL, credentialName: m"))
    own = world.show_client("own", world.authority, "spiffe://test/client", "client.test")
    world.curl_until("200 2 v1", "m.test", *own)
    world.controller.write(
        "web.yaml",
        text_of(
            ISTIO,
            "VirtualService",
            "told",
            "spec: {hosts: [m.test], gateways: [web], http: [{"
            "match: [{headers: {x-forwarded-client-cert: {regex: '.*URI=spiffe://test/client;DNS=client.test.*'}}}], "
            "directResponse: {status: 298}}, "
            "{match: [{headers: {x-forwarded-client-cert: {}}}], directResponse: {status: 297}}]}",
        ),
    )
    claimed = ("--header", "x-forwarded-client-cert: By=x;URI=spiffe://test/client;DNS=client.test")
    world.curl_until("298 2", "m.test", *own)
    assert world.curl("m.test", *claimed) == "200 2 v1", "without a certificate nothing is told"


def test_a_client_certificate_is_optional_or_verified_where_the_mode_says_so(world: World) -> None:
    pair = issue_server(world.authority, "m.test")
    world.give_opaque("m", {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": pem(world.authority)})
    world.serve(world.server("m", "m.test", "mode: OPTIONAL_MUTUAL, credentialName: m"))
    world.curl_until("200 2 v1", "m.test")
    assert world.curl("m.test", *world.show_client("own", world.authority, "client.test")) == "200 2 v1"
    others = make_authority("others")
    assert world.curl("m.test", *world.show_client("other", others, "client.test")).startswith("refused")


def test_of_clients_only_those_with_a_name_of_the_servers_are_served(world: World) -> None:
    pair = issue_server(world.authority, "m.test")
    world.give_opaque("m", {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": pem(world.authority)})
    names = "subjectAltNames: ['spiffe://test/client', client.test]"
    world.serve(world.server("m", "m.test", f"mode: MUTUAL, credentialName: m, {names}"))
    world.curl_until("200 2 v1", "m.test", *world.show_client("uri", world.authority, "spiffe://test/client"))
    assert world.curl("m.test", *world.show_client("dns", world.authority, "client.test")) == "200 2 v1"
    assert world.curl("m.test", *world.show_client("other", world.authority, "other.test")).startswith("refused")


def test_a_clients_certificate_that_was_taken_back_is_refused(world: World) -> None:
    pair = issue_server(world.authority, "m.test")
    keys = {"tls.crt": pair.certificate, "tls.key": pair.key}
    world.give_opaque("m", keys)
    world.give_opaque("m-cacert", {"ca.crt": pem(world.authority)})
    world.serve(world.server("m", "m.test", "mode: MUTUAL, credentialName: m"))
    bad = world.show_client("bad", world.authority, "client.test")
    good = world.show_client("good", world.authority, "client.test")
    world.curl_until("200 2 v1", "m.test", *bad)
    serial = load_pem_x509_certificate(Path(bad[1]).read_bytes()).serial_number
    revoked = revoke(world.authority, serial, age=timedelta(minutes=1))
    world.give_opaque("m-cacert", {"ca.crt": pem(world.authority), "ca.crl": revoked})
    assert wait_for(lambda: world.curl("m.test", *bad).startswith("refused"), PATIENCE_SECONDS)
    assert world.curl("m.test", *good) == "200 2 v1"


def test_without_authorities_a_server_that_asks_clients_serves_nobody(world: World) -> None:
    world.serve(
        world.server("m", "'*'", "mode: OPTIONAL_MUTUAL, credentialName: a"),
        world.server("b", "a.test", simple("a")),
    )
    world.curl_until("refused 35", "m.test")
    assert world.curl("a.test") == "200 2 v1"


@pytest.mark.parametrize(
    ("rest", "served", "refused"),
    [
        pytest.param("minProtocolVersion: TLSV1_3", ("--tlsv1.3",), ("--tls-max", "1.2"), id="least"),
        pytest.param("maxProtocolVersion: TLSV1_2", ("--tlsv1.2",), ("--tlsv1.3",), id="greatest"),
        pytest.param(
            "cipherSuites: [ECDHE-ECDSA-AES256-GCM-SHA384]",
            ("--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384"),
            ("--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256"),
            id="ciphers",
        ),
        pytest.param(
            "minProtocolVersion: TLSV1_0, cipherSuites: [ECDHE-ECDSA-AES128-SHA]",
            ("--tlsv1.0", "--tls-max", "1.0", "--ciphers", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"),
            ("--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES256-SHA"),
            id="older",
        ),
    ],
)
def test_tls_is_spoken_as_the_server_says(
    world: World, rest: str, served: tuple[str, ...], refused: tuple[str, ...]
) -> None:
    world.serve(world.server("https", "a.test", simple("a", rest)))
    assert wait_for(lambda: world.curl("a.test", *refused) == "refused 35", PATIENCE_SECONDS)
    assert world.curl("a.test", *served) == "200 2 v1"


@pytest.mark.parametrize(
    "rest",
    [
        "minProtocolVersion: TLSV1_0",
        "minProtocolVersion: TLSV1_3, cipherSuites: [AES128-SHA]",
        "maxProtocolVersion: TLSV1_3, minProtocolVersion: TLSV1_1, cipherSuites: [ECDHE-RSA-AES128-GCM-SHA256]",
    ],
)
def test_odd_terms_are_taken_by_envoy_and_serve_who_meets_them(world: World, rest: str) -> None:
    world.give("b", "b.test")
    world.serve(world.server("https", "b.test", simple("b", rest)))
    world.curl_until("200 2 v1", "b.test")


def test_every_cipher_suite_that_is_taken_is_envoys(world: World) -> None:
    world.give("b", "b.test")
    world.serve(world.server("https", "b.test", simple("b", f"cipherSuites: [{', '.join(CIPHER_SUITES)}]")))
    world.curl_until("200 2 v1", "b.test", "--tls-max", "1.2")


def test_a_plain_server_sends_its_clients_to_https_and_they_are_served_there(world: World) -> None:
    plain = find_free_port()
    redirecting = (
        f"{{port: {{number: {plain}, name: http, protocol: HTTP}}, hosts: ['*'], tls: {{httpsRedirect: true}}}}"
    )
    world.serve(redirecting, world.server("https", "a.test", simple("a")))

    def is_redirected() -> bool:
        try:
            answer = ask(plain, "/x", "a.test")
        except OSError:
            return False
        return answer.status == 301 and answer.headers["location"] == "https://a.test/x"

    assert wait_for(is_redirected, PATIENCE_SECONDS)
    assert world.curl("a.test") == "200 2 v1"


def test_no_request_fails_while_certificates_are_replaced(world: World) -> None:
    with asking(lambda: world.curl("a.test")) as outcomes:
        for number in range(10):
            name = f"r{number}.test"
            world.give("a", "a.test", name)
            world.serve(world.server("https", f"a.test, {name}", simple("a")))
            world.curl_until("200 2 v1", name)
    assert set(outcomes) == {"200 2 v1"}, outcomes
    assert outcomes.total() > 10


def test_a_proxy_whose_node_runs_no_such_pod_gets_no_certificate(world: World) -> None:
    refused = partial(wait_for, lambda: world.curl("b.test").startswith("refused"), PATIENCE_SECONDS)
    world.give("b", "b.test")
    world.controller.write("pod.yaml", ingress_pod_text({"istio": "ingressgateway"}, "node-1"))
    world.serve(world.server("b", "b.test", simple("b")))
    assert refused(), "the pod lacks a label that the proxy says it has"
    assert wait_for(lambda: any("asks for certificates" in each for each in world.controller.log), PATIENCE_SECONDS)
    world.controller.write("pod.yaml", ingress_pod_text(LABELS, "node-1"))
    world.curl_until("200 2 v1", "b.test")
