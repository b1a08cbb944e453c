"""ServiceEntries and WorkloadEntries: what is refused, and what the mesh makes of the others."""

from ipaddress import ip_address, ip_network

import pytest

from controller.kinds.meta import KubernetesObject
from controller.registry.entries import EntryHosts, build_host_service
from controller.registry.names import MeshSettings
from controller.sources.documents import parse_documents
from mesh.wire import workload_pb2 as pb
from tests.support import objects
from tests.support.publishing import publish

MESH = MeshSettings()


@pytest.mark.parametrize(
    ("spec", "path", "text"),
    [
        ("hosts: []", "spec.hosts", "at least 1"),
        ("hosts: ['*.example']", "spec.hosts[0]", "needs a waypoint"),
        ("hosts: [192.0.2.1]", "spec.hosts[0]", "is not a DNS name"),
        ("hosts: [a.example], resolution: DYNAMIC_DNS", "spec.resolution", "needs a waypoint"),
        ("hosts: [a.example]", "spec", "resolution NONE needs addresses"),
        ("hosts: [a.example], resolution: STATIC", "spec", "needs endpoints or a workloadSelector"),
        ("hosts: [a.example], resolution: STATIC, endpoints: [{address: b.example}]", "spec", "b.example is a name"),
        ("hosts: [a.example], resolution: DNS, endpoints: [{}]", "spec", "needs an address"),
        (
            "hosts: [a.example], resolution: DNS, endpoints: [{address: 'unix:///x'}]",
            "spec.endpoints[0].address",
            "unix",
        ),
        (
            "hosts: [a.example], resolution: DNS, endpoints: [{address: b.c, network: n}]",
            "spec.endpoints[0].network",
            "networks",
        ),
        ("hosts: [a.example], resolution: DNS, exportTo: [other]", "spec.exportTo[0]", "this namespace"),
        (
            "hosts: [a.example], resolution: DNS, ports: [{number: 1, name: a, protocol: UDP}]",
            "spec.ports[0].protocol",
            "TCP",
        ),
        ("hosts: [a.example], resolution: DNS, host: [b]", "spec.host", ""),
    ],
)
def test_what_could_not_be_carried_out_is_refused_with_its_place(spec: str, path: str, text: str) -> None:
    parsed = parse_documents(
        f"apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: a}}\nspec: {{{spec}}}", "a.yaml"
    )
    assert not parsed.objects
    [problem] = parsed.problems
    assert problem.path == path
    assert text in problem.message


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha3"])
def test_every_version_is_read(version: str) -> None:
    parsed = parse_documents(
        f"apiVersion: networking.istio.io/{version}\nkind: WorkloadEntry\nmetadata: {{name: a}}\n"
        "spec: {address: 192.0.2.1}",
        "a.yaml",
    )
    assert not parsed.problems


def test_names_that_are_resolved_are_their_own_endpoints() -> None:
    served = publish(
        objects.service_entry(
            "hosts: [a.example, b.example], resolution: DNS, ports: [{number: 443, name: tls, protocol: TLS}]"
        )
    )
    service = served["demo/a.example"].service
    assert (service.hostname, service.name, service.namespace) == ("a.example", "entry", "demo")
    assert [(port.service_port, port.target_port, port.app_protocol) for port in service.ports] == [(443, 443, pb.TLS)]
    first, second = (served[f"Kubernetes/networking.istio.io/ServiceEntry/demo/entry/{host}.example"] for host in "ab")
    assert (first.workload.hostname, list(first.workload.services)) == ("a.example", ["demo/a.example"])
    assert (second.workload.hostname, list(second.workload.services)) == ("b.example", ["demo/b.example"])
    assert first.workload.tunnel_protocol == pb.NONE


def test_endpoints_carry_ports_place_account_and_weight() -> None:
    served = publish(
        objects.service_entry(
            "hosts: [a.example], resolution: STATIC, location: MESH_INTERNAL, "
            "ports: [{number: 80, name: http, targetPort: 8080}, {number: 81, name: other}], endpoints: ["
            "{address: 203.0.113.1, ports: {http: 9090}, locality: r/z/s, weight: 3, serviceAccount: vm, "
            "labels: {app: web, networking.istio.io/tunnel: http}}, {address: '2001:db8::1'}]"
        )
    )
    one = served["Kubernetes/networking.istio.io/ServiceEntry/demo/entry/203.0.113.1"].workload
    assert one.addresses == [ip_address("203.0.113.1").packed]
    ports = one.services["demo/a.example"].ports
    assert [(port.service_port, port.target_port) for port in ports] == [(80, 9090), (81, 81)]
    assert (one.locality.region, one.locality.zone, one.locality.subzone) == ("r", "z", "s")
    assert (one.capacity.value, one.service_account, one.canonical_name) == (3, "vm", "web")
    assert one.native_tunnel
    other = served["Kubernetes/networking.istio.io/ServiceEntry/demo/entry/2001:db8::1"].workload
    assert [port.target_port for port in other.services["demo/a.example"].ports] == [8080, 81]


def test_without_resolution_the_client_chooses_among_addresses_and_ranges() -> None:
    served = publish(objects.service_entry("hosts: [a.example], addresses: [203.0.113.0/24, 192.0.2.1]"))
    service = served["demo/a.example"].service
    assert [(each.address, each.length) for each in service.addresses] == [
        (ip_address("192.0.2.1").packed, 0),
        (ip_network("203.0.113.0/24").network_address.packed, 24),
    ]
    assert service.load_balancing.mode == pb.LoadBalancing.PASSTHROUGH
    assert service.load_balancing.health_policy == pb.LoadBalancing.ALLOW_ALL
    assert list(served) == ["demo/a.example"]


def test_a_selector_takes_pods_and_entries_by_the_names_of_their_ports() -> None:
    served = publish(
        objects.service_entry(
            "hosts: [a.example], resolution: STATIC, workloadSelector: {labels: {app: web}}, "
            "ports: [{number: 80, name: http}, {number: 81, name: other, targetPort: 8181}]"
        ),
        objects.pod(spec="containers: [{ports: [{name: http, containerPort: 8080}]}]"),
        objects.workload_entry("address: vm.example, ports: {other: 9191}"),
        objects.pod("elsewhere", "other"),
    )
    of_pod = served["Kubernetes//Pod/demo/web-1"].workload.services["demo/a.example"].ports
    assert [(port.service_port, port.target_port) for port in of_pod] == [(80, 8080), (81, 8181)]
    entry = served["Kubernetes/networking.istio.io/WorkloadEntry/demo/vm"].workload
    assert entry.hostname == "vm.example"
    assert [(port.service_port, port.target_port) for port in entry.services["demo/a.example"].ports] == [
        (80, 80),
        (81, 9191),
    ]
    assert not served["Kubernetes//Pod/other/elsewhere"].workload.services


def test_a_kubernetes_service_takes_entries_too() -> None:
    served = publish(
        objects.service(
            spec="selector: {app: web}, ports: [{port: 80, targetPort: http}, {port: 81, targetPort: 8181}]"
        ),
        objects.workload_entry("address: 203.0.113.1, ports: {http: 8080}"),
        objects.peer("mtls: {mode: STRICT}"),
    )
    entry = served["Kubernetes/networking.istio.io/WorkloadEntry/demo/vm"].workload
    ports = entry.services["demo/web.demo.svc.cluster.local"].ports
    assert [(port.service_port, port.target_port) for port in ports] == [(80, 8080), (81, 8181)]
    assert entry.authorization_policies == ["istio-system/istio_converted_static_strict"]


def test_of_several_claimants_of_a_host_the_service_goes_first_and_then_the_oldest() -> None:
    def entry(name: str, namespace: str, host: str, born: str) -> KubernetesObject:
        spec = f"hosts: [{host}], resolution: DNS"
        return objects.service_entry(spec, name, namespace, f'creationTimestamp: "2026-01-0{born}"')

    served = publish(
        objects.service(),
        entry("of-service", "demo", "web.demo.svc.cluster.local", "1"),
        entry("of-service", "other", "web.demo.svc.cluster.local", "1"),
        entry("young", "demo", "a.example", "3"),
        entry("old", "demo", "a.example", "2"),
        entry("oldest", "other", "a.example", "1"),
    )
    assert served["demo/web.demo.svc.cluster.local"].service.name == "web"
    assert not served["other/web.demo.svc.cluster.local"].service.canonical
    assert served["demo/a.example"].service.name == "old"
    assert not served["demo/a.example"].service.canonical
    assert served["other/a.example"].service.canonical
    assert "Kubernetes/networking.istio.io/ServiceEntry/demo/young/a.example" not in served


def addresses(*values: KubernetesObject) -> dict[str, tuple[str, ...]]:
    hosts = EntryHosts(objects.build_snapshot(*values), MESH).by_place
    return {host: tuple(map(str, build_host_service(found).addresses)) for (_, host), found in hosts.items()}


def test_hosts_get_addresses_that_stay_and_are_never_shared() -> None:
    many = [
        objects.service_entry(
            f"hosts: [h{number}.example], resolution: DNS", f"e{number}", metadata=f'creationTimestamp: "{number:04}"'
        )
        for number in range(1500)
    ]
    given = addresses(*many)
    assert len({ip for both in given.values() for ip in both}) == 2 * len(many)
    assert all(v4.startswith("240.240.") and v6.startswith("2001:2:") for v4, v6 in given.values())
    fewer = addresses(*many[:700])
    assert fewer == {host: given[host] for host in fewer}, "the younger moves on, never the older"


@pytest.mark.parametrize(
    ("spec", "metadata", "status", "expected"),
    [
        ("resolution: DNS", "", "addresses: [{value: 192.0.2.7, host: a.example}]", ("192.0.2.7",)),
        ("resolution: DNS", 'labels: {networking.istio.io/enable-autoallocate-ip: "false"}', "", ()),
        ("resolution: DNS, addresses: [192.0.2.8]", "", "", ("192.0.2.8",)),
    ],
)
def test_addresses_that_are_given_are_kept(spec: str, metadata: str, status: str, expected: tuple[str, ...]) -> None:
    entry = objects.service_entry(f"hosts: [a.example], {spec}", metadata=metadata, status=status)
    assert addresses(entry) == {"a.example": expected}


def test_an_entry_for_its_own_namespace_says_so() -> None:
    assert (
        publish(objects.service_entry("hosts: [a.example], resolution: DNS, exportTo: ['.']"))[
            "demo/a.example"
        ].service.visibility
        == pb.Service.NAMESPACE
    )
