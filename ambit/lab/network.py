"""The lab's cables: the underlay bridge, and per node and pod a network namespace joined by veths.

    supervisor's namespace       node's namespace                    pod's namespace
    underlay (bridge) ── port1 ══ eth0   pods (bridge) ── pod2 ══════ eth0
    controller's address         node's address  gateway's address   pod's /32 and /128

A pod's addresses have full-length prefixes and its only neighbour is the gateway, so that traffic between two pods of
one node passes the node's routing too, and translated service addresses find their way back.

Everything here blocks (netlink), and runs in one thread that may enter namespaces.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from socket import AF_INET, AF_INET6

from pyroute2.iproute.linux import IPRoute

from ambit.lab import addresses, kernel
from ambit.lab.addresses import Address, Network
from ambit.lab.kernel import NetworkNamespace

UNDERLAY_BRIDGE = "underlay"
POD_BRIDGE = "pods"

_IFA_F_NODAD = 0x02
"""Skip duplicate address detection, so that IPv6 works at once (linux/if_addr.h)."""

_BRIDGE_HARDWARE_ADDRESS = "02:00:00:00:00:01"
"""Locally administered (IEEE 802). All bridges may have it: no two share a link."""

_RT_SCOPE_LINK = 253
"""linux/rtnetlink.h."""

_NODE_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    # A reply may take another way than the request did: nodes route for pods whose agents spoof source addresses.
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    # Pods of a node are neighbours on one bridge, but must not be told to talk to each other directly.
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
}

_HOST_IPV6_SYSCTLS = {
    # Duplicate address detection of link-local addresses too (a node's neighbour discovery waits for it), and so to be
    # written before an interface appears.
    # Both, because the kernel takes the larger of the two.
    "net/ipv6/conf/all/accept_dad": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/accept_ra": "0",
    # A node tells neighbours on its bridge to talk directly (IPv6 has no switch for that), which would by-pass the
    # translation of service addresses: pods do not listen.
    "net/ipv6/conf/all/accept_redirects": "0",
    "net/ipv6/conf/default/accept_redirects": "0",
}

_PLAIN_BRIDGE_SYSCTLS = {
    # With br_netfilter loaded (by Docker or Kubernetes on this machine) bridged packets would meet the IP hooks too.
    "net/bridge/bridge-nf-call-iptables": "0",
    "net/bridge/bridge-nf-call-ip6tables": "0",
}


@dataclass(frozen=True, slots=True)
class NodeNetwork:
    """A node's number (which gives its addresses) and its namespace."""

    number: int
    namespace: NetworkNamespace


class LabNetwork:
    """Builds and removes the lab's namespaces and links; every method blocks and raises OSError or NetlinkError."""

    def __init__(self, folder: Path, mtu: int) -> None:
        self._folder = folder
        self._mtu = mtu

    def build_underlay(self) -> NetworkNamespace:
        """Make the bridge between the nodes, with the controller's addresses, in the calling thread's namespace."""
        _write_sysctls(_HOST_IPV6_SYSCTLS, _PLAIN_BRIDGE_SYSCTLS)
        with IPRoute() as netlink:
            _bring_up(netlink, "lo")
            _add_bridge(netlink, UNDERLAY_BRIDGE, self._mtu)
            _add_addresses(netlink, UNDERLAY_BRIDGE, addresses.controller_addresses(), addresses.UNDERLAY)
        return kernel.own_network_namespace()

    def add_node(self, number: int) -> NodeNetwork:
        """Make the namespace of node `number`, with its underlay link, its pod bridge, and forwarding."""
        namespace = kernel.create_network_namespace(self._folder / f"node{number}")
        port = f"port{number}"
        with namespace.entered():
            _write_sysctls(_NODE_SYSCTLS, _HOST_IPV6_SYSCTLS, _PLAIN_BRIDGE_SYSCTLS)
        with IPRoute() as netlink:
            _add_veth(netlink, port, namespace, self._mtu)
            netlink.link("set", index=_index(netlink, port), master=_index(netlink, UNDERLAY_BRIDGE), state="up")
            for network, via in zip(
                addresses.pod_networks(number), addresses.node_underlay_addresses(number), strict=True
            ):
                _add_route(netlink, network, via)
        with namespace.entered(), IPRoute() as netlink:
            _bring_up(netlink, "lo")
            _add_addresses(netlink, "eth0", addresses.node_underlay_addresses(number), addresses.UNDERLAY)
            _bring_up(netlink, "eth0")
            _add_bridge(netlink, POD_BRIDGE, self._mtu)
            _add_addresses(netlink, POD_BRIDGE, addresses.gateway_addresses(number), addresses.pod_networks(number))
        return NodeNetwork(number, namespace)

    def join_nodes(self, nodes: Iterable[NodeNetwork]) -> None:
        """Give every node routes to the pods of all others."""
        numbers_and_namespaces = [(node.number, node.namespace) for node in nodes]
        for number, namespace in numbers_and_namespaces:
            with namespace.entered(), IPRoute() as netlink:
                for other, _ in numbers_and_namespaces:
                    if other == number:
                        continue
                    ways = zip(addresses.pod_networks(other), addresses.node_underlay_addresses(other), strict=True)
                    for network, via in ways:
                        _add_route(netlink, network, via)

    def add_pod(self, node: NodeNetwork, number: int, name: str) -> NetworkNamespace:
        """Make the namespace of pod `number` of a node; its interface is eth0, the node's end is called pod<number>."""
        namespace = kernel.create_network_namespace(self._folder / name)
        own = addresses.pod_addresses(node.number, number)
        with namespace.entered():
            _write_sysctls(_HOST_IPV6_SYSCTLS)
        with node.namespace.entered(), IPRoute() as netlink:
            port = f"pod{number}"
            _add_veth(netlink, port, namespace, self._mtu)
            netlink.link("set", index=_index(netlink, port), master=_index(netlink, POD_BRIDGE), state="up")
        with namespace.entered(), IPRoute() as netlink:
            _bring_up(netlink, "lo")
            index = _index(netlink, "eth0")
            for address in own:
                _add_address(netlink, index, address, address.max_prefixlen)
            netlink.link("set", index=index, state="up")
            for gateway in addresses.gateway_addresses(node.number):
                _add_default_route(netlink, index, gateway)
        return namespace

    def remove_pod(self, node: NodeNetwork, number: int, namespace: NetworkNamespace) -> None:
        """Take the pod's link out of the node and let go of its namespace (which ends with its last process)."""
        with node.namespace.entered(), IPRoute() as netlink:
            for index in netlink.link_lookup(ifname=f"pod{number}"):
                netlink.link("del", index=index)
        namespace.release()


def _write_sysctls(*groups: dict[str, str]) -> None:
    """Set kernel parameters of the calling thread's namespace; what this kernel does not have is skipped."""
    for group in groups:
        for name, value in group.items():
            path = Path("/proc/sys") / name
            if path.exists():
                path.write_text(value)


def _add_bridge(netlink: IPRoute, name: str, mtu: int) -> None:
    # Multicast snooping without a querier may hold back neighbour discovery at first.
    netlink.link("add", ifname=name, kind="bridge", br_forward_delay=0, br_mcast_snooping=0)
    # Said, because a bridge otherwise borrows the address of one of its ports, and changes it when that port goes:
    # pods would go on sending to a gateway that is no more.
    netlink.link("set", index=_index(netlink, name), address=_BRIDGE_HARDWARE_ADDRESS)
    netlink.link("set", index=_index(netlink, name), mtu=mtu, state="up")


def _add_veth(netlink: IPRoute, port: str, inner: NetworkNamespace, mtu: int) -> None:
    peer = {"ifname": "eth0", "mtu": mtu, "net_ns_fd": inner.descriptor}
    netlink.link("add", ifname=port, kind="veth", mtu=mtu, peer=peer)


def _bring_up(netlink: IPRoute, name: str) -> None:
    netlink.link("set", index=_index(netlink, name), state="up")


def _index(netlink: IPRoute, name: str) -> int:
    (index,) = netlink.link_lookup(ifname=name)
    return int(index)


def _add_addresses(netlink: IPRoute, link: str, own: Iterable[Address], networks: Iterable[Network]) -> None:
    index = _index(netlink, link)
    for address, network in zip(own, networks, strict=True):
        _add_address(netlink, index, address, network.prefixlen)


def _add_address(netlink: IPRoute, index: int, address: Address, prefix_length: int) -> None:
    flags = {"flags": _IFA_F_NODAD} if address.version == 6 else {}
    netlink.addr("add", index=index, family=_family(address), address=str(address), prefixlen=prefix_length, **flags)


def _add_route(netlink: IPRoute, network: Network, via: Address) -> None:
    netlink.route("add", family=_family(via), dst=str(network), gateway=str(via))


def _add_default_route(netlink: IPRoute, index: int, gateway: Address) -> None:
    """Everything goes to `gateway`, which is a neighbour although no prefix of ours covers it."""
    # IPv4 wants the gateway's own route to be of link scope; IPv6 has no scopes.
    scope = {"scope": _RT_SCOPE_LINK} if gateway.version == 4 else {}
    family = _family(gateway)
    netlink.route("add", family=family, dst=f"{gateway}/{gateway.max_prefixlen}", oif=index, **scope)
    netlink.route("add", family=family, dst="default", gateway=str(gateway), oif=index)


def _family(address: Address) -> int:
    return AF_INET if address.version == 4 else AF_INET6
