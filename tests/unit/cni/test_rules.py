from pathlib import Path

import pytest

from cni.kernel.rules import (
    Accept,
    Chain,
    Field,
    Jump,
    PodSettings,
    Redirect,
    RedirectByDestination,
    Return,
    Rule,
    RuleSet,
    TransportProtocol,
    build_rules,
)
from cni.kernel.rules_text import render
from mesh import ports

REDIRECTS = (Redirect, RedirectByDestination)
GOLDEN = Path(__file__).parent / "golden"
SETTINGS = {
    "default": PodSettings(),
    "ipv4_only": PodSettings(ipv6=False),
    "dns": PodSettings(dns_capture=True),
    "ingress": PodSettings(bypass_inbound_capture=True),
    "everything": PodSettings(dns_capture=True, bypass_inbound_capture=True, reroute_interfaces=("vnet0", "k6t-net1")),
}


def find_chains(rules: RuleSet, table: str, chain: str) -> list[Chain]:
    return [c for t in rules.tables if t.name == f"istio-ambient-{table}" for c in t.chains if c.name == chain]


def find_chain(rules: RuleSet, table: str, chain: str) -> Chain:
    (found,) = find_chains(rules, table, chain)
    return found


def list_rules(rules: RuleSet) -> list[Rule]:
    return [rule for table in rules.tables for chain in table.chains for rule in chain.rules]


@pytest.mark.parametrize("name", SETTINGS)
def test_the_dump_of_each_setting_is_as_written_down(name: str) -> None:
    assert render(build_rules(SETTINGS[name])) == (GOLDEN / f"{name}.nft").read_text()


@pytest.mark.parametrize("name", SETTINGS)
def test_equal_settings_give_equal_rules(name: str) -> None:
    assert build_rules(SETTINGS[name]) == build_rules(SETTINGS[name])


def test_every_setting_changes_the_rules() -> None:
    assert len({build_rules(settings) for settings in SETTINGS.values()}) == len(SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_jump_has_its_target(name: str) -> None:
    for table in build_rules(SETTINGS[name]).tables:
        targets = {rule.action.chain for chain in table.chains for rule in chain.rules if isinstance(rule.action, Jump)}
        assert targets == {chain.name for chain in table.chains if chain.base is None}


@pytest.mark.parametrize("name", SETTINGS)
def test_no_redirect_catches_ztunnels_own_traffic(name: str) -> None:
    for rule in list_rules(build_rules(SETTINGS[name])):
        if isinstance(rule.action, REDIRECTS) and rule.matches[0].field is not Field.INPUT_INTERFACE:
            (on_mark,) = [match for match in rule.matches if match.field is Field.MARK]
            assert (on_mark.value, on_mark.mask, on_mark.is_negated) == (ports.ZTUNNEL_MARK, ports.MARK_MASK, True)


@pytest.mark.parametrize("chain", ["istio-prerouting", "istio-output"])
def test_probes_are_accepted_before_anything_is_redirected(chain: str) -> None:
    actions = [rule.action for rule in find_chain(build_rules(PodSettings()), "nat", chain).rules]
    redirects = [number for number, action in enumerate(actions) if isinstance(action, REDIRECTS)]
    assert actions.index(Accept()) < redirects[0]


def test_rerouted_interfaces_come_before_every_other_inbound_rule() -> None:
    rules = build_rules(PodSettings(reroute_interfaces=("vnet0",)))
    first, second, *others = find_chain(rules, "nat", "istio-prerouting").rules
    assert (first.action, second.action) == (Redirect(ports.OUTBOUND_CAPTURE_PORT), Return())
    assert first.matches == second.matches
    assert [match.value for match in first.matches] == ["vnet0", TransportProtocol.TCP]
    assert all(match.field is not Field.INPUT_INTERFACE for rule in others for match in rule.matches)


def test_an_ingress_pod_captures_nothing_inbound_but_marks_ztunnels_connections() -> None:
    rules = build_rules(PodSettings(bypass_inbound_capture=True))
    assert not find_chains(rules, "nat", "istio-prerouting")
    assert find_chain(rules, "mangle", "istio-prerouting").rules


@pytest.mark.parametrize(("ipv6", "versions"), [(True, [4, 6]), (False, [4])], ids=["both", "IPv4 only"])
def test_replies_are_routed_for_each_ip_version_that_is_captured(ipv6: bool, versions: list[int]) -> None:
    routing = build_rules(PodSettings(ipv6=ipv6)).routing
    assert [one.ip_version.value for one in routing] == versions
    for one in routing:
        assert (one.mark, one.mask, one.priority, one.table) == (0x111, 0xFFF, 32764, 100)


def test_comments_fit_the_kernels_limit() -> None:
    # nft refuses more than 128 bytes (NFTNL_UDATA_COMMENT_MAXLEN); the kernel stores one length byte.
    assert all(len(rule.comment.encode()) < 128 for rule in list_rules(build_rules(SETTINGS["everything"])))
