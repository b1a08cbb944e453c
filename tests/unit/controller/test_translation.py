"""Values to xDS resources: the wire forms that ztunnels, ours and stock ones, go by."""

import json

import pytest
from google.protobuf import json_format
from google.protobuf.wrappers_pb2 import BoolValue

from controller.kinds.security import AuthorizationPolicy
from controller.registry import policies, services, workloads
from controller.registry.names import MeshSettings
from controller.registry.policies import PeerMode
from controller.translate import addresses, authorizations
from mesh.wire import workload_pb2 as pb
from tests.support import objects

MESH = MeshSettings()
NO_IDENTITY: dict[str, object] = {"notPrincipals": [{"presence": {}}]}


def show(message: pb.Address) -> dict[str, object]:
    shown: dict[str, object] = json.loads(json_format.MessageToJson(message))
    return shown


def test_workload_resource() -> None:
    pod = objects.pod(
        metadata="annotations: {ambient.istio.io/redirection: enabled}",
        status='podIPs: [{ip: 198.51.100.1}, {ip: "2001:db8::1"}]',
    )
    node = objects.node(labels="topology.kubernetes.io/zone: z1")
    service = services.build_service(
        objects.service(spec="selector: {app: web}, ports: [{port: 80, targetPort: 8080}]"), None, MESH
    )
    workload = workloads.build_workload(pod, node, None, [service], ["demo/b", "demo/a"], MESH)
    assert show(addresses.translate_workload(workload, MESH)) == {
        "workload": {
            "uid": "Kubernetes//Pod/demo/web-1",
            "name": "web-1",
            "namespace": "demo",
            "addresses": ["xjNkAQ==", "IAENuAAAAAAAAAAAAAAAAQ=="],
            "tunnelProtocol": "HBONE",
            "serviceAccount": "web",
            "node": "node-1",
            "canonicalName": "web",
            "canonicalRevision": "latest",
            "workloadType": "POD",
            "workloadName": "web-1",
            "authorizationPolicies": ["demo/a", "demo/b"],
            "clusterId": "Kubernetes",
            "locality": {"zone": "z1"},
            "services": {"demo/web.demo.svc.cluster.local": {"ports": [{"servicePort": 80, "targetPort": 8080}]}},
        }
    }
    assert addresses.find_workload_aliases(workload) == ("/198.51.100.1", "/2001:db8::1")


def test_workload_that_demands_a_tunnel_says_so_in_an_extension() -> None:
    pod = objects.pod(labels="ambit.dev/node-local: disabled")
    workload = workloads.build_workload(pod, None, None, [], [], MESH)
    (extension,) = addresses.translate_workload(workload, MESH).workload.extensions
    allowed = BoolValue(value=True)
    assert extension.name == "ambit.dev/node-local"
    assert extension.config.Unpack(allowed)
    assert allowed.value is False


def test_workload_on_the_hosts_network_is_not_found_by_address() -> None:
    workload = workloads.build_workload(objects.pod(spec="hostNetwork: true"), None, None, [], [], MESH)
    assert addresses.translate_workload(workload, MESH).workload.network_mode == pb.HOST_NETWORK
    assert addresses.find_workload_aliases(workload) == ()


def test_trust_domain_is_left_out_only_when_it_is_the_default() -> None:
    workload = workloads.build_workload(objects.pod(), None, None, [], [], MESH)
    assert addresses.translate_workload(workload, MESH).workload.trust_domain == ""
    other = MeshSettings(trust_domain="example.org")
    assert addresses.translate_workload(workload, other).workload.trust_domain == "example.org"


def test_service_resource() -> None:
    source = objects.service(
        spec='clusterIPs: [192.0.2.1, "2001:db8::1"], ipFamilies: [IPv4, IPv6], selector: {app: web}, '
        "ports: [{port: 80, targetPort: web, name: http}, {port: 81}], trafficDistribution: PreferClose, "
        "publishNotReadyAddresses: true"
    )
    service = services.build_service(source, None, MESH)
    assert show(addresses.translate_service(service)) == {
        "service": {
            "name": "web",
            "namespace": "demo",
            "hostname": "web.demo.svc.cluster.local",
            "addresses": [{"address": "wAACAQ=="}, {"address": "IAENuAAAAAAAAAAAAAAAAQ=="}],
            "ports": [{"servicePort": 80, "appProtocol": "HTTP11"}, {"servicePort": 81, "targetPort": 81}],
            "ipFamilies": "DUAL",
            "canonical": True,
            "loadBalancing": {
                "routingPreference": ["NETWORK", "REGION", "ZONE"],
                "mode": "FAILOVER",
                "healthPolicy": "ALLOW_ALL",
            },
        }
    }
    assert addresses.find_service_keys(service) == ("/192.0.2.1", "/2001:db8::1")


def clauses_of(rule: str) -> list[object]:
    """The matches of each clause of a policy's one rule."""
    message = authorizations.translate_policy(objects.authorization(f"rules: [{{{rule}}}]"), MESH)
    shown = json.loads(json_format.MessageToJson(message))
    return [clause["matches"] for clause in shown["rules"][0].get("clauses", [])]


@pytest.mark.parametrize(
    ("rule", "clauses"),
    [
        pytest.param("", [], id="empty-rule-matches-everything"),
        pytest.param(
            'from: [{source: {principals: ["*", "a/*", "*/b", "c"]}}]',
            [[{"principals": [{"presence": {}}, {"prefix": "a/"}, {"suffix": "/b"}, {"exact": "c"}]}]],
            id="patterns",
        ),
        pytest.param(
            "from: [{source: {namespaces: [a], notPrincipals: [b]}}, {source: {notNamespaces: [c]}}]",
            [
                [
                    {"namespaces": [{"exact": "a"}], "notPrincipals": [{"exact": "b"}]},
                    {"notNamespaces": [{"exact": "c"}]},
                ]
            ],
            id="sources-are-alternatives-and-their-fields-are-not",
        ),
        pytest.param(
            "from: [{source: {serviceAccounts: [web, other/api], notServiceAccounts: [x]}}]",
            [
                [
                    {
                        "serviceAccounts": [
                            {"namespace": "demo", "serviceAccount": "web"},
                            {"namespace": "other", "serviceAccount": "api"},
                        ],
                        "notServiceAccounts": [{"namespace": "demo", "serviceAccount": "x"}],
                    }
                ]
            ],
            id="service-accounts",
        ),
        pytest.param(
            'from: [{source: {ipBlocks: [10.1.2.3/8, 192.0.2.1, "2001:db8::/32"], notIpBlocks: [10.9.0.0/16]}}]',
            [
                [
                    {
                        "sourceIps": [
                            {"address": "CgAAAA==", "length": 8},
                            {"address": "wAACAQ==", "length": 32},
                            {"address": "IAENuAAAAAAAAAAAAAAAAA==", "length": 32},
                        ],
                        "notSourceIps": [{"address": "CgkAAA==", "length": 16}],
                    }
                ]
            ],
            id="ip-blocks",
        ),
        pytest.param(
            'to: [{operation: {ports: ["80", "443"]}}, {operation: {notPorts: ["22"]}}]',
            [[{"destinationPorts": [80, 443]}, {"notDestinationPorts": [22]}]],
            id="ports",
        ),
        pytest.param(
            'to: [{operation: {ports: ["80"]}}], from: [{source: {namespaces: [a]}}], '
            "when: [{key: source.ip, values: [10.0.0.0/8]}, {key: destination.ip, notValues: [192.0.2.1]}, "
            '{key: destination.port, values: ["1"]}, {key: source.namespace, values: ["*"]}, '
            "{key: source.principal, values: [p], notValues: [q]}]",
            [
                [{"destinationPorts": [80]}],
                [{"namespaces": [{"exact": "a"}]}],
                [{"sourceIps": [{"address": "CgAAAA==", "length": 8}]}],
                [{"notDestinationIps": [{"address": "wAACAQ==", "length": 32}]}],
                [{"destinationPorts": [1]}],
                [{"namespaces": [{"presence": {}}]}],
                [{"principals": [{"exact": "p"}], "notPrincipals": [{"exact": "q"}]}],
            ],
            id="everything-is-a-clause-of-its-own",
        ),
    ],
)
def test_rule_becomes_clauses(rule: str, clauses: list[object]) -> None:
    assert clauses_of(rule) == clauses


@pytest.mark.parametrize(
    ("policy", "scope", "action", "rules"),
    [
        pytest.param(objects.authorization(""), "NAMESPACE", "ALLOW", 0, id="allow-nothing"),
        pytest.param(objects.authorization("rules: [{}]"), "NAMESPACE", "ALLOW", 1, id="allow-everything"),
        pytest.param(objects.authorization("action: DENY", namespace="istio-system"), "GLOBAL", "DENY", 0, id="mesh"),
        pytest.param(
            objects.authorization("selector: {matchLabels: {a: b}}, rules: [{}, {}]", namespace="istio-system"),
            "WORKLOAD_SELECTOR",
            "ALLOW",
            2,
            id="selector-in-root",
        ),
    ],
)
def test_scope_and_action(policy: AuthorizationPolicy, scope: str, action: str, rules: int) -> None:
    message = authorizations.translate_policy(policy, MESH)
    shown = json.loads(json_format.MessageToJson(message, always_print_fields_with_no_presence=True))
    assert (shown["scope"], shown["action"], len(shown["rules"])) == (scope, action, rules)
    assert (shown["namespace"], shown["name"]) == (policy.namespace, "policy")


@pytest.mark.parametrize(
    ("base", "ports", "rules"),
    [
        pytest.param(
            PeerMode.PERMISSIVE,
            [80, 81],
            [[[{**NO_IDENTITY}], [{"destinationPorts": [80]}]], [[{**NO_IDENTITY}], [{"destinationPorts": [81]}]]],
            id="strict-ports-one-rule-each",
        ),
        pytest.param(
            PeerMode.STRICT,
            [80, 81],
            [[[{**NO_IDENTITY}], [{"notDestinationPorts": [80, 81]}]]],
            id="permissive-ports-in-one-rule",
        ),
    ],
)
def test_port_exceptions_deny_plaintext_on_the_right_ports(base: PeerMode, ports: list[int], rules: object) -> None:
    policy = objects.peer("selector: {matchLabels: {app: web}}")
    shown = json.loads(json_format.MessageToJson(authorizations.translate_port_exceptions(policy, base, ports)))
    assert [[clause["matches"] for clause in rule["clauses"]] for rule in shown["rules"]] == rules
    assert (shown["scope"], shown["action"]) == ("WORKLOAD_SELECTOR", "DENY")
    assert shown["name"] == policies.CONVERTED_PREFIX + "peer"


def test_static_strict_denies_whoever_has_no_identity() -> None:
    shown = json.loads(json_format.MessageToJson(authorizations.build_static_strict(MESH)))
    assert shown == {
        "name": "istio_converted_static_strict",
        "namespace": "istio-system",
        "scope": "WORKLOAD_SELECTOR",
        "action": "DENY",
        "rules": [{"clauses": [{"matches": [NO_IDENTITY]}]}],
    }
