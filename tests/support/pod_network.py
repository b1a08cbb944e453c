"""A pod and the node beside it: two network namespaces with a wire between, for tests that are `isolated`.

The node is the namespace of the test itself. Both ends have IPv4 and IPv6, and each reaches whatever the other has.
"""

import ctypes
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pyroute2 import IPRoute

from cni.kernel.namespaces import NetworkNamespace, run_in_namespace

Result = TypeVar("Result")

_CLONE_NEWNET = 0x4000_0000
_libc = ctypes.CDLL(None, use_errno=True)

# Documentation ranges (RFC 5737, RFC 3849).
POD_IPV4, NODE_IPV4, FOREIGN_IPV4 = "192.0.2.10", "192.0.2.1", "198.51.100.7"
POD_IPV6, NODE_IPV6, FOREIGN_IPV6 = "2001:db8::10", "2001:db8::1", "2001:db8:f::7"
WAIT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Addresses:
    """One IP version's addresses. `foreign` is nobody's: the address of a client far away."""

    family: socket.AddressFamily
    loopback: str
    pod: str
    node: str
    foreign: str


IPV4 = Addresses(socket.AF_INET, "127.0.0.1", POD_IPV4, NODE_IPV4, FOREIGN_IPV4)
IPV6 = Addresses(socket.AF_INET6, "::1", POD_IPV6, NODE_IPV6, FOREIGN_IPV6)


class Pod:
    """A pod's network namespace, and what a program in it can do."""

    def __init__(self, namespace: NetworkNamespace) -> None:
        self.namespace = namespace

    def run(self, function: Callable[[], Result]) -> Result:
        """Run `function` inside."""
        return run_in_namespace(self.namespace, function)

    def listen(self, family: socket.AddressFamily, port: int = 0) -> socket.socket:
        """A TCP listener on every address inside."""
        return self.run(lambda: listen(family, port))


def listen(family: socket.AddressFamily, port: int = 0) -> socket.socket:
    """A TCP listener on every address of the thread's namespace; accepting has a deadline."""
    listener = socket.socket(family, socket.SOCK_STREAM)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind(("", port))
    listener.listen()
    listener.settimeout(WAIT_SECONDS)
    return listener


def connect(
    family: socket.AddressFamily, address: tuple[str, int], *, source: str = "", source_port: int = 0, mark: int = 0
) -> socket.socket:
    """Connect from the thread's namespace; with `mark` as SO_MARK and from `source`, whosever address that is."""
    client = socket.socket(family, socket.SOCK_STREAM)
    client.settimeout(WAIT_SECONDS)
    if mark:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    if source:
        _become_transparent(client)
        client.bind((source, source_port))
    client.connect(address)
    return client


def _become_transparent(client: socket.socket) -> None:
    """Allow a source address that is not ours: IP_TRANSPARENT and IPV6_TRANSPARENT (linux/in.h, linux/in6.h)."""
    if client.family == socket.AF_INET:
        client.setsockopt(socket.IPPROTO_IP, 19, 1)
    else:
        client.setsockopt(socket.IPPROTO_IPV6, 75, 1)


def read_original_destination(accepted: socket.socket) -> tuple[str, int]:
    """Where a redirected connection was going (SO_ORIGINAL_DST, IP6T_SO_ORIGINAL_DST)."""
    is_ipv4 = accepted.family == socket.AF_INET
    level = socket.IPPROTO_IP if is_ipv4 else socket.IPPROTO_IPV6
    raw = accepted.getsockopt(level, 80, 28)
    packed = raw[4:8] if is_ipv4 else raw[8:24]
    return socket.inet_ntop(accepted.family, packed), int.from_bytes(raw[2:4], "big")


@contextmanager
def build_pod() -> Iterator[Pod]:
    """A pod that is wired to the node (the namespace of the calling thread)."""
    with make_namespace() as namespace:
        _use_addresses_at_once()
        run_in_namespace(namespace, _use_addresses_at_once)
        with IPRoute() as node:
            node.link("set", index=1, state="up")
            node.link("add", ifname="to-pod", kind="veth", peer={"ifname": "eth0", "net_ns_fd": namespace.fileno()})
            _configure(node, "to-pod", (NODE_IPV4, NODE_IPV6))
        run_in_namespace(namespace, _configure_pod)
        yield Pod(namespace)


@contextmanager
def make_namespace() -> Iterator[NetworkNamespace]:
    """A new network namespace; it vanishes when it is closed."""
    opened: list[int] = []

    def unshare() -> None:
        if _libc.unshare(_CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        opened.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    thread = threading.Thread(target=unshare)
    thread.start()
    thread.join()
    with NetworkNamespace(opened[0], f"/proc/{os.getpid()}/fd/{opened[0]}") as namespace:
        yield namespace


def _configure_pod() -> None:
    with IPRoute() as pod:
        pod.link("set", index=1, state="up")
        _configure(pod, "eth0", (POD_IPV4, POD_IPV6))
        for gateway, anywhere in ((NODE_IPV4, "default"), (NODE_IPV6, "::/0")):
            pod.route("add", dst=anywhere, gateway=gateway, family=_family(gateway))


def _configure(netlink: IPRoute, interface: str, addresses: tuple[str, str]) -> None:
    (index,) = netlink.link_lookup(ifname=interface)
    netlink.link("set", index=index, state="up")
    for address, length in zip(addresses, (24, 64), strict=True):
        netlink.addr("add", index=index, address=address, prefixlen=length)


def _use_addresses_at_once() -> None:
    """No duplicate address detection: an address that is being probed for cannot be used for seconds."""
    for scope in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{scope}/accept_dad").write_text("0")


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def add_node_address(address: str) -> None:
    """Give the node one more address, as the kubelet's probes have one."""
    with IPRoute() as node:
        node.addr("add", index=1, address=address, prefixlen=128 if ":" in address else 32)


def bind_udp(family: socket.AddressFamily, port: int = 0, *, address: str = "", mark: int = 0) -> socket.socket:
    """A UDP socket in the thread's namespace, on every address unless one is named; receiving has a deadline."""
    bound = socket.socket(family, socket.SOCK_DGRAM)
    bound.settimeout(WAIT_SECONDS)
    if mark:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    bound.bind((address, port))
    return bound


def port_of(listener: socket.socket) -> int:
    """The port that the kernel chose."""
    port = listener.getsockname()[1]
    assert isinstance(port, int)
    return port
