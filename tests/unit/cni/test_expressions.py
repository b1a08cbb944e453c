import sys
from ipaddress import IPv4Address

from cni.kernel.expressions import Attributes, build_expressions
from cni.kernel.rules import (
    Accept,
    Field,
    Match,
    PodSettings,
    Redirect,
    Rule,
    SetConnectionMark,
    TransportProtocol,
    build_rules,
)

TCP = Match(Field.TRANSPORT_PROTOCOL, TransportProtocol.TCP)
TO_PORT_80 = Match(Field.TCP_DESTINATION_PORT, 80)


def names(rule: Rule) -> list[object]:
    return [dict(expression["attrs"])["NFTA_EXPR_NAME"] for expression in build_expressions(rule)]


def read(expression: Attributes, *path: str) -> object:
    value: object = expression
    for name in path:
        assert isinstance(value, dict)
        value = dict(value["attrs"])[name]
    return value


def compared_bytes(match: Match) -> object:
    comparison = build_expressions(Rule((match,), Accept()))[-3]  # before the counter and the verdict
    return read(comparison, "NFTA_EXPR_DATA", "NFTA_CMP_DATA", "NFTA_DATA_VALUE")


def test_a_port_is_asked_for_only_after_its_protocol() -> None:
    assert names(Rule((TO_PORT_80,), Accept())) == ["meta", "cmp", "payload", "cmp", "counter", "immediate"]


def test_a_protocol_that_was_asked_for_is_not_asked_for_again() -> None:
    assert names(Rule((TCP, TO_PORT_80), Accept())) == ["meta", "cmp", "payload", "cmp", "counter", "immediate"]


def test_an_address_is_asked_for_only_in_packets_of_its_ip_version() -> None:
    not_loopback = Match(Field.IPV4_DESTINATION, IPv4Address("127.0.0.1"), is_negated=True)
    version, equal, *_ = build_expressions(Rule((not_loopback,), Accept()))
    assert read(version, "NFTA_EXPR_DATA", "NFTA_META_KEY") == 15  # nfproto
    assert read(equal, "NFTA_EXPR_DATA", "NFTA_CMP_OP") == 0
    assert read(equal, "NFTA_EXPR_DATA", "NFTA_CMP_DATA", "NFTA_DATA_VALUE") == bytes([2])


def test_ports_are_in_network_byte_order_and_marks_in_the_hosts() -> None:
    assert compared_bytes(TO_PORT_80) == b"\x00\x50"
    assert compared_bytes(Match(Field.MARK, 0x539, mask=0xFFF)) == (0x539).to_bytes(4, sys.byteorder)


def test_an_interface_is_compared_by_its_whole_name() -> None:
    assert compared_bytes(Match(Field.INPUT_INTERFACE, "eth0")) == b"eth0" + bytes(12)


def test_a_connection_mark_keeps_the_bits_that_are_not_ours() -> None:
    *_, bitwise, _ = build_expressions(Rule((), SetConnectionMark(0x111, 0xFFF)))
    kept = read(bitwise, "NFTA_EXPR_DATA", "NFTA_BITWISE_MASK", "NFTA_DATA_VALUE")
    assert kept == (0xFFFFF000).to_bytes(4, sys.byteorder)


def test_a_redirect_names_its_port_in_network_byte_order() -> None:
    *_, port, redirect = build_expressions(Rule((), Redirect(15001)))
    assert read(port, "NFTA_EXPR_DATA", "NFTA_IMMEDIATE_DATA", "NFTA_DATA_VALUE") == (15001).to_bytes(2, "big")
    assert read(redirect, "NFTA_EXPR_NAME") == "redir"


def test_every_rule_counts_just_before_it_acts() -> None:
    for table in build_rules(PodSettings(dns_capture=True)).tables:
        for rule in [rule for chain in table.chains for rule in chain.rules]:
            assert names(rule).count("counter") == 1
