"""What VirtualServices and DestinationRules may not say is refused, with a code and the field."""

import pytest

from controller.sources.documents import parse_documents


def find_problem(kind: str, spec: str) -> tuple[str, str] | None:
    """The code and the field of what is refused; None where nothing is."""
    text = f"{{apiVersion: networking.istio.io/v1, kind: {kind}, metadata: {{name: x}}, spec: {{{spec}}}}}"
    problems = parse_documents(text, "test.yaml").problems
    return (problems[0].code, problems[0].path.removeprefix("spec.")) if problems else None


def policy(rest: str) -> str:
    return f"host: s, trafficPolicy: {{{rest}}}"


TLS = "trafficPolicy.tls"
LOCALITY = "trafficPolicy.loadBalancer.localityLbSetting"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param("host: s, workloadSelector: {}", ("unsupported", "workloadSelector"), id="workload-selector"),
        pytest.param(policy("tunnel: {}"), ("unsupported", "trafficPolicy.tunnel"), id="tunnel"),
        pytest.param(
            policy("tls: {mode: SIMPLE, credentialName: c}"), ("unsupported", f"{TLS}.credentialName"), id="secret"
        ),
        pytest.param(policy("tls: {mode: SIMPLE}"), None, id="simple"),
        pytest.param(policy("tls: {mode: MUTUAL}"), ("combination", TLS), id="mutual-without-files"),
        pytest.param(
            policy("tls: {mode: SIMPLE, clientCertificate: /c, privateKey: /k}"),
            ("combination", TLS),
            id="simple-files",
        ),
        pytest.param(
            policy("tls: {mode: MUTUAL, clientCertificate: c, privateKey: /k}"),
            ("file-path", f"{TLS}.clientCertificate"),
            id="relative-file",
        ),
        pytest.param(
            policy("tls: {mode: SIMPLE, insecureSkipVerify: true, subjectAltNames: [a]}"),
            ("combination", TLS),
            id="names-that-are-not-verified",
        ),
        pytest.param(policy("tls: {mode: DISABLE, caCertificates: /c}"), ("combination", TLS), id="roots-of-nothing"),
        pytest.param(policy("tls: {mode: SIMPLE, caCrl: /c}"), ("combination", TLS), id="list-of-system-roots"),
        pytest.param(
            policy("loadBalancer: {localityLbSetting: {failoverPriority: [version]}}"),
            ("unsupported", f"{LOCALITY}.failoverPriority[0]"),
            id="a-label-of-the-proxy",
        ),
        pytest.param(
            policy("loadBalancer: {localityLbSetting: {failover: [{from: a, to: a}]}}"),
            ("locality", LOCALITY),
            id="for-itself",
        ),
        pytest.param(
            policy("loadBalancer: {localityLbSetting: {failover: [{from: a/b, to: c}]}}"),
            ("locality", f"{LOCALITY}.failover[0].from"),
            id="no-region",
        ),
        pytest.param(
            policy("loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b: 50, c: 40}}]}}"),
            ("locality", f"{LOCALITY}.distribute[0]"),
            id="ninety-percent",
        ),
        pytest.param(
            policy("loadBalancer: {localityLbSetting: {distribute: [{from: '*/b', to: {b: 100}}]}}"),
            ("locality", f"{LOCALITY}.distribute[0].from"),
            id="star-before-the-end",
        ),
        pytest.param(
            policy(
                "loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b: 100}}], "
                "failover: [{from: a, to: b}]}}"
            ),
            ("combination", LOCALITY),
            id="shares-and-failover",
        ),
        pytest.param(
            policy("loadBalancer: {simple: PASSTHROUGH}"),
            ("invalid-value", "trafficPolicy.loadBalancer.simple"),
            id="passthrough",
        ),
        pytest.param(
            policy("loadBalancer: {localityLbSetting: {enabled: false}}, proxyProtocol: {}, retryBudget: {}"),
            None,
            id="defaults",
        ),
    ],
)
def test_a_destination_rule_is_taken_or_refused(spec: str, expected: tuple[str, str] | None) -> None:
    assert find_problem("DestinationRule", spec) == expected


ROUTE = "route: [{destination: {host: s}}]"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param(
            f"hosts: [s], http: [{{match: [{{sourceLabels: {{a: b}}}}], {ROUTE}}}]",
            ("unsupported", "http[0].match[0].sourceLabels"),
            id="source-labels",
        ),
        pytest.param(
            f"hosts: [s], http: [{{match: [{{sourceNamespace: a}}], {ROUTE}}}]",
            ("unsupported", "http[0].match[0].sourceNamespace"),
            id="source-namespace",
        ),
        pytest.param(
            f"hosts: [s], tcp: [{{match: [{{destinationSubnets: [192.0.2.0/24]}}], {ROUTE}}}]",
            ("unsupported", "tcp[0].match[0].destinationSubnets"),
            id="subnets",
        ),
        pytest.param(
            f"hosts: [s], tls: [{{match: [{{port: 443}}], {ROUTE}}}]",
            ("missing-field", "tls[0].match[0].sniHosts"),
            id="no-sni",
        ),
        pytest.param(f"hosts: [s], tls: [{{match: [{{sniHosts: ['*.a.b']}}], {ROUTE}}}]", None, id="sni"),
        pytest.param(
            "hosts: [s], tcp: [{route: [{destination: {host: s}}, {destination: {host: t}}]}]",
            ("combination", "tcp[0]"),
            id="no-weights",
        ),
        pytest.param(
            f"hosts: [s], gateways: [mesh, web], tcp: [{{match: [{{gateways: [web]}}], {ROUTE}}}]",
            None,
            id="bytes-at-a-gateway",
        ),
        pytest.param(f"hosts: [s], gateways: [web], tcp: [{{{ROUTE}}}]", None, id="bytes-at-a-gateway-alone"),
        pytest.param(f"hosts: [s], gateways: [web, mesh], tcp: [{{{ROUTE}}}]", None, id="bytes-in-the-mesh"),
        pytest.param(
            f"hosts: [s], gateways: [web], tcp: [{{match: [{{destinationSubnets: [192.0.2.0/24]}}], {ROUTE}}}]",
            ("unsupported", "tcp[0].match[0].destinationSubnets"),
            id="bytes-to-a-subnet",
        ),
        pytest.param(f"http: [{{{ROUTE}}}]", None, id="a-delegate"),
        pytest.param(f"tcp: [{{{ROUTE}}}]", ("combination", "spec"), id="a-delegate-of-bytes"),
        pytest.param("http: [{delegate: {name: d}}]", ("combination", "spec"), id="a-delegate-that-delegates"),
        pytest.param(
            f"hosts: [s], http: [{{delegate: {{name: d}}, {ROUTE}}}]", ("combination", "http[0]"), id="two-actions"
        ),
    ],
)
def test_a_virtual_service_is_taken_or_refused(spec: str, expected: tuple[str, str] | None) -> None:
    assert find_problem("VirtualService", spec) == expected
