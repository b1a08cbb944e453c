"""A rule set as text that an operator can read: nft's language, and `ip` commands for the routing as comments.

The nft part is exact, so `nft -f` of it installs what `cni.kernel.nftables` installs (a test does so); only people and
tests ever read it back.
"""

import sys
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from cni.kernel.expressions import HASH_MODULUS, IPV6_DESTINATION_MASK, IPV6_DESTINATION_WINDOW
from cni.kernel.rules import (
    Accept,
    Action,
    BaseChain,
    Chain,
    Field,
    Jump,
    Match,
    MatchValue,
    Redirect,
    RedirectByDestination,
    ReplyRouting,
    RestoreMark,
    Return,
    Rule,
    RuleSet,
    SetConnectionMark,
    SetConntrackZone,
    Table,
    TransportProtocol,
)

_IN_HEXADECIMAL = frozenset({Field.MARK, Field.CONNECTION_MARK})
_ALL_MARK_BITS = 0xFFFF_FFFF


def render(rules: RuleSet) -> str:
    """The whole rule set, one table after the other, ending in a newline."""
    lines = [line for table in rules.tables for line in _render_table(table)]
    lines += [line for routing in rules.routing for line in _render_routing(routing)]
    lines += [_render_local(network) for network in rules.local]
    return "\n".join(lines) + "\n"


def _render_table(table: Table) -> list[str]:
    lines = [line for chain in table.chains for line in _render_chain(chain)]
    return [f"table inet {table.name} {{", *lines, "}"]


def _render_chain(chain: Chain) -> list[str]:
    base = [] if chain.base is None else [_render_base(chain.base)]
    lines = [*base, *(_render_rule(rule) for rule in chain.rules)]
    return [f"  chain {chain.name} {{", *(f"    {line}" for line in lines), "  }"]


def _render_base(base: BaseChain) -> str:
    return f"type {base.kind} hook {base.hook.name.lower()} priority {base.priority}; policy accept;"


def _render_rule(rule: Rule) -> str:
    comment = [f'comment "{rule.comment}"'] if rule.comment else []
    return " ".join(
        [*(_render_match(match) for match in rule.matches), "counter", _render_action(rule.action), *comment]
    )


def _render_match(match: Match) -> str:
    masked = match.field.value if match.mask is None else f"{match.field.value} & {match.mask:#x}"
    operator = "!=" if match.is_negated else "==" if match.mask is not None else ""
    return " ".join(filter(None, (masked, operator, _render_value(match.field, match.value))))


def _render_value(field: Field, value: MatchValue) -> str:
    match value:
        case TransportProtocol():
            return value.name.lower()
        case IPv4Address() | IPv6Address():
            return str(value)
        case str():
            return f'"{value}"'
        case int():
            return f"{value:#x}" if field in _IN_HEXADECIMAL else str(value)


def _render_action(action: Action) -> str:
    match action:
        case Accept():
            return "accept"
        case Return():
            return "return"
        case Jump(chain):
            return f"jump {chain}"
        case Redirect(port):
            return f"redirect to :{port}"
        case RedirectByDestination(port, network):
            return f"dnat {_render_address_by_destination(network)} :{port}"
        case SetConnectionMark(mark, mask):
            return f"ct mark set ct mark & {_ALL_MARK_BITS & ~mask:#x} | {mark:#x}"
        case RestoreMark():
            return "meta mark set ct mark"
        case SetConntrackZone(zone, is_of_replies):
            return f"ct zone set {zone}" if is_of_replies else f"ct original zone set {zone}"


def _render_address_by_destination(network: IPv4Network | IPv6Network) -> str:
    """Numbers as nft reads them: those of a hash in the host's byte order, those of a packet in the network's."""
    if isinstance(network, IPv4Network):
        mask, xor = (
            int.from_bytes(address.packed, sys.byteorder) for address in (network.hostmask, network.network_address)
        )
        return f"ip to jhash ip daddr . tcp dport mod {HASH_MODULUS} seed 0x0 & {mask:#x} ^ {xor:#x}"
    window = f"@nh,{IPV6_DESTINATION_WINDOW},{network.max_prefixlen}"
    return f"ip6 to {window} & {IPV6_DESTINATION_MASK:#x} ^ {int(network.network_address):#x}"


def _render_local(network: IPv6Network) -> str:
    return f"# ip -6 route add local {network} dev lo"


def _render_routing(routing: ReplyRouting) -> list[str]:
    ip = f"# ip -{routing.ip_version.value}"
    selector = f"fwmark {routing.mark:#x}/{routing.mask:#x}"
    return [
        f"{ip} rule add {selector} pref {routing.priority} lookup {routing.table}",
        f"{ip} route add local default dev lo table {routing.table}",
    ]
