"""What an ingress gateway does with connections: whose a port and a name are, and by which rule they go on."""

from collections.abc import Iterable

from controller.kinds.istio_gateway import IstioGateway
from controller.kinds.meta import KubernetesObject
from controller.kinds.virtual_service import VirtualService
from controller.registry.gateways import Chain, RequestChain, StreamChain
from controller.registry.http import Reply, Target
from controller.registry.ingress import BoundRoutes
from controller.registry.ingress_ports import build_ports
from controller.registry.names import MeshSettings
from controller.registry.proxies import build_ingress
from controller.registry.virtual_services import find_gateways
from controller.snapshot import Snapshot
from tests.support.objects import parse
from tests.support.routing_world import ISTIO, PAIRS
from tests.support.secrets import secret_text

EDGE = build_ingress("istio-system", {"istio": "ingress"})
THROUGH, ENDED = "mode: PASSTHROUGH", "mode: SIMPLE, credentialName: c"


def written(kind: str, name: str, age: int, spec: str) -> KubernetesObject:
    metadata = f"{{name: {name}, namespace: demo, creationTimestamp: '2026-01-0{age}T00:00:00Z'}}"
    return parse(f"{{apiVersion: {ISTIO}, kind: {kind}, metadata: {metadata}, spec: {{{spec}}}}}")


def gateway(name: str, age: int, *servers: str) -> KubernetesObject:
    """Servers of one port, each as `PROTOCOL HOST TLS`; the latter may be absent."""
    parts = []
    for index, server in enumerate(servers):
        protocol, host, *tls = server.split(" ", 2)
        port = f"{{number: 443, name: s{index}, protocol: {protocol}}}"
        parts.append(f"{{port: {port}, hosts: ['{host}'], {f'tls: {{{tls[0]}}}' if tls else ''}}}")
    return written("Gateway", name, age, f"servers: [{', '.join(parts)}]")


def rules(name: str, age: int, hosts: str, rest: str) -> KubernetesObject:
    return written("VirtualService", name, age, f"hosts: [{hosts}], gateways: [old, new], {rest}")


def to(name: str) -> str:
    return f"route: [{{destination: {{host: {name}}}}}]"


def build(*values: KubernetesObject) -> tuple[Chain, ...]:
    """What is done at port 443. Destinations lead wherever they say."""
    snapshot = Snapshot().apply(
        {each.key: each for each in (*values, parse(secret_text("c", PAIRS[0], EDGE.namespace)))}
    )
    services = list(snapshot.objects(VirtualService))

    def find_bound(place: tuple[str, str]) -> Iterable[VirtualService]:
        return (each for each in services if place in find_gateways(each))

    bound = BoundRoutes(
        find_bound, lambda *_: (), lambda place, port: lambda each: Target(place, each.host, port, each.subset or "")
    )
    assert list(snapshot.objects(IstioGateway))
    return build_ports(snapshot, MeshSettings(), EDGE, bound)[443]


def show(chains: Iterable[Chain]) -> dict[tuple[str, ...], str]:
    """By names, who takes the requests, or where connections go."""
    return {
        each.names: each.listener
        if isinstance(each, RequestChain)
        else ", ".join(destination.target.host for destination in each.destinations if destination.target)
        for each in chains
    }


def test_the_oldest_server_says_what_a_port_has() -> None:
    younger, older = gateway("new", 2, "HTTP *"), gateway("old", 1, "TCP *")
    [chain] = build(younger, older, rules("v", 1, "'*'", f"tcp: [{{{to('s')}}}]"))
    assert isinstance(chain, StreamChain)
    assert not chain.names_server
    [chain] = build(gateway("old", 1, "HTTP *"), gateway("new", 2, "TCP *"))
    assert isinstance(chain, RequestChain)
    assert chain.secrets is None


def test_a_name_is_the_oldest_servers_that_has_it_and_the_most_specific_counts() -> None:
    older = gateway("old", 1, f"HTTPS a.test {ENDED}", f"HTTPS *.test {ENDED}")
    younger = gateway("new", 2, f"TLS a.test {THROUGH}", f"TLS b.test {THROUGH}")
    tls = f"tls: [{{match: [{{sniHosts: [a.test, b.test, c.test]}}], {to('s')}}}]"
    assert show(build(older, younger, rules("v", 1, "'*'", tls))) == {
        ("a.test",): "demo/old/s0",
        ("*.test",): "demo/old/s1",
        ("b.test",): "s",
    }


def test_requests_by_the_name_of_another_server_are_misdirected() -> None:
    chains = build(gateway("old", 1, f"HTTPS *.test {ENDED}", f"HTTPS a.test {ENDED}"), rules("v", 1, "'*'", ""))
    wide, own = (each for each in chains if isinstance(each, RequestChain))
    found = {
        chain.listener: {host.domains: any(route.action == Reply(421) for route in host.routes) for host in chain.hosts}
        for chain in (wide, own)
    }
    assert found == {
        "demo/old/s0": {("*.test",): False, ("a.test",): True},
        "demo/old/s1": {("a.test",): False, ("*.test",): True},
    }


def test_any_name_stands_alone() -> None:
    port = "{number: 443, name: s, protocol: HTTPS}"
    both = written("Gateway", "old", 1, f"servers: [{{port: {port}, hosts: [a.test, '*'], tls: {{{ENDED}}}}}]")
    assert show(build(both)) == {("a.test",): "demo/old/s", ("*",): "demo/old/s"}


def test_a_name_that_passes_through_goes_by_the_oldest_rule_within_the_hosts_that_are_shared() -> None:
    narrow, any_name = (f"match: [{{sniHosts: [{names}]}}]" for names in ("'*.a.test', c.test", "'*'"))
    tls = f"tls: [{{{narrow}, {to('s')}}}, {{{any_name}, {to('t')}}}]"
    services = [rules("w", 2, "'*.test'", tls.replace("s}", "late}")), rules("v", 1, "'*.a.test', b.test", tls)]
    assert show(build(gateway("old", 1, f"TLS *.test {THROUGH}"), *services)) == {
        ("*.a.test",): "s",
        ("b.test",): "t",
        ("c.test",): "late",
        ("*.test",): "t",
    }


def test_tcp_rules_are_for_tls_that_ends_and_tls_rules_for_tls_that_passes_through() -> None:
    both = f"tcp: [{{{to('s')}}}], tls: [{{match: [{{sniHosts: [a.test, b.test]}}], {to('t')}}}]"
    found = build(gateway("old", 1, f"TLS a.test {ENDED}", f"TLS b.test {THROUGH}"), rules("v", 1, "'*'", both))
    assert show(found) == {("a.test",): "s", ("b.test",): "t"}
    assert [each.secrets for each in found] == [(("istio-system", "c"),), None]


def test_matches_of_other_ports_gateways_and_of_the_mesh_do_not_count() -> None:
    matches = ("port: 80", "gateways: [other]", "gateways: [mesh]", "port: 443, gateways: [demo/old]")
    tcp = ", ".join(f"{{match: [{{{match}}}], {to(f's{number}')}}}" for number, match in enumerate(matches))
    assert show(build(gateway("old", 1, "TCP *"), rules("v", 1, "'*'", f"tcp: [{tcp}]"))) == {("*",): "s3"}


def test_a_server_without_its_secret_has_no_certificate_and_keeps_its_name() -> None:
    missing = "mode: SIMPLE, credentialName: missing"
    [own, wide] = build(gateway("old", 1, f"HTTPS a.test {missing}", f"HTTPS *.test {ENDED}"))
    assert (own.names, own.secrets) == (("a.test",), ())
    assert (wide.names, wide.secrets) == (("*.test",), (("istio-system", "c"),))
