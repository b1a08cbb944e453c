"""Makes a network namespace's nftables equal to a rule set, in one transaction, and tells whether they are equal.

All functions act on the network namespace of the calling thread (see `cni.kernel.namespaces`). What is there already
is left alone, counters included; what differs is deleted and built anew within the one transaction, so that no packet
ever meets half a rule set, and when the kernel refuses any part, the old rules go on.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from pyroute2.netlink import NETLINK_NETFILTER
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES, nfgen_msg
from pyroute2.netlink.nfnetlink.nftsocket import (
    NFPROTO_INET,
    NFT_MSG_DELTABLE,
    NFT_MSG_GETCHAIN,
    NFT_MSG_GETRULE,
    NFT_MSG_GETTABLE,
    NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWRULE,
    NFT_MSG_NEWTABLE,
    nft_chain_msg,
    nft_rule_msg,
    nft_table_msg,
)

from cni.kernel import netlink
from cni.kernel.expressions import build_expressions
from cni.kernel.netlink import KernelRefusedError, Message, NetlinkSocket
from cni.kernel.rules import OWNED_TABLES, Chain, Rule, RuleSet, Table

# linux/netfilter/nfnetlink.h: what stands between these two happens as one, or not at all.
_BATCH_BEGIN = 0x10
_BATCH_END = 0x11
_POLICY_ACCEPT = 1

_CHANGE = netlink.NLM_F_REQUEST | netlink.NLM_F_ACK
_CREATE = _CHANGE | netlink.NLM_F_CREATE
_APPEND = _CREATE | netlink.NLM_F_APPEND

# What the kernel tells of an object that nobody asked of it: handles, counts, where a rule stands, padding.
_NOT_COMPARED = frozenset(
    {
        "NFTA_CHAIN_FLAGS",
        "NFTA_CHAIN_HANDLE",
        "NFTA_CHAIN_USE",
        "NFTA_COUNTER_BYTES",
        "NFTA_COUNTER_PACKETS",
        "NFTA_COUNTER_UNSPEC",
        "NFTA_RULE_HANDLE",
        "NFTA_RULE_POSITION",
    }
)

# An object as nested tuples, attributes sorted by name: what is asked for and what is installed compare as equal.
Canonical = tuple[object, ...]

# A table's name and a chain's.
Place = tuple[str, str]


class Change(NamedTuple):
    """One request of a transaction, and its description for an error message."""

    what: str
    message: Message


def apply_tables(rules: RuleSet) -> bool:
    """Install exactly `rules`' tables among those that are ours; other tables are not touched.

    Returns whether anything had to change. Raises KernelRefusedError naming the part that was refused; then nothing has
    changed.
    """
    with NetlinkSocket(NETLINK_NETFILTER) as kernel:
        if _is_installed(kernel, rules):
            return False
        commit(kernel, [*_build_removal(OWNED_TABLES), *_build_tables(rules.tables)])
    return True


def remove_tables() -> None:
    """Delete every table of ours. None being there is fine."""
    with NetlinkSocket(NETLINK_NETFILTER) as kernel:
        if _read_table_names(kernel):
            commit(kernel, _build_removal(OWNED_TABLES))


def is_installed(rules: RuleSet) -> bool:
    """Whether the tables of ours that stand in the namespace are those of `rules`, to the last expression."""
    with NetlinkSocket(NETLINK_NETFILTER) as kernel:
        return _is_installed(kernel, rules)


def read_table_names() -> tuple[str, ...]:
    """The tables of ours that stand in the namespace, sorted."""
    with NetlinkSocket(NETLINK_NETFILTER) as kernel:
        return tuple(sorted(_read_table_names(kernel)))


def commit(kernel: NetlinkSocket, changes: Sequence[Change]) -> None:
    """Do all `changes` as one transaction, or none: raises KernelRefusedError for the first that was refused."""
    begin, end = _build_batch_mark(_BATCH_BEGIN), _build_batch_mark(_BATCH_END)
    first, *sequences = kernel.send([begin, *(change.message for change in changes), end])
    answers = kernel.read_acknowledgements()
    for what, sequence in [("nftables transaction", first), *zip((c.what for c in changes), sequences, strict=False)]:
        code, detail = answers.get(sequence, (0, ""))
        if code:
            raise KernelRefusedError(what, code, detail)
    unanswered = [c.what for c, sequence in zip(changes, sequences, strict=False) if sequence not in answers]
    if unanswered:
        raise netlink.NoAnswerError(unanswered[0])


# ------------------------------------------------------------------------------------------------------------- writing


def _build_removal(names: Iterable[str]) -> list[Change]:
    """Add, then delete: so it is no error when the table is not there."""
    changes = []
    for name in names:
        attributes = [("NFTA_TABLE_NAME", name)]
        changes.append(_build_change(f"add table {name}", nft_table_msg, NFT_MSG_NEWTABLE, _CREATE, attributes))
        changes.append(_build_change(f"delete table {name}", nft_table_msg, NFT_MSG_DELTABLE, _CHANGE, attributes))
    return changes


def _build_tables(tables: Iterable[Table]) -> list[Change]:
    """The tables, then all their chains, then the rules: a jump needs its target to be there."""
    changes: list[Change] = []
    for table in tables:
        attributes = [("NFTA_TABLE_NAME", table.name)]
        changes.append(_build_change(f"add table {table.name}", nft_table_msg, NFT_MSG_NEWTABLE, _CREATE, attributes))
        changes += [_build_chain(table.name, chain) for chain in table.chains]
        changes += [
            _build_rule(table.name, chain.name, number, rule)
            for chain in table.chains
            for number, rule in enumerate(chain.rules, 1)
        ]
    return changes


def _build_chain(table: str, chain: Chain) -> Change:
    what = f"add chain {table} {chain.name}"
    return _build_change(what, nft_chain_msg, NFT_MSG_NEWCHAIN, _CREATE, _chain_attributes(table, chain))


def _chain_attributes(table: str, chain: Chain) -> list[tuple[str, object]]:
    attributes: list[tuple[str, object]] = [("NFTA_CHAIN_TABLE", table), ("NFTA_CHAIN_NAME", chain.name)]
    if chain.base is not None:
        hook = [("NFTA_HOOK_HOOKNUM", chain.base.hook.value), ("NFTA_HOOK_PRIORITY", chain.base.priority)]
        attributes += [
            ("NFTA_CHAIN_TYPE", chain.base.kind),
            ("NFTA_CHAIN_HOOK", {"attrs": hook}),
            ("NFTA_CHAIN_POLICY", _POLICY_ACCEPT),
        ]
    return attributes


def _build_rule(table: str, chain: str, number: int, rule: Rule) -> Change:
    what = f"add rule {number} to {table} {chain}"
    return _build_change(what, nft_rule_msg, NFT_MSG_NEWRULE, _APPEND, _rule_attributes(table, chain, rule))


def _rule_attributes(table: str, chain: str, rule: Rule) -> list[tuple[str, object]]:
    comment = [("NFTA_RULE_USERDATA", {"value": rule.comment})] if rule.comment else []
    return [
        ("NFTA_RULE_TABLE", table),
        ("NFTA_RULE_CHAIN", chain),
        ("NFTA_RULE_EXPRESSIONS", build_expressions(rule)),
        *comment,
    ]


def _build_change(
    what: str, kind: type[nfgen_msg], number: int, flags: int, attributes: Sequence[tuple[str, object]]
) -> Change:
    message: nfgen_msg = kind()
    message["header"] = {"type": NFNL_SUBSYS_NFTABLES << 8 | number, "flags": flags}
    message["nfgen_family"] = NFPROTO_INET
    message["attrs"] = list(attributes)
    return Change(what, message)


def _build_batch_mark(number: int) -> Message:
    mark: Message = nfgen_msg()
    mark["header"] = {"type": number, "flags": netlink.NLM_F_REQUEST}
    mark["res_id"] = NFNL_SUBSYS_NFTABLES
    return mark


# ------------------------------------------------------------------------------------------------------------- reading


def _is_installed(kernel: NetlinkSocket, rules: RuleSet) -> bool:
    if _read_table_names(kernel) != {table.name for table in rules.tables}:
        return False
    chains = _read(kernel, "list nftables chains", nft_chain_msg, NFT_MSG_GETCHAIN)
    if _group(chains, "NFTA_CHAIN_TABLE", "NFTA_CHAIN_NAME") != _expect_chains(rules.tables):
        return False
    installed = _read(kernel, "list nftables rules", nft_rule_msg, NFT_MSG_GETRULE)
    return _group(installed, "NFTA_RULE_TABLE", "NFTA_RULE_CHAIN") == _expect_rules(rules.tables)


def _read_table_names(kernel: NetlinkSocket) -> set[str]:
    tables = _read(kernel, "list nftables tables", nft_table_msg, NFT_MSG_GETTABLE)
    return {table.get_attr("NFTA_TABLE_NAME") for table in tables} & set(OWNED_TABLES)


def _read(kernel: NetlinkSocket, what: str, kind: type[nfgen_msg], number: int) -> list[nfgen_msg]:
    """All objects of one kind in family inet, in the order in which the kernel holds them."""
    return [_decode(kind, reply) for reply in kernel.dump(what, _build_change(what, kind, number, 0, ()).message)]


def _decode(kind: type[nfgen_msg], encoded: bytes) -> nfgen_msg:
    message = kind(encoded)
    message.decode()
    return message


def _group(objects: Iterable[nfgen_msg], table_attribute: str, chain_attribute: str) -> dict[Place, list[Canonical]]:
    """What stands in each chain of ours, in order."""
    groups: dict[Place, list[Canonical]] = {}
    for one in objects:
        place = one.get_attr(table_attribute), one.get_attr(chain_attribute)
        if place[0] in OWNED_TABLES:
            groups.setdefault(place, []).append(_canonicalise(one.dump()))
    return groups


# Most pods of a node have the same rules, and to work this out takes as long as to read them from the kernel.
@lru_cache(maxsize=8)
def _expect_chains(tables: tuple[Table, ...]) -> dict[Place, list[Canonical]]:
    return {
        (table.name, chain.name): [_canonicalise_request(_build_chain(table.name, chain), nft_chain_msg)]
        for table in tables
        for chain in table.chains
    }


@lru_cache(maxsize=8)
def _expect_rules(tables: tuple[Table, ...]) -> dict[Place, list[Canonical]]:
    return {
        (table.name, chain.name): [
            _canonicalise_request(_build_rule(table.name, chain.name, number, rule), nft_rule_msg)
            for number, rule in enumerate(chain.rules, 1)
        ]
        for table in tables
        for chain in table.chains
        if chain.rules
    }


def _canonicalise_request(change: Change, kind: type[nfgen_msg]) -> Canonical:
    """As the kernel would give it back: encoded, and decoded as its answers are."""
    change.message.encode()
    return _canonicalise(_decode(kind, bytes(change.message.data)).dump())


def _canonicalise(value: object) -> Canonical:
    match value:
        case {"attrs": attributes}:
            compared = sorted((part for part in attributes if part[0] not in _NOT_COMPARED), key=lambda part: part[0])
            return tuple((name, _canonicalise(inner)) for name, inner in compared)
        case list():
            return tuple(_canonicalise(part) for part in value)
        case frozenset():
            return tuple(sorted(value))
        case _:
            return (value,)
