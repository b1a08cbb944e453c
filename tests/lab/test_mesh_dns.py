"""DNS of a pod goes to its ztunnel: names of the mesh are answered there, everything else by a real name server."""

import socket
import struct
import time
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address

from ambit.demo.polling import wait_for
from tests.support.chosen_mesh import ChosenMesh, Host, Pod, Ztunnel, chosen_mesh
from tests.support.chosen_resources import endpoint_of, service
from tests.support.isolation import isolated
from tests.support.mesh import total

VIP = "203.0.113.1"
PORT = 8080
A, TXT, AAAA, SRV, OPT = 1, 16, 28, 33, 41
SERVFAIL, NXDOMAIN = 2, 3
NOTIFY = 4
MANY = 60
"""Addresses of one name: more than 512 bytes hold."""


@dataclass(frozen=True, slots=True)
class Site:
    client: Pod
    server: Pod
    names: Host
    near: Ztunnel


def build(mesh: ChosenMesh, *, dns: bool = True, serve: bool = True) -> Site:
    """A client whose DNS is captured, a server behind a service and a headless one, and a name server outside."""
    client, server = mesh.add_pod("client", dns=dns), mesh.add_pod("server")
    names = mesh.add_host("names")
    web, headless = service("web", VIP, {80: PORT}), service("db", "", {80: PORT})
    workload = endpoint_of(endpoint_of(server.workload(), web), headless)
    mesh.tell(client.workload(), workload, web, headless)
    if serve:
        start_name_server(mesh, names)
    resolv_conf = mesh.folder / "resolv.conf"
    resolv_conf.write_text(f"search ignored.example\nnameserver {names.address}\n")
    near = mesh.start_ztunnel(DNS_RESOLV_CONF=str(resolv_conf), RUST_LOG="debug")
    return Site(client, server, names, near)


def start_name_server(mesh: ChosenMesh, place: Host) -> None:
    records = [f"--host-record=big.example,198.51.100.{last}" for last in range(1, MANY + 1)]
    log = mesh.run(
        place,
        *("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root"),
        *("--pid-file=", "--log-facility=-", "--log-queries", "--auth-ttl=60", "--auth-server=ns.zone.example"),
        *("--local=/example/", "--host-record=outside.example,198.51.100.200", "--txt-record=text.example,hello"),
        *("--srv-host=_web._tcp.example,outside.example,80,1,2", *records),
    )
    assert wait_for(partial(listens, place), 10.0), log.read_text()


def listens(place: Host) -> bool:
    return ":53 " in place.execute("ss", "--udp", "--listening", "--numeric", "--no-header")


@dataclass(frozen=True, slots=True)
class Reply:
    raw: bytes
    addresses: list[str]

    @property
    def code(self) -> int:
        return self.raw[3] & 15

    @property
    def authoritative(self) -> bool:
        return bool(self.raw[2] & 4)

    @property
    def truncated(self) -> bool:
        return bool(self.raw[2] & 2)

    @property
    def counts(self) -> tuple[int, ...]:
        return struct.unpack_from("!4H", self.raw, 4)


def build_query(name: str, kind: int, *, opcode: int = 0, edns: bool = False) -> bytes:
    head = struct.pack("!6H", 0x1234, opcode << 11 | 0x100, 1, 0, 0, int(edns))
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    additional = struct.pack("!BHHIH", 0, OPT, 4096, 0x8000, 0) if edns else b""
    return head + labels + struct.pack("!BHH", 0, kind, 1) + additional


def read_reply(raw: bytes, query: bytes) -> Reply:
    """The addresses of a reply whose owners are pointers, as ours and dnsmasq's are."""
    assert raw[:2] == query[:2]
    addresses, at = [], 12
    while raw[at]:
        at += raw[at] + 1
    at += 5
    for _ in range(struct.unpack_from("!H", raw, 6)[0]):
        assert raw[at] & 0xC0 == 0xC0, raw
        kind, _, _, length = struct.unpack_from("!HHIH", raw, at + 2)
        data = raw[at + 12 : at + 12 + length]
        if kind in (A, AAAA):
            addresses.append(str(ip_address(data)))
        at += 12 + length
    return Reply(raw, addresses)


def send(site: Site, query: bytes, *, tcp: bool = False, server: str = "") -> bytes:
    """What the pod gets for these bytes from a name server somewhere, which it need not reach."""
    address = (server or site.names.address, 53)
    if tcp:
        with site.client.connect(*address) as connection:
            connection.sendall(struct.pack("!H", len(query)) + query)
            with connection.makefile("rb") as replies:
                return replies.read(struct.unpack("!H", replies.read(2))[0])
    with site.client.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as asking:
        asking.settimeout(10.0)
        asking.sendto(query, address)
        reply, sender = asking.recvfrom(65535)
        assert sender == address
        return reply


def ask(site: Site, name: str, kind: int = A, *, tcp: bool = False, edns: bool = False) -> Reply:
    query = build_query(name, kind, edns=edns)
    return read_reply(send(site, query, tcp=tcp), query)


def has_line(near: Ztunnel, *parts: str) -> bool:
    lines = [line for line in near.log().splitlines() if "\tdns\t" in line]
    return any(all(part in line for part in parts) for line in lines)


@isolated
def test_names_of_the_mesh_are_answered_in_every_form() -> None:
    with chosen_mesh() as mesh:
        site = build(mesh)
        for name in (
            "web",
            "web.test",
            "web.test.svc",
            "WEB.test.svc.cluster.local",
            "web.test.test.svc.cluster.local",
        ):
            for tcp in (False, True):
                reply = ask(site, name, tcp=tcp)
                assert (reply.addresses, reply.code, reply.authoritative) == ([VIP], 0, True), name
        empty = ask(site, "web", AAAA)
        assert (empty.addresses, empty.code, empty.counts) == ([], 0, (1, 0, 0, 0))
        assert ask(site, "db.test").addresses == [site.server.address]
        assert ask(site, "db.test", AAAA).addresses == [site.server.addresses[1]]
        assert ask(site, "server.db.test.svc.cluster.local").addresses == [site.server.address]
        assert ask(site, "web", edns=True).counts == (1, 1, 0, 1)
        assert wait_for(partial(has_line, site.near, 'domain="web.test"', 'result="success"', VIP), 5.0)
        metrics = site.near.metrics()
        labels = {"request_query_type": "A", "source_canonical_service": "client"}
        assert total(metrics, "istio_dns_requests_total", request_protocol="tcp", **labels) == 5
        assert total(metrics, "istio_dns_upstream_requests_total") == 0


@isolated
def test_a_client_reaches_a_service_by_its_name() -> None:
    with chosen_mesh() as mesh:
        site = build(mesh)
        site.server.serve(PORT)
        resolv_conf = mesh.folder / "pod-resolv.conf"
        resolv_conf.write_text(f"nameserver {site.names.address}\nsearch test.svc.cluster.local svc.cluster.local\n")
        script = "mount --bind $0 /etc/resolv.conf && exec getent ahostsv4 $1"
        for name in ("web", "web.test", "web.test.svc.cluster.local"):
            found = site.client.execute("unshare", "--mount", "sh", "-c", script, str(resolv_conf), name)
            assert found.startswith(VIP), (name, found)
        assert site.client.ask(VIP, 80).server == "server"


@isolated
def test_everything_else_is_forwarded_as_it_is() -> None:
    with chosen_mesh() as mesh:
        site = build(mesh)
        # The very bytes that the server sends to somebody who asks it without a mesh between.
        for query in (
            build_query("outside.example", A),
            build_query("outside.example", A, edns=True),
            build_query("text.example", TXT),
            build_query("web.test", TXT),
            build_query("_web._tcp.example", SRV, edns=True),
            build_query("gone.example", A),
            build_query("outside.example", A, opcode=NOTIFY),
        ):
            for tcp in (False, True):
                through = send(site, query, tcp=tcp)
                assert through == send(Site(as_pod(site.names), site.server, site.names, site.near), query, tcp=tcp)
        assert ask(site, "gone.example").code == NXDOMAIN
        assert ask(site, "outside.example").addresses == ["198.51.100.200"]
        assert wait_for(partial(has_line, site.near, 'domain="outside.example"', 'result="forwarded"'), 5.0)
        metrics = site.near.metrics()
        assert total(metrics, "istio_dns_upstream_requests_total", request_query_type="TXT") == 4
        assert total(metrics, "istio_dns_upstream_failures_total") == 0
        duration = "istio_dns_upstream_request_duration_seconds"
        forwarded = total(metrics, "istio_dns_upstream_requests_total")
        assert total(metrics, f"{duration}_count") == total(metrics, f"{duration}_bucket", le="+Inf") == forwarded


def as_pod(host: Host) -> Pod:
    return Pod(host.name, host.inside, host.addresses, "none", "none", "none")


@isolated
def test_what_is_too_long_for_a_datagram_is_whole_over_tcp() -> None:
    with chosen_mesh() as mesh:
        site = build(mesh)
        assert ask(site, "big.example").truncated
        whole = ask(site, "big.example", tcp=True)
        assert (whole.truncated, len(whole.addresses)) == (False, MANY)


@isolated
def test_without_a_name_server_failure_is_told_in_time() -> None:
    with chosen_mesh() as mesh:
        site = build(mesh, serve=False)
        started = time.monotonic()
        assert ask(site, "outside.example").code == SERVFAIL
        assert ask(site, "outside.example", tcp=True).code == SERVFAIL
        assert time.monotonic() - started < 5.0
        assert ask(site, "web").addresses == [VIP]
        assert wait_for(partial(has_line, site.near, "forwarding failed", site.names.address), 5.0)
        assert total(site.near.metrics(), "istio_dns_upstream_failures_total") == 2


@isolated
def test_a_pod_whose_dns_is_not_captured_asks_for_itself() -> None:
    with chosen_mesh() as mesh:
        site = build(mesh, dns=False)
        assert ask(site, "outside.example").addresses == ["198.51.100.200"]
        assert ask(site, "web").code != 0
        assert total(site.near.metrics(), "istio_dns_requests_total") == 0
