"""Listeners beside each other on a port, what may attach to them, their certificates, and what is said of all that."""

import json
from datetime import timedelta
from typing import cast

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from controller.analysis.report import analyze_texts
from controller.kinds.backend_tls_policy import BackendTLSPolicy
from controller.kinds.gateway_api import Gateway
from controller.kinds.meta import KubernetesObject
from controller.registry.attachment import GatewayRoute, attach, check_listener, list_kinds
from controller.registry.backend_tls import find_policies
from controller.registry.conditions import judge_gateway, judge_parent
from controller.registry.gateways import Attached, RequestChain, StreamChain, build_ports
from controller.registry.http import Reply
from controller.registry.policy_conditions import judge_backend_tls
from controller.snapshot import Snapshot
from controller.sources.documents import parse_documents
from tests.support import objects
from tests.support.mesh_certificates import issue_server, make_authority
from tests.support.objects import build_snapshot, parse
from tests.support.secrets import gateway_pod_text, secret_text
from tests.support.texts import service_text, text_of

GATEWAY_API = "gateway.networking.k8s.io/v1"
PAIR = issue_server(make_authority("test"), "a.test")
HTTP = "{name: a, port: 80, protocol: HTTP}"
CERTIFICATE = "tls: {certificateRefs: [{name: a}]}"
THROUGH = "tls: {mode: Passthrough}"


def gateway_text(*listeners: str) -> str:
    spec = f"{{gatewayClassName: ambit, listeners: [{', '.join(listeners)}]}}"
    return text_of(GATEWAY_API, "Gateway", "web", f"spec: {spec}")


def gateway(*listeners: str) -> Gateway:
    made = parse(gateway_text(*listeners))
    assert isinstance(made, Gateway)
    return made


def route(kind: str, rest: str = "") -> GatewayRoute:
    spec = f"{{parentRefs: [{{name: web}}], rules: [{{backendRefs: [{{name: s, port: 80}}]}}], {rest}}}"
    return cast(GatewayRoute, parse(text_of(GATEWAY_API, kind, "r", f"spec: {spec}")))


@pytest.mark.parametrize(
    ("listeners", "reasons"),
    [
        pytest.param([HTTP, "{name: b, port: 443, protocol: HTTPS}"], ["Accepted", "Accepted"], id="two-ports"),
        pytest.param([HTTP, "{name: b, port: 80, protocol: HTTPS}"], ["Accepted", "ProtocolConflict"], id="with-tls"),
        pytest.param([HTTP, "{name: b, port: 80, protocol: TCP}"], ["Accepted", "ProtocolConflict"], id="with-tcp"),
        pytest.param(
            ["{name: a, port: 9, protocol: TCP}", "{name: b, port: 9, protocol: TCP}"],
            ["Accepted", "HostnameConflict"],
            id="tcp-twice",
        ),
        pytest.param(
            [
                "{name: a, port: 443, protocol: HTTPS, hostname: a.test}",
                f"{{name: b, port: 443, protocol: TLS, hostname: b.test, {THROUGH}}}",
            ],
            ["Accepted", "Accepted"],
            id="tls-by-name",
        ),
        pytest.param(
            [
                "{name: a, port: 443, protocol: HTTPS, hostname: a.test}",
                f"{{name: b, port: 443, protocol: TLS, hostname: a.test, {THROUGH}}}",
            ],
            ["Accepted", "HostnameConflict"],
            id="tls-of-one-name",
        ),
        pytest.param(
            [HTTP, "{name: b, port: 80, protocol: TCP}", "{name: c, port: 80, protocol: HTTP, hostname: c.test}"],
            ["Accepted", "ProtocolConflict", "Accepted"],
            id="one-in-conflict-conflicts-with-nobody",
        ),
        pytest.param(["{name: a, port: 53, protocol: UDP}"], ["UnsupportedProtocol"], id="udp"),
        pytest.param([f"{{name: a, port: 443, protocol: HTTPS, {THROUGH}}}"], ["UnsupportedValue"], id="https-through"),
        pytest.param([f"{{name: a, port: 443, protocol: TLS, {CERTIFICATE}}}"], ["Accepted"], id="tls-ended"),
    ],
)
def test_of_listeners_in_conflict_the_first_serves(listeners: list[str], reasons: list[str]) -> None:
    given = gateway(*listeners)
    assert [check_listener(given, each)[0].value for each in given.spec.listeners] == reasons


@pytest.mark.parametrize(
    "listener",
    [
        "{name: a, port: 80, protocol: HTTP, tls: {mode: Terminate}}",
        "{name: a, port: 80, protocol: TCP, tls: {mode: Passthrough}}",
        "{name: a, port: 80, protocol: TCP, hostname: a.test}",
        "{name: a, port: 443, protocol: HTTPS, tls: {options: {example.com/least-version: '1.3'}}}",
        "{name: a, port: 443, protocol: HTTPS, tls: {frontendValidation: {}}}",
    ],
)
def test_what_would_serve_otherwise_than_it_says_is_refused(listener: str) -> None:
    [problem] = parse_documents(gateway_text(listener), "f").problems
    assert problem.code in ("combination", "unsupported")


@pytest.mark.parametrize(
    ("listener", "kinds"),
    [
        (HTTP, ("HTTPRoute", "GRPCRoute")),
        ("{name: a, port: 443, protocol: HTTPS}", ("HTTPRoute", "GRPCRoute")),
        (f"{{name: a, port: 443, protocol: TLS, {THROUGH}}}", ("TLSRoute",)),
        (f"{{name: a, port: 443, protocol: TLS, {CERTIFICATE}}}", ("TLSRoute", "TCPRoute")),
        ("{name: a, port: 9, protocol: TCP}", ("TCPRoute",)),
        (
            "{name: a, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: GRPCRoute}, {kind: TCPRoute}]}}",
            ("GRPCRoute",),
        ),
    ],
)
def test_a_listener_takes_routes_of_its_protocol(listener: str, kinds: tuple[str, ...]) -> None:
    given = gateway(listener)
    assert list_kinds(given.spec.listeners[0]) == kinds
    for kind in ("HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"):
        one = route(kind)
        [reference] = one.spec.parent_refs or ()
        reason = attach(Snapshot(), one, reference, given).reason.value
        assert reason == ("Accepted" if kind in kinds else "NotAllowedByListeners")


def conditions(*given: KubernetesObject) -> dict[str, tuple[str, str]]:
    """Of the only listener of the Gateway, by type: whether it is so, and why."""
    snapshot = build_snapshot(*given)
    [owner] = snapshot.objects(Gateway)
    [listener] = judge_gateway(snapshot, owner, []).listeners
    return {each.type: (str(each.is_true), each.reason) for each in listener.conditions}


@pytest.mark.parametrize(
    ("references", "reason", "is_programmed"),
    [
        pytest.param("{name: a}", "ResolvedRefs", True, id="there"),
        pytest.param("{name: none}", "InvalidCertificateRef", False, id="not-there"),
        pytest.param("{name: password}", "InvalidCertificateRef", False, id="no-certificate"),
        pytest.param("{name: a, kind: ConfigMap}", "InvalidCertificateRef", False, id="no-secret"),
        pytest.param("{name: a, namespace: other}", "RefNotPermitted", False, id="no-grant"),
        pytest.param("{name: none}, {name: a}", "InvalidCertificateRef", True, id="one-of-two"),
        pytest.param("", "InvalidCertificateRef", False, id="none-named"),
    ],
)
def test_a_listener_says_what_is_wrong_with_its_certificates(references: str, reason: str, is_programmed: bool) -> None:
    listener = f"{{name: a, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{references}]}}}}"
    password = parse("{apiVersion: v1, kind: Secret, metadata: {name: password, namespace: demo}}")
    found = conditions(
        gateway(listener), parse(secret_text("a", PAIR)), parse(secret_text("a", PAIR, "other")), password
    )
    assert found["ResolvedRefs"] == (str(reason == "ResolvedRefs"), reason)
    assert found["Programmed"] == (str(is_programmed), "Programmed" if is_programmed else "Invalid")
    assert found["Accepted"] == ("True", "Accepted")


def test_a_listener_says_which_kinds_it_cannot_take() -> None:
    found = conditions(gateway("{name: a, port: 9, protocol: TCP, allowedRoutes: {kinds: [{kind: HTTPRoute}]}}"))
    assert found["ResolvedRefs"] == ("False", "InvalidRouteKinds")


def test_a_route_of_connections_is_no_services() -> None:
    spec = "{parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]}"
    one = cast(GatewayRoute, parse(text_of(GATEWAY_API, "TCPRoute", "r", f"spec: {spec}")))
    [reference] = one.spec.parent_refs or ()
    found = judge_parent(build_snapshot(objects.service()), one, reference)
    assert found
    assert found.reason.value == "UnsupportedValue"


def test_a_host_of_another_listener_is_misdirected() -> None:
    given = gateway(
        f"{{name: wide, port: 443, protocol: HTTPS, hostname: '*.test', {CERTIFICATE}}}",
        f"{{name: own, port: 443, protocol: HTTPS, hostname: a.test, {CERTIFICATE}}}",
    )
    attached = Attached({"wide": ("a.test", "b.test", "*.test"), "own": ("a.test",)})
    chains = build_ports(build_snapshot(parse(secret_text("a", PAIR))), given, [attached])[443]
    hosts = {
        chain.names: {
            domain: any(each.action == Reply(421) for each in host.routes)
            for host in chain.hosts
            for domain in host.domains
        }
        for chain in chains
        if isinstance(chain, RequestChain)
    }
    assert hosts == {
        ("*.test",): {"b.test": False, "*.test": False, "a.test": True},
        ("a.test",): {"a.test": False, "*.test": True},
    }


def test_a_name_that_no_route_is_for_falls_to_no_wider_listener() -> None:
    given = gateway(
        f"{{name: wide, port: 443, protocol: TLS, {THROUGH}}}",
        f"{{name: own, port: 443, protocol: TLS, hostname: '*.own.test', {THROUGH}}}",
    )
    attached = [Attached({"wide": ("*", "b.own.test"), "own": ("a.own.test",)}, age_key=("1",))]
    chains = build_ports(Snapshot(), given, attached)[443]
    assert [each.names for each in chains if isinstance(each, StreamChain)] == [
        ("*",),
        ("a.own.test",),
        ("*.own.test",),
    ]


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        pytest.param(gateway_pod_text("web", "node-1") + secret_text("a", PAIR), [], id="healthy"),
        pytest.param(gateway_pod_text("web", "node-1"), ["certificate-missing"], id="missing"),
        pytest.param(
            gateway_pod_text("other", "node-1") + secret_text("a", PAIR), ["certificate-without-proxy"], id="proxy"
        ),
        pytest.param(
            gateway_pod_text("web", "node-1")
            + secret_text("a", issue_server(make_authority("test"), "a.test", lifetime=timedelta(hours=-1))),
            ["certificate-expired"],
            id="expired",
        ),
    ],
)
def test_analysis_tells_of_certificates(text: str, codes: list[str]) -> None:
    listener = f"{{name: a, port: 443, protocol: HTTPS, {CERTIFICATE}}}"
    spec = "{parentRefs: [{name: web}], rules: [{backendRefs: [{name: s, port: 80}]}]}"
    mesh = gateway_text(listener) + service_text("s", "x: y", "port: 80") + text
    mesh += text_of(GATEWAY_API, "HTTPRoute", "r", f"spec: {spec}")
    found = [entry.code for entry in analyze_texts({"mesh.yaml": mesh}).entries]
    assert [code for code in found if code != "service-selector-matches-nothing"] == codes


def test_analysis_tells_of_kinds_that_a_listener_cannot_take() -> None:
    text = gateway_text(
        "{name: a, port: 9, protocol: TCP, allowedRoutes: {kinds: [{kind: TCPRoute}, {kind: HTTPRoute}]}}"
    )
    found = [entry.code for entry in analyze_texts({"mesh.yaml": text}).entries]
    assert sorted(found) == ["gateway-without-routes", "listener-takes-no-such-route"]


def test_analysis_tells_of_connections_that_lead_nowhere() -> None:
    text = gateway_text("{name: a, port: 9, protocol: TCP}")
    text += text_of(
        GATEWAY_API, "TCPRoute", "r", "spec: {parentRefs: [{name: web}], rules: [{backendRefs: [{name: s, port: 80}]}]}"
    )
    [entry] = analyze_texts({"mesh.yaml": text}).entries
    assert (entry.code, entry.message.endswith("such connections are closed")) == ("route-backend-missing", True)


def policy_text(name: str = "p", target: str = "kind: Service, name: s", age: int = 1) -> str:
    metadata = f"metadata: {{name: {name}, namespace: demo, creationTimestamp: '2026-01-0{age}T00:00:00Z'}}"
    validation = "validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}], hostname: s.test}"
    spec = f"spec: {{targetRefs: [{{group: '', {target}}}], {validation}}}"
    return f"{{apiVersion: {GATEWAY_API}, kind: BackendTLSPolicy, {metadata}, {spec}}}\n---\n"


def authority_text() -> str:
    text = json.dumps(make_authority("test").certificate.public_bytes(Encoding.PEM).decode())
    return text_of("v1", "ConfigMap", "ca", f"data: {{ca.crt: {text}, other: kept by nobody}}")


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        pytest.param(policy_text() + authority_text(), [], id="healthy"),
        pytest.param(policy_text(), ["authority-missing"], id="authority"),
        pytest.param(
            policy_text(target="kind: Service, name: t") + authority_text(),
            ["backend-tls-target-unknown"],
            id="service",
        ),
        pytest.param(
            policy_text(target="kind: Service, name: s, sectionName: x") + authority_text(),
            ["backend-tls-target-unknown"],
            id="port",
        ),
        pytest.param(
            policy_text(target="kind: Pod, name: s") + authority_text(), ["backend-tls-target-unknown"], id="kind"
        ),
    ],
)
def test_analysis_tells_of_tls_to_nobody(text: str, codes: list[str]) -> None:
    found = [entry.code for entry in analyze_texts({"mesh.yaml": service_text("s", "x: y", "port: 80") + text}).entries]
    assert [code for code in found if code != "service-selector-matches-nothing"] == codes


def test_of_two_policies_for_a_service_the_older_counts_and_one_for_a_port_before_it() -> None:
    texts = (
        policy_text("young", age=2),
        policy_text("old"),
        policy_text("port", "kind: Service, name: s, sectionName: h", 3),
    )
    snapshot = build_snapshot(
        *(parse(each) for each in texts), parse(authority_text()), gateway(HTTP), route("HTTPRoute")
    )
    assert [each.name for each in find_policies(snapshot, "demo", "s", "h")] == ["port", "old", "young"]
    judged = {
        each.name: {one.type: one.reason for one in found.conditions}
        for each in snapshot.objects(BackendTLSPolicy)
        for found in judge_backend_tls(snapshot, each, [route("HTTPRoute")])
    }
    assert judged == {
        "old": {"Accepted": "Accepted", "ResolvedRefs": "ResolvedRefs"},
        "port": {"Accepted": "Accepted", "ResolvedRefs": "ResolvedRefs"},
        "young": {"Accepted": "Conflicted", "ResolvedRefs": "ResolvedRefs"},
    }


def test_of_config_maps_only_certificates_of_authorities_are_kept() -> None:
    assert "kept by nobody" not in repr(parse(authority_text()))
    [problem] = parse_documents(text_of("v1", "ConfigMap", "ca", "data: {ca.crt: nonsense}"), "f").problems
    assert (problem.path, problem.code) == ("data.ca.crt", "certificate-value")


@pytest.mark.parametrize(
    ("rest", "code"),
    [
        pytest.param("validation: {wellKnownCACertificates: System, hostname: a.test}, options: {a: b}", "unsupported"),
        pytest.param("validation: {hostname: a.test}", "combination", id="nobody"),
        pytest.param(
            "validation: {wellKnownCACertificates: System, hostname: a.test, "
            "caCertificateRefs: [{group: '', kind: ConfigMap, name: a}]}",
            "combination",
            id="both",
        ),
        pytest.param("validation: {wellKnownCACertificates: Other, hostname: a.test}", "invalid-value", id="others"),
    ],
)
def test_what_is_not_carried_out_of_a_backends_tls_is_refused_by_name(rest: str, code: str) -> None:
    spec = f"spec: {{targetRefs: [{{group: '', kind: Service, name: s}}], {rest}}}"
    [problem] = parse_documents(text_of(GATEWAY_API, "BackendTLSPolicy", "p", spec), "f").problems
    assert problem.code == code
