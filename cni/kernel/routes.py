"""The routing of a pod: a rule on our mark, a route table in which every destination is local, and local addresses.

It acts on the network namespace of the calling thread. What is there already is left alone; removing what is not there
is fine. Source: facts on the CNI, 6.1 ("Routing inside the pod").
"""

import errno
import socket
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from pathlib import Path

from pyroute2.netlink import NETLINK_ROUTE, nlmsg
from pyroute2.netlink.rtnl.fibmsg import FR_ACT_TO_TBL, fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from cni.kernel import netlink
from cni.kernel.netlink import NetlinkSocket
from cni.kernel.rules import IpVersion, ReplyRouting

# linux/rtnetlink.h
_RTM_GETADDR = 22
_RTM_NEWROUTE = 24
_RTM_DELROUTE = 25
_RTM_GETROUTE = 26
_RTM_NEWRULE = 32
_RTM_DELRULE = 33
_RTM_GETRULE = 34
_ROUTE_TYPE_LOCAL = 2
_ROUTE_TABLE_LOCAL = 255
_ROUTE_SCOPE_HOST = 254
_ROUTE_PROTOCOL_STATIC = 4

_FAMILIES = {IpVersion.IPV4: socket.AF_INET, IpVersion.IPV6: socket.AF_INET6}
_IPV6_IS_OFF_ON_LOOPBACK = Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6")

# Removal finds nothing: no such rule, no such route, or no such table yet.
_ABSENT = frozenset({errno.ENOENT, errno.ESRCH})
_PRESENT = frozenset({errno.EEXIST})


def apply_routing(routing: Iterable[ReplyRouting]) -> None:
    """Install `routing`. Raises KernelRefusedError naming the rule or route that was refused.

    IPv6 is left out where the namespace's loopback has none: there is no IPv6 connection to the app to answer then.
    """
    with NetlinkSocket(NETLINK_ROUTE) as kernel:
        for one in _possible(routing):
            what = _describe(one)
            create = netlink.NLM_F_CREATE
            kernel.request(f"add rule {what}", _build_rule(one, _RTM_NEWRULE, create | netlink.NLM_F_EXCL), _PRESENT)
            kernel.request(f"add route {what}", _build_route(one, _RTM_NEWROUTE, create | netlink.NLM_F_REPLACE))


def remove_routing(routing: Iterable[ReplyRouting]) -> None:
    """Remove `routing`, and nothing of anybody else's. Raises KernelRefusedError."""
    with NetlinkSocket(NETLINK_ROUTE) as kernel:
        for one in _possible(routing):
            what = _describe(one)
            kernel.request(f"delete rule {what}", _build_rule(one, _RTM_DELRULE, 0), _ABSENT)
            kernel.request(f"delete route {what}", _build_route(one, _RTM_DELROUTE, 0), _ABSENT)


def is_routing_installed(routing: Iterable[ReplyRouting]) -> bool:
    """Whether every rule and route of `routing` that is possible in this namespace stands there."""
    with NetlinkSocket(NETLINK_ROUTE) as kernel:
        return all(_has_rule(kernel, one) and _has_route(kernel, one) for one in _possible(routing))


def apply_local(networks: Iterable[IPv6Network]) -> None:
    """Make every address of `networks` a local one, where there is IPv6 at all. Raises KernelRefusedError."""
    with NetlinkSocket(NETLINK_ROUTE) as kernel:
        for network in networks if _has_ipv6() else ():
            request = _build_local(network, _RTM_NEWROUTE, netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE)
            kernel.request(f"add local {network}", request)


def remove_local(networks: Iterable[IPv6Network]) -> None:
    """Undo `apply_local`. Raises KernelRefusedError."""
    with NetlinkSocket(NETLINK_ROUTE) as kernel:
        for network in networks if _has_ipv6() else ():
            kernel.request(f"delete local {network}", _build_local(network, _RTM_DELROUTE, 0), _ABSENT)


def is_local_installed(networks: Iterable[IPv6Network]) -> bool:
    """Whether `apply_local` has nothing to do."""
    wanted = {(str(network.network_address), network.prefixlen) for network in networks if _has_ipv6()}
    with NetlinkSocket(NETLINK_ROUTE) as kernel:
        request = _build(rtmsg, _RTM_GETROUTE, 0, {"family": socket.AF_INET6}, ())
        routes = [_decode(rtmsg, reply) for reply in kernel.dump("list routes", request)] if wanted else []
    local = (route for route in routes if route["type"] == _ROUTE_TYPE_LOCAL)
    return wanted <= {(route.get_attr("RTA_DST"), route["dst_len"]) for route in local}


def read_addresses() -> frozenset[IPv4Address | IPv6Address]:
    """Every address of every interface in the namespace."""
    request = _build(ifaddrmsg, _RTM_GETADDR, 0, {"family": socket.AF_UNSPEC}, ())
    with NetlinkSocket(NETLINK_ROUTE) as kernel:
        replies = [_decode(ifaddrmsg, reply) for reply in kernel.dump("list addresses", request)]
    # IFA_LOCAL is the interface's own address; IFA_ADDRESS, on a point-to-point link, is the other end's.
    texts = (reply.get_attr("IFA_LOCAL") or reply.get_attr("IFA_ADDRESS") for reply in replies)
    return frozenset(ip_address(text) for text in texts if text)


def _possible(routing: Iterable[ReplyRouting]) -> list[ReplyRouting]:
    has_ipv6 = _has_ipv6()
    return [one for one in routing if has_ipv6 or one.ip_version is not IpVersion.IPV6]


def _has_ipv6() -> bool:
    return _IPV6_IS_OFF_ON_LOOPBACK.is_file() and _IPV6_IS_OFF_ON_LOOPBACK.read_text().strip() == "0"


def _build_rule(routing: ReplyRouting, number: int, flags: int) -> nlmsg:
    fields = {"family": _FAMILIES[routing.ip_version], "table": routing.table, "action": FR_ACT_TO_TBL}
    attributes = [
        ("FRA_TABLE", routing.table),
        ("FRA_PRIORITY", routing.priority),
        ("FRA_FWMARK", routing.mark),
        ("FRA_FWMASK", routing.mask),
    ]
    return _build(fibmsg, number, flags, fields, attributes)


def _build_route(routing: ReplyRouting, number: int, flags: int) -> nlmsg:
    """The default route (a prefix of length 0) as a local one."""
    return _build_local_route(_FAMILIES[routing.ip_version], routing.table, number, flags)


def _build_local(network: IPv6Network, number: int, flags: int) -> nlmsg:
    destination = (str(network.network_address), network.prefixlen)
    return _build_local_route(socket.AF_INET6, _ROUTE_TABLE_LOCAL, number, flags, destination)


def _build_local_route(
    family: int, table: int, number: int, flags: int, destination: tuple[str, int] | None = None
) -> nlmsg:
    fields = {
        "family": family,
        "table": table,
        "type": _ROUTE_TYPE_LOCAL,
        "scope": _ROUTE_SCOPE_HOST,
        "proto": _ROUTE_PROTOCOL_STATIC,
    }
    attributes: list[tuple[str, object]] = [("RTA_TABLE", table), ("RTA_OIF", socket.if_nametoindex("lo"))]
    if destination is not None:
        address, fields["dst_len"] = destination
        attributes.append(("RTA_DST", address))
    return _build(rtmsg, number, flags, fields, attributes)


def _has_rule(kernel: NetlinkSocket, routing: ReplyRouting) -> bool:
    wanted = (routing.table, routing.priority, routing.mark, routing.mask)
    request = _build(fibmsg, _RTM_GETRULE, 0, {"family": _FAMILIES[routing.ip_version]}, ())
    rules = (_decode(fibmsg, reply) for reply in kernel.dump("list rules", request))
    names = ("FRA_TABLE", "FRA_PRIORITY", "FRA_FWMARK", "FRA_FWMASK")
    return any(tuple(rule.get_attr(name) for name in names) == wanted for rule in rules)


def _has_route(kernel: NetlinkSocket, routing: ReplyRouting) -> bool:
    request = _build(rtmsg, _RTM_GETROUTE, 0, {"family": _FAMILIES[routing.ip_version]}, ())
    routes = (_decode(rtmsg, reply) for reply in kernel.dump("list routes", request))
    return any(
        (route.get_attr("RTA_TABLE"), route["type"], route["dst_len"]) == (routing.table, _ROUTE_TYPE_LOCAL, 0)
        for route in routes
    )


def _build(
    kind: type[nlmsg], number: int, flags: int, fields: dict[str, int], attributes: Sequence[tuple[str, object]]
) -> nlmsg:
    message = kind()
    message["header"] = {"type": number, "flags": flags}
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = list(attributes)
    return message


def _decode(kind: type[nlmsg], encoded: bytes) -> nlmsg:
    message = kind(encoded)
    message.decode()
    return message


def _describe(routing: ReplyRouting) -> str:
    return f"for replies to ztunnel over {routing.ip_version.name} (table {routing.table})"
