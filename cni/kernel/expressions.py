"""A rule as the kernel's expressions: small steps of a register machine, in the attributes that netlink carries.

A match loads a value into the one register used here, masks it, and compares; an expression that does not hold ends
the rule. What nft's language leaves unsaid is said here: `ip daddr` first asks whether the packet is IPv4, `tcp dport`
whether it is TCP. The sequence is the one that nft itself writes (a test compares).
Source: linux/netfilter/nf_tables.h.
"""

import sys
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple

from cni.kernel.rules import (
    Accept,
    Action,
    Field,
    Jump,
    Match,
    Redirect,
    RedirectByDestination,
    RestoreMark,
    Return,
    Rule,
    SetConnectionMark,
    SetConntrackZone,
    TransportProtocol,
)

HASH_MODULUS = 0xFFFF_FFFF
"""Hashes of destinations are less than this: nearly any 32 bits."""

IPV6_DESTINATION_WINDOW = 28 * 8
"""From this bit of the packet on: the last 12 bytes of the IPv6 destination, TCP's source and destination ports."""

IPV6_DESTINATION_MASK = 0xFFFF_FFFF_0000_FFFF
"""Of 128 bits there: the destination's last 32, not the source port, the destination port."""

# pyroute2's form of one expression, and of any nested attribute: {"attrs": [(name, value), ...]}.
Attributes = dict[str, list[tuple[str, object]]]

_VERDICT_REGISTER = 0
_REGISTER = 1  # NFT_REG_1, 16 bytes: the widest value here, an IPv6 address or an interface name, fits
_SECOND_REGISTER = 2  # NFT_REG_2, where an action takes two values
_SECOND_WORD_OF_IT = 13  # NFT_REG32_05, its bytes 4 to 8

_COMPARE_EQUAL = 0
_COMPARE_NOT_EQUAL = 1
_BITWISE_AND_XOR = 0

_META_MARK = 3
_META_INPUT_INTERFACE = 6
_META_OUTPUT_INTERFACE = 7
_META_NETWORK_PROTOCOL = 15
_META_TRANSPORT_PROTOCOL = 16
_CONNTRACK_MARK = 3
_CONNTRACK_ZONE = 17
_ORIGINAL_DIRECTION = 0
_NETWORK_HEADER = 1
_TRANSPORT_HEADER = 2

_VERDICT_ACCEPT = 1
_VERDICT_JUMP = -3
_VERDICT_RETURN = -5

_NETWORK_PROTOCOL_IPV4 = 2
_NETWORK_PROTOCOL_IPV6 = 10
_REDIRECT_TO_PORT = frozenset({"NF_NAT_RANGE_PROTO_SPECIFIED"})
_NAT_OF_DESTINATION = 1
_HASH_JENKINS = 0
_TO_ADDRESS_AND_PORT = frozenset({"NF_NAT_RANGE_MAP_IPS", "NF_NAT_RANGE_PROTO_SPECIFIED"})
_INTERFACE_NAME_BYTES = 16  # IFNAMSIZ, padded with zeros
_WORD_BYTES = 4
_ALL_MARK_BITS = 0xFFFF_FFFF


class _Header(NamedTuple):
    """Bytes of a packet: which header, and where in it."""

    base: int
    offset: int
    length: int


_HEADER_FIELDS = {
    Field.IPV4_SOURCE: _Header(_NETWORK_HEADER, 12, 4),
    Field.IPV4_DESTINATION: _Header(_NETWORK_HEADER, 16, 4),
    Field.IPV6_SOURCE: _Header(_NETWORK_HEADER, 8, 16),
    Field.IPV6_DESTINATION: _Header(_NETWORK_HEADER, 24, 16),
    Field.UDP_SOURCE_PORT: _Header(_TRANSPORT_HEADER, 0, 2),
    Field.TCP_DESTINATION_PORT: _Header(_TRANSPORT_HEADER, 2, 2),
    Field.UDP_DESTINATION_PORT: _Header(_TRANSPORT_HEADER, 2, 2),
}
_META_FIELDS = {
    Field.TRANSPORT_PROTOCOL: _META_TRANSPORT_PROTOCOL,
    Field.MARK: _META_MARK,
    Field.INPUT_INTERFACE: _META_INPUT_INTERFACE,
    Field.OUTPUT_INTERFACE: _META_OUTPUT_INTERFACE,
}
# What has to hold before a header's bytes mean what the field says: a meta key and its value.
_REQUIRED = {
    Field.IPV4_SOURCE: (_META_NETWORK_PROTOCOL, _NETWORK_PROTOCOL_IPV4),
    Field.IPV4_DESTINATION: (_META_NETWORK_PROTOCOL, _NETWORK_PROTOCOL_IPV4),
    Field.IPV6_SOURCE: (_META_NETWORK_PROTOCOL, _NETWORK_PROTOCOL_IPV6),
    Field.IPV6_DESTINATION: (_META_NETWORK_PROTOCOL, _NETWORK_PROTOCOL_IPV6),
    Field.TCP_DESTINATION_PORT: (_META_TRANSPORT_PROTOCOL, TransportProtocol.TCP.value),
    Field.UDP_DESTINATION_PORT: (_META_TRANSPORT_PROTOCOL, TransportProtocol.UDP.value),
    Field.UDP_SOURCE_PORT: (_META_TRANSPORT_PROTOCOL, TransportProtocol.UDP.value),
}


def build_expressions(rule: Rule) -> list[Attributes]:
    """The expressions of `rule`: its matches, a counter, its action."""
    expressions: list[Attributes] = []
    for match in rule.matches:
        required = _REQUIRED.get(match.field)
        question = [] if required is None else _build_question(*required)
        if not _contains(expressions, question):
            expressions += question
        expressions += _build_match(match)
    return [*expressions, _expression("counter"), *_build_action(rule.action)]


def _build_question(meta_key: int, value: int) -> list[Attributes]:
    """Whether a one-byte property of the packet has `value`."""
    return [_expression("meta", key=meta_key, dreg=_REGISTER), _compare(bytes([value]))]


def _contains(expressions: list[Attributes], question: list[Attributes]) -> bool:
    """Whether `question` has been asked already, by an earlier match or for one."""
    return any(expressions[i : i + len(question)] == question for i in range(len(expressions)))


def _build_match(match: Match) -> list[Attributes]:
    value = _encode_value(match)
    operator = _COMPARE_NOT_EQUAL if match.is_negated else _COMPARE_EQUAL
    masked = [] if match.mask is None else [_bitwise(_encode_word(match.mask), _encode_word(0))]
    return [_load(match.field), *masked, _compare(value, operator)]


def _load(field: Field, register: int = _REGISTER) -> Attributes:
    if field is Field.CONNECTION_MARK:
        return _expression("ct", key=_CONNTRACK_MARK, dreg=register)
    if field in _META_FIELDS:
        return _expression("meta", key=_META_FIELDS[field], dreg=register)
    header = _HEADER_FIELDS[field]
    return _expression("payload", dreg=register, base=header.base, offset=header.offset, len=header.length)


def _encode_value(match: Match) -> bytes:
    """Marks are in the host's byte order, whatever comes from a packet's header is in the network's."""
    match match.value:
        case TransportProtocol():
            return bytes([match.value.value])
        case IPv4Address() | IPv6Address():
            return match.value.packed
        case str():
            return match.value.encode().ljust(_INTERFACE_NAME_BYTES, b"\0")
        case int() if match.field in _HEADER_FIELDS:
            return match.value.to_bytes(_HEADER_FIELDS[match.field].length, "big")
        case int():
            return _encode_word(match.value)


def _build_action(action: Action) -> list[Attributes]:
    match action:
        case Accept():
            return [_verdict(_VERDICT_ACCEPT)]
        case Return():
            return [_verdict(_VERDICT_RETURN)]
        case Jump(chain):
            return [_verdict(_VERDICT_JUMP, chain)]
        case Redirect(port):
            return [
                _immediate(port.to_bytes(2, "big")),
                _expression("redir", reg_proto_min=_REGISTER, reg_proto_max=_REGISTER, flags=_REDIRECT_TO_PORT),
            ]
        case RedirectByDestination(port, network):
            return _build_redirect_by_destination(port, network)
        case SetConnectionMark(mark, mask):
            return [
                _load(Field.CONNECTION_MARK),
                _bitwise(_encode_word(_ALL_MARK_BITS & ~mask), _encode_word(mark)),
                _expression("ct", key=_CONNTRACK_MARK, sreg=_REGISTER),
            ]
        case RestoreMark():
            return [_load(Field.CONNECTION_MARK), _expression("meta", key=_META_MARK, sreg=_REGISTER)]
        case SetConntrackZone(zone, is_of_replies):
            zone_in_host_order = zone.to_bytes(2, sys.byteorder)
            direction = {} if is_of_replies else {"direction": _ORIGINAL_DIRECTION}
            return [_immediate(zone_in_host_order), _expression("ct", key=_CONNTRACK_ZONE, sreg=_REGISTER, **direction)]


def _build_redirect_by_destination(port: int, network: IPv4Network | IPv6Network) -> list[Attributes]:
    if isinstance(network, IPv4Network):
        family, address = _NETWORK_PROTOCOL_IPV4, _hash_destination(network)
    else:
        family, address = _NETWORK_PROTOCOL_IPV6, _take_destination_bits(network)
    nat = _expression(
        "nat",
        type=_NAT_OF_DESTINATION,
        family=family,
        reg_addr_min=_REGISTER,
        reg_addr_max=_REGISTER,
        reg_proto_min=_SECOND_REGISTER,
        reg_proto_max=_SECOND_REGISTER,
        flags=_TO_ADDRESS_AND_PORT,
    )
    return [*address, _immediate(port.to_bytes(2, "big"), _SECOND_REGISTER), nat]


def _hash_destination(network: IPv4Network) -> list[Attributes]:
    """Address and port side by side, their hash, of which the network's bits are not for us to choose."""
    hashed = _expression(
        "hash",
        sreg=_SECOND_REGISTER,
        dreg=_REGISTER,
        len=2 * _WORD_BYTES,
        modulus=HASH_MODULUS,
        seed=0,
        type=_HASH_JENKINS,
    )
    return [
        _load(Field.IPV4_DESTINATION, _SECOND_REGISTER),
        _load(Field.TCP_DESTINATION_PORT, _SECOND_WORD_OF_IT),
        hashed,
        _bitwise(network.hostmask.packed, network.network_address.packed),
    ]


def _take_destination_bits(network: IPv6Network) -> list[Attributes]:
    """The 16 bytes of the packet that end with the TCP header's destination port, with the network's bits in place."""
    window = _expression(
        "payload",
        dreg=_REGISTER,
        base=_NETWORK_HEADER,
        offset=IPV6_DESTINATION_WINDOW // 8,
        len=network.max_prefixlen // 8,
    )
    mask = IPV6_DESTINATION_MASK.to_bytes(network.max_prefixlen // 8, "big")
    return [window, _bitwise(mask, network.network_address.packed)]


def _bitwise(mask: bytes, xor: bytes) -> Attributes:
    """register = register & mask ^ xor."""
    return _expression(
        "bitwise",
        sreg=_REGISTER,
        dreg=_REGISTER,
        len=len(mask),
        op=_BITWISE_AND_XOR,
        mask=_value(mask),
        xor=_value(xor),
    )


def _compare(value: bytes, operator: int = _COMPARE_EQUAL) -> Attributes:
    return _expression("cmp", sreg=_REGISTER, op=operator, data=_value(value))


def _immediate(value: bytes, register: int = _REGISTER) -> Attributes:
    return _expression("immediate", dreg=register, data=_value(value))


def _verdict(code: int, chain: str | None = None) -> Attributes:
    target: list[tuple[str, object]] = [] if chain is None else [("NFTA_VERDICT_CHAIN", chain)]
    verdict = {"attrs": [("NFTA_VERDICT_CODE", code), *target]}
    return _expression("immediate", dreg=_VERDICT_REGISTER, data={"attrs": [("NFTA_DATA_VERDICT", verdict)]})


def _expression(name: str, **attributes: object) -> Attributes:
    prefix = f"NFTA_{name.upper()}_"
    inner = [(prefix + key.upper(), value) for key, value in attributes.items()]
    return {"attrs": [("NFTA_EXPR_NAME", name), ("NFTA_EXPR_DATA", {"attrs": inner})]}


def _value(value: bytes) -> Attributes:
    return {"attrs": [("NFTA_DATA_VALUE", value)]}


def _encode_word(value: int) -> bytes:
    return value.to_bytes(_WORD_BYTES, sys.byteorder)
