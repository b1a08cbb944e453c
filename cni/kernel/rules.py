"""The redirect rules of one pod, as values: what is captured, what passes, and how the app's replies find ztunnel.

`build_rules` is pure and complete: nothing else decides what is installed. Theory of operation, per connection:

- The app connects out: nat/output sends it to ztunnel's outbound socket, unless ztunnel opened it (its mark), it goes
  to the loopback address, or it is the pod calling itself through `lo`. Each destination has a local address of its own
  there, so that two connections from one client port stay two (docs/decisions/0008).
- A peer connects in: nat/prerouting sends it to ztunnel's inbound socket, unless it is HBONE, a health probe, or
  ztunnel itself delivering what it has already checked (its mark).
- ztunnel delivers to the app with the *client's* address as its source. mangle/prerouting notes that on the connection;
  the app's replies, addressed to a foreign host, get the mark back in mangle/output, and the route table for that mark
  says that every address is local: so they reach ztunnel's socket and never leave the pod. The port beside that source
  is the kernel's choice and may be one that the client uses too: a conntrack zone keeps the two apart
  (docs/decisions/0011).

The order inside a chain is part of the meaning: the first redirect, accept or return that matches ends it.
Source: facts on the CNI, 6.1 (the table, whose numbers stand below) and 6.2 (its nftables form).
"""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from mesh import ports


class Field(Enum):
    """What a match looks at; the value is its name in nft's language."""

    TRANSPORT_PROTOCOL = "meta l4proto"
    MARK = "meta mark"
    CONNECTION_MARK = "ct mark"
    INPUT_INTERFACE = "iifname"
    OUTPUT_INTERFACE = "oifname"
    IPV4_SOURCE = "ip saddr"
    IPV4_DESTINATION = "ip daddr"
    IPV6_SOURCE = "ip6 saddr"
    IPV6_DESTINATION = "ip6 daddr"
    TCP_DESTINATION_PORT = "tcp dport"
    UDP_DESTINATION_PORT = "udp dport"
    UDP_SOURCE_PORT = "udp sport"


class TransportProtocol(Enum):
    """IP protocol numbers (IANA) by nft's names."""

    TCP = 6
    UDP = 17


MatchValue = int | str | IPv4Address | IPv6Address | TransportProtocol


@dataclass(frozen=True, slots=True)
class Match:
    """`field & mask` equals `value`; or does not, when `is_negated`."""

    field: Field
    value: MatchValue
    is_negated: bool = False
    mask: int | None = None


@dataclass(frozen=True, slots=True)
class Accept:
    """Done with this hook: the packet passes as it is."""


@dataclass(frozen=True, slots=True)
class Return:
    """Back to the chain that jumped here."""


@dataclass(frozen=True, slots=True)
class Jump:
    """Go on in another chain of the same table."""

    chain: str


@dataclass(frozen=True, slots=True)
class Redirect:
    """Send the connection to a local port; its original destination stays readable (SO_ORIGINAL_DST)."""

    port: int


@dataclass(frozen=True, slots=True)
class RedirectByDestination:
    """The same, but to a local address in `network`, one for each destination (address and port).

    In IPv4 it is a hash of both; in IPv6 the address's last 32 bits and the port. Needs a match on the IP version.
    """

    port: int
    network: IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class SetConnectionMark:
    """Write `mark` into the bits `mask` of the connection's mark."""

    mark: int
    mask: int


@dataclass(frozen=True, slots=True)
class RestoreMark:
    """Copy the connection's mark, all bits, to the packet."""


@dataclass(frozen=True, slots=True)
class SetConntrackZone:
    """Track the packet's connection in a zone of its own.

    Without `is_of_replies` only the original direction is of that zone: the replies need no rule to be found.
    """

    zone: int
    is_of_replies: bool


Action = Accept | Return | Jump | Redirect | RedirectByDestination | SetConnectionMark | RestoreMark | SetConntrackZone


@dataclass(frozen=True, slots=True)
class Rule:
    """When all `matches` hold, count the packet and do `action`. `comment` says why; it is stored in the kernel too."""

    matches: tuple[Match, ...]
    action: Action
    comment: str = ""


class Hook(Enum):
    """Where a base chain sits; the value is its number in the kernel (enum nf_inet_hooks)."""

    PREROUTING = 0
    OUTPUT = 3


@dataclass(frozen=True, slots=True)
class BaseChain:
    """What attaches a chain to a hook. `kind` is nat, filter, or route (which routes anew after a mark changed)."""

    kind: str
    hook: Hook
    priority: int


@dataclass(frozen=True, slots=True)
class Chain:
    """Rules in order. Without `base` it is reached by jumps only."""

    name: str
    rules: tuple[Rule, ...]
    base: BaseChain | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table of family inet, which sees both IP versions."""

    name: str
    chains: tuple[Chain, ...]


class IpVersion(Enum):
    """Which IP; the value is the word in `ip -4` and `ip -6`."""

    IPV4 = 4
    IPV6 = 6


@dataclass(frozen=True, slots=True)
class ReplyRouting:
    """Packets with `mark`/`mask` look up `table`, where every destination is local: `ip rule` and `ip route` in one."""

    ip_version: IpVersion
    mark: int
    mask: int
    priority: int
    table: int


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All that one pod's namespace gets. Every address of `local` is one of the pod's own."""

    tables: tuple[Table, ...]
    routing: tuple[ReplyRouting, ...]
    local: tuple[IPv6Network, ...]


@dataclass(frozen=True, slots=True)
class PodSettings:
    """What varies from pod to pod.

    ipv6: also capture IPv6.
    dns_capture: DNS goes to ztunnel's resolver.
    bypass_inbound_capture: plaintext that comes in passes to the app unseen (an ingress gateway); HBONE still ends at
        ztunnel.
    reroute_interfaces: TCP that arrives on these is the pod's own *outbound* traffic (virtual machines and containers
        inside the pod).
    """

    ipv6: bool = True
    dns_capture: bool = False
    bypass_inbound_capture: bool = False
    reroute_interfaces: tuple[str, ...] = ()


NAT_TABLE = "istio-ambient-nat"
MANGLE_TABLE = "istio-ambient-mangle"
RAW_TABLE = "istio-ambient-raw"
# Every table that we own in a pod, whatever the settings.
OWNED_TABLES = (NAT_TABLE, MANGLE_TABLE, RAW_TABLE)

PREROUTING_CHAIN = "istio-prerouting"
OUTPUT_CHAIN = "istio-output"

# The kernel's own priorities for these stages (enum nf_ip_hook_priorities); connection tracking itself is at -200.
_NAT_PRIORITY = -100
_MANGLE_PRIORITY = -150
_RAW_PRIORITY = -300

_DNS_PORT = 53

_TCP = Match(Field.TRANSPORT_PROTOCOL, TransportProtocol.TCP)
_FROM_ZTUNNEL = Match(Field.MARK, ports.ZTUNNEL_MARK, mask=ports.MARK_MASK)
_NOT_FROM_ZTUNNEL = Match(Field.MARK, ports.ZTUNNEL_MARK, is_negated=True, mask=ports.MARK_MASK)
_APP_REPLY = Match(Field.MARK, ports.APP_CONNECTION_MARK, mask=ports.MARK_MASK)
_ON_LOOPBACK = Match(Field.OUTPUT_INTERFACE, "lo")
_ON_APP_CONNECTION = Match(Field.CONNECTION_MARK, ports.APP_CONNECTION_MARK, mask=ports.MARK_MASK)
_DNS_ZONE = SetConntrackZone(ports.ZTUNNEL_DNS_CONNTRACK_ZONE, is_of_replies=True)


@dataclass(frozen=True, slots=True)
class _Family:
    """What differs between a rule for IPv4 and its twin for IPv6."""

    outbound: IPv4Network | IPv6Network
    from_probe: Match
    to_probe: Match
    not_to_loopback: Match


# Only the one address ::1 or 127.0.0.1 is excluded, not 127.0.0.0/8 (facts on the CNI, 6.1).
_IPV4 = _Family(
    outbound=IPv4Network(ports.OUTBOUND_CAPTURE_IPV4),
    from_probe=Match(Field.IPV4_SOURCE, IPv4Address(ports.PROBE_SOURCE_IPV4)),
    to_probe=Match(Field.IPV4_DESTINATION, IPv4Address(ports.PROBE_SOURCE_IPV4)),
    not_to_loopback=Match(Field.IPV4_DESTINATION, IPv4Address("127.0.0.1"), is_negated=True),
)
_IPV6 = _Family(
    outbound=IPv6Network(ports.OUTBOUND_CAPTURE_IPV6),
    from_probe=Match(Field.IPV6_SOURCE, IPv6Address(ports.PROBE_SOURCE_IPV6)),
    to_probe=Match(Field.IPV6_DESTINATION, IPv6Address(ports.PROBE_SOURCE_IPV6)),
    not_to_loopback=Match(Field.IPV6_DESTINATION, IPv6Address("::1"), is_negated=True),
)


def build_rules(settings: PodSettings) -> RuleSet:
    """The complete rule set of a pod. Equal settings give equal values, so a pod that has them needs no change."""
    families = (_IPV4, _IPV6) if settings.ipv6 else (_IPV4,)
    ip_versions = (IpVersion.IPV4, IpVersion.IPV6) if settings.ipv6 else (IpVersion.IPV4,)
    nat = _build_table(
        NAT_TABLE, ("nat", "nat"), _NAT_PRIORITY, _nat_prerouting(settings, families), _nat_output(settings, families)
    )
    mangle = _build_table(MANGLE_TABLE, ("filter", "route"), _MANGLE_PRIORITY, _mangle_prerouting(), _mangle_output())
    raw = _build_table(RAW_TABLE, ("filter", "filter"), _RAW_PRIORITY, _raw_prerouting(settings), _raw_output(settings))
    return RuleSet(
        tables=(nat, mangle, raw),
        routing=tuple(_build_routing(version) for version in ip_versions),
        # All of 127.0.0.0/8 is local anyway.
        local=tuple(family.outbound for family in families if isinstance(family.outbound, IPv6Network)),
    )


def _build_table(
    name: str, kinds: tuple[str, str], priority: int, prerouting: tuple[Rule, ...], output: tuple[Rule, ...]
) -> Table:
    """A table whose base chains, of these kinds for prerouting and output, only jump to the chains with the rules.

    Where there are none, no packet is stopped to be looked at.
    """
    stages = (
        ("prerouting", kinds[0], Hook.PREROUTING, PREROUTING_CHAIN, prerouting),
        ("output", kinds[1], Hook.OUTPUT, OUTPUT_CHAIN, output),
    )
    used = [stage for stage in stages if stage[-1]]
    return Table(
        name,
        (
            *(
                Chain(base, (Rule((), Jump(chain)),), BaseChain(kind, hook, priority))
                for base, kind, hook, chain, _ in used
            ),
            *(Chain(chain, rules) for *_, chain, rules in used),
        ),
    )


def _nat_prerouting(settings: PodSettings, families: tuple[_Family, ...]) -> tuple[Rule, ...]:
    rules: list[Rule] = []
    for interface in settings.reroute_interfaces:  # 1
        arrives = (Match(Field.INPUT_INTERFACE, interface), _TCP)
        rules.append(Rule(arrives, Redirect(ports.OUTBOUND_CAPTURE_PORT), "from a machine inside the pod: outbound"))
        rules.append(Rule(arrives, Return()))
    if settings.bypass_inbound_capture:
        return tuple(rules)
    rules += [Rule((_TCP, family.from_probe), Accept(), "health probe") for family in families]  # 3
    not_hbone = Match(Field.TCP_DESTINATION_PORT, ports.HBONE_PORT, is_negated=True)
    rules += [  # 5
        Rule(
            (family.not_to_loopback, not_hbone, _NOT_FROM_ZTUNNEL),
            Redirect(ports.INBOUND_PLAINTEXT_PORT),
            "inbound plaintext",
        )
        for family in families
    ]
    return tuple(rules)


def _nat_output(settings: PodSettings, families: tuple[_Family, ...]) -> tuple[Rule, ...]:
    rules = [Rule((_TCP, family.to_probe), Accept(), "health probe's reply") for family in families]  # 4
    rules += _dns_output(families) if settings.dns_capture else ()  # 7, 8
    rules.append(Rule((_TCP, _APP_REPLY), Accept(), "app replies to ztunnel"))  # 11
    rules += [  # 12
        Rule((_ON_LOOPBACK, family.not_to_loopback), Accept(), "pod calls itself") for family in families
    ]
    rules += [  # 13
        Rule(
            (_TCP, family.not_to_loopback, _NOT_FROM_ZTUNNEL),
            RedirectByDestination(ports.OUTBOUND_CAPTURE_PORT, family.outbound),
            "outbound",
        )
        for family in families
    ]
    return tuple(rules)


def _dns_output(families: tuple[_Family, ...]) -> tuple[Rule, ...]:
    to_dns = Redirect(ports.DNS_CAPTURE_PORT)
    not_on_loopback = Match(Field.OUTPUT_INTERFACE, "lo", is_negated=True)
    over_udp = Match(Field.UDP_DESTINATION_PORT, _DNS_PORT)
    over_tcp = Match(Field.TCP_DESTINATION_PORT, _DNS_PORT)
    return (
        Rule((not_on_loopback, _NOT_FROM_ZTUNNEL, over_udp), to_dns, "DNS over UDP"),
        *(Rule((family.not_to_loopback, over_tcp, _NOT_FROM_ZTUNNEL), to_dns, "DNS over TCP") for family in families),
    )


def _mangle_prerouting() -> tuple[Rule, ...]:
    remember = SetConnectionMark(ports.APP_CONNECTION_MARK, ports.MARK_MASK)
    return (Rule((_FROM_ZTUNNEL,), remember, "ztunnel connects to the app"),)  # 2


def _mangle_output() -> tuple[Rule, ...]:
    # ztunnel's own packets keep their mark: with another one the kernel would route each of them anew.
    is_reply = (_NOT_FROM_ZTUNNEL, _ON_APP_CONNECTION)
    return (Rule(is_reply, RestoreMark(), "app's reply: back to ztunnel"),)  # 6


def _raw_prerouting(settings: PodSettings) -> tuple[Rule, ...]:
    if not settings.dns_capture:
        return ()
    reply = (Match(Field.UDP_SOURCE_PORT, _DNS_PORT), _NOT_FROM_ZTUNNEL)
    return (Rule(reply, _DNS_ZONE, "reply to ztunnel's DNS query"),)  # 10


def _raw_output(settings: PodSettings) -> tuple[Rule, ...]:
    to_app = SetConntrackZone(ports.ZTUNNEL_TO_APP_CONNTRACK_ZONE, is_of_replies=False)
    rules = [Rule((_TCP, _FROM_ZTUNNEL, _ON_LOOPBACK), to_app, "ztunnel to the app")]
    if settings.dns_capture:
        query = (Match(Field.UDP_DESTINATION_PORT, _DNS_PORT), _FROM_ZTUNNEL)
        rules.append(Rule(query, _DNS_ZONE, "ztunnel's DNS query"))  # 9
    return tuple(rules)


def _build_routing(ip_version: IpVersion) -> ReplyRouting:
    return ReplyRouting(
        ip_version,
        mark=ports.APP_CONNECTION_MARK,
        mask=ports.MARK_MASK,
        priority=ports.APP_REPLY_RULE_PRIORITY,
        table=ports.APP_REPLY_ROUTE_TABLE,
    )
