"""The redirect rules at work: real connections between a pod and the node beside it, over both IP versions."""

import functools
import socket
from collections.abc import Callable

import pytest

from cni.kernel.pods import apply_pod_rules, remove_pod_rules
from cni.kernel.rules import PodSettings, build_rules
from mesh import ports
from tests.support.isolation import isolated
from tests.support.pod_network import (
    IPV4,
    IPV6,
    WAIT_SECONDS,
    Addresses,
    Pod,
    add_node_address,
    bind_udp,
    build_pod,
    connect,
    listen,
    port_of,
    read_original_destination,
)

CLIENT_PORT = 41_000

both_ip_versions = pytest.mark.parametrize("ip", [IPV4, IPV6], ids=["IPv4", "IPv6"])


def capture(pod: Pod, settings: PodSettings | None = None) -> None:
    apply_pod_rules(pod.namespace, build_rules(settings or PodSettings()))


def receive_from(listener: socket.socket, client: socket.socket) -> socket.socket:
    """The listener's end of `client`'s connection: what one end says, the other hears."""
    accepted, _ = listener.accept()
    accepted.settimeout(WAIT_SECONDS)
    client.sendall(b"question")
    assert accepted.recv(64) == b"question"
    accepted.sendall(b"answer")
    assert client.recv(64) == b"answer"
    return accepted


def assert_nobody_came(listener: socket.socket) -> None:
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()


@both_ip_versions
@isolated
def test_what_the_pod_sends_reaches_ztunnel_with_its_original_destination(ip: Addresses) -> None:
    with build_pod() as pod:
        capture(pod)
        outside, ztunnel = listen(ip.family), pod.listen(ip.family, ports.OUTBOUND_CAPTURE_PORT)
        destination = (ip.node, port_of(outside))
        client = pod.run(lambda: connect(ip.family, destination))
        assert read_original_destination(receive_from(ztunnel, client)) == destination
        assert_nobody_came(outside)


@both_ip_versions
@isolated
def test_without_ztunnel_the_pod_reaches_nothing(ip: Addresses) -> None:
    with build_pod() as pod:
        outside = listen(ip.family)
        capture(pod)
        with pytest.raises(ConnectionRefusedError):
            pod.run(lambda: connect(ip.family, (ip.node, port_of(outside))))
        assert_nobody_came(outside)


@both_ip_versions
@isolated
def test_what_ztunnel_sends_is_not_captured_again(ip: Addresses) -> None:
    with build_pod() as pod:
        capture(pod)
        outside, ztunnel = listen(ip.family), pod.listen(ip.family, ports.OUTBOUND_CAPTURE_PORT)
        destination = (ip.node, port_of(outside))
        client = pod.run(lambda: connect(ip.family, destination, mark=ports.ZTUNNEL_MARK))
        receive_from(outside, client)
        assert_nobody_came(ztunnel)


@both_ip_versions
@isolated
def test_loopback_is_not_captured(ip: Addresses) -> None:
    with build_pod() as pod:
        capture(pod)
        app = pod.listen(ip.family)
        receive_from(app, pod.run(lambda: connect(ip.family, (ip.loopback, port_of(app)))))


@both_ip_versions
@isolated
def test_the_pod_reaches_itself_directly(ip: Addresses) -> None:
    with build_pod() as pod:
        capture(pod)
        app = pod.listen(ip.family)
        receive_from(app, pod.run(lambda: connect(ip.family, (ip.pod, port_of(app)))))


@both_ip_versions
@isolated
def test_plaintext_from_outside_reaches_ztunnel_with_its_original_destination(ip: Addresses) -> None:
    with build_pod() as pod:
        capture(pod)
        app, ztunnel = pod.listen(ip.family), pod.listen(ip.family, ports.INBOUND_PLAINTEXT_PORT)
        destination = (ip.pod, port_of(app))
        accepted = receive_from(ztunnel, connect(ip.family, destination))
        assert read_original_destination(accepted) == destination
        assert accepted.getpeername()[0] == ip.node
        assert_nobody_came(app)


@both_ip_versions
@isolated
def test_hbone_from_outside_reaches_ztunnel_undisturbed(ip: Addresses) -> None:
    with build_pod() as pod:
        capture(pod)
        ztunnel = pod.listen(ip.family, ports.HBONE_PORT)
        receive_from(ztunnel, connect(ip.family, (ip.pod, ports.HBONE_PORT)))


@pytest.mark.parametrize(
    ("ip", "probe"), [(IPV4, ports.PROBE_SOURCE_IPV4), (IPV6, ports.PROBE_SOURCE_IPV6)], ids=["IPv4", "IPv6"]
)
@isolated
def test_a_health_probe_reaches_the_app_and_is_answered(ip: Addresses, probe: str) -> None:
    with build_pod() as pod:
        capture(pod)
        app, ztunnel = pod.listen(ip.family), pod.listen(ip.family, ports.INBOUND_PLAINTEXT_PORT)
        add_node_address(probe)
        client = connect(ip.family, (ip.pod, port_of(app)), source=probe)
        assert receive_from(app, client).getpeername()[0] == probe
        assert_nobody_came(ztunnel)


@both_ip_versions
@isolated
def test_ztunnel_reaches_the_app_from_the_clients_own_address(ip: Addresses) -> None:
    with build_pod() as pod:
        capture(pod)
        app, ztunnel = pod.listen(ip.family), pod.listen(ip.family, ports.OUTBOUND_CAPTURE_PORT)
        address = (ip.pod, port_of(app))
        client = pod.run(lambda: connect(ip.family, address, source=ip.foreign, mark=ports.ZTUNNEL_MARK))
        assert receive_from(app, client).getpeername()[0] == ip.foreign
        assert_nobody_came(ztunnel)


@pytest.mark.parametrize("client_is_first", [True, False], ids=["the client is first", "ztunnel is first"])
@both_ip_versions
@isolated
def test_ztunnel_may_use_a_port_to_the_app_that_the_client_uses_too(ip: Addresses, client_is_first: bool) -> None:
    """The kernel chooses the port beside the client's address, and does not know which ones the client has chosen."""
    with build_pod() as pod:
        capture(pod)
        app, ztunnel = pod.listen(ip.family), pod.listen(ip.family, ports.INBOUND_PLAINTEXT_PORT)
        open_from = functools.partial(
            connect, ip.family, (ip.pod, port_of(app)), source=ip.node, source_port=CLIENT_PORT
        )
        ways_in: list[Callable[[], socket.socket]] = [
            lambda: receive_from(ztunnel, open_from()),
            lambda: receive_from(app, pod.run(lambda: open_from(mark=ports.ZTUNNEL_MARK))),
        ]
        accepted = [connect_once() for connect_once in (ways_in if client_is_first else reversed(ways_in))]
        assert {one.getpeername()[:2] for one in accepted} == {(ip.node, CLIENT_PORT)}


@both_ip_versions
@isolated
def test_an_ingress_pod_gets_plaintext_itself_and_still_sends_through_ztunnel(ip: Addresses) -> None:
    with build_pod() as pod:
        capture(pod, PodSettings(bypass_inbound_capture=True))
        app, ztunnel = pod.listen(ip.family), pod.listen(ip.family, ports.OUTBOUND_CAPTURE_PORT)
        receive_from(app, connect(ip.family, (ip.pod, port_of(app))))
        receive_from(ztunnel, pod.run(lambda: connect(ip.family, (ip.node, 80))))


@both_ip_versions
@isolated
def test_what_arrives_on_a_rerouted_interface_is_outbound(ip: Addresses) -> None:
    with build_pod() as pod:
        capture(pod, PodSettings(reroute_interfaces=("eth0",)))
        ztunnel = pod.listen(ip.family, ports.OUTBOUND_CAPTURE_PORT)
        accepted = receive_from(ztunnel, connect(ip.family, (ip.pod, 8080)))
        assert read_original_destination(accepted) == (ip.pod, 8080)


@both_ip_versions
@isolated
def test_dns_over_udp_reaches_ztunnel_whose_own_queries_reach_the_server(ip: Addresses) -> None:
    with build_pod() as pod:
        capture(pod, PodSettings(dns_capture=True))
        server, resolver = bind_udp(ip.family, 53), (ip.loopback, ports.DNS_CAPTURE_PORT)
        ztunnel = pod.run(lambda: bind_udp(ip.family, resolver[1], address=resolver[0], mark=ports.ZTUNNEL_MARK))
        app, upstream = pod.run(lambda: (bind_udp(ip.family), bind_udp(ip.family, mark=ports.ZTUNNEL_MARK)))
        app.sendto(b"captured", (ip.node, 53))
        question, sender = ztunnel.recvfrom(64)
        ztunnel.sendto(b"answered", sender)
        assert (question, app.recvfrom(64)) == (b"captured", (b"answered", server_address(ip)))
        upstream.sendto(b"forwarded", (ip.node, 53))
        forwarded, forwarder = server.recvfrom(64)
        server.sendto(b"resolved", forwarder)
        assert (forwarded, upstream.recv(64)) == (b"forwarded", b"resolved")


def server_address(ip: Addresses) -> tuple[object, ...]:
    return (ip.node, 53) if ip is IPV4 else (ip.node, 53, 0, 0)


@both_ip_versions
@isolated
def test_dns_over_tcp_reaches_ztunnels_resolver(ip: Addresses) -> None:
    with build_pod() as pod:
        capture(pod, PodSettings(dns_capture=True))
        ztunnel = pod.listen(ip.family, ports.DNS_CAPTURE_PORT)
        accepted = receive_from(ztunnel, pod.run(lambda: connect(ip.family, (ip.node, 53))))
        assert read_original_destination(accepted) == (ip.node, 53)


@both_ip_versions
@isolated
def test_dns_passes_untouched_while_its_capture_is_off(ip: Addresses) -> None:
    with build_pod() as pod:
        capture(pod)
        server, app = bind_udp(ip.family, 53), pod.run(lambda: bind_udp(ip.family))
        app.sendto(b"question", (ip.node, 53))
        question, sender = server.recvfrom(64)
        assert (question, sender[0]) == (b"question", ip.pod)


@isolated
def test_ipv6_passes_untouched_when_only_ipv4_is_captured() -> None:
    with build_pod() as pod:
        capture(pod, PodSettings(ipv6=False))
        outside = listen(IPV6.family)
        receive_from(outside, pod.run(lambda: connect(IPV6.family, (IPV6.node, port_of(outside)))))


@both_ip_versions
@isolated
def test_a_withdrawn_pod_connects_directly_again(ip: Addresses) -> None:
    with build_pod() as pod:
        capture(pod)
        remove_pod_rules(pod.namespace, build_rules(PodSettings()))
        outside = listen(ip.family)
        receive_from(outside, pod.run(lambda: connect(ip.family, (ip.node, port_of(outside)))))
