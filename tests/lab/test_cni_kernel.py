"""What the kernel holds after rules were applied, applied again, refused and removed."""

import errno
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from pyroute2 import IPRoute
from pyroute2.netlink import nlmsg
from pyroute2.netlink.nfnetlink.nftsocket import NFT_MSG_GETRULE, nft_rule_msg

from cni.kernel import netlink, nftables, routes
from cni.kernel.netlink import KernelRefusedError, NetlinkSocket
from cni.kernel.pods import apply_pod_rules, are_pod_rules_installed, remove_pod_rules
from cni.kernel.rules import Jump, PodSettings, Rule, RuleSet, build_rules
from cni.kernel.rules_text import render
from tests.support.isolation import isolated
from tests.support.pod_network import Pod, build_pod

DEFAULT = build_rules(PodSettings())
EVERYTHING = build_rules(PodSettings(dns_capture=True, reroute_interfaces=("vnet0", "vnet1")))
every_settings = pytest.mark.parametrize(
    "settings",
    [
        PodSettings(),
        PodSettings(ipv6=False),
        PodSettings(dns_capture=True),
        PodSettings(bypass_inbound_capture=True),
        PodSettings(dns_capture=True, bypass_inbound_capture=True, reroute_interfaces=("vnet0", "vnet1")),
    ],
    ids=["default", "IPv4 only", "DNS", "ingress", "everything"],
)


def read_rule_handles(pod: Pod) -> list[tuple[str, str, int]]:
    """Every nftables rule of the pod. The kernel numbers rules as it makes them: a rebuilt rule has a new number."""

    def read() -> list[tuple[str, str, int]]:
        change = nftables._build_change("list", nft_rule_msg, NFT_MSG_GETRULE, 0, ())
        with NetlinkSocket(12) as kernel:
            rules = [nftables._decode(nft_rule_msg, reply) for reply in kernel.dump("list", change.message)]
        names = ("NFTA_RULE_TABLE", "NFTA_RULE_CHAIN", "NFTA_RULE_HANDLE")
        return [tuple(rule.get_attr(name) for name in names) for rule in rules]

    return pod.run(read)


STATIC = 4
"""A route that somebody added (RTPROT_STATIC)."""


def read_routing(pod: Pod) -> list[str]:
    """Every policy rule of the pod, and every route of the tables that rules may name, as text."""

    def read() -> list[str]:
        with IPRoute() as kernel:
            rules = [*kernel.get_rules(family=2), *kernel.get_rules(family=10)]
            # In the main and local tables (253 and up) the kernel's own come and go with addresses and neighbours.
            all_routes = [*kernel.get_routes(), *kernel.get_routes(family=10, table=255)]
            routes = [route for route in all_routes if route["table"] < 253 or route["proto"] == STATIC]
        return sorted(str({**one, "attrs": sorted(map(str, one["attrs"])), "header": ""}) for one in [*rules, *routes])

    return pod.run(read)


def run_nft(pod: Pod, *arguments: str, text: str | None = None) -> str:
    program = shutil.which("nft") or shutil.which("nft", path="/usr/sbin:/sbin")
    if program is None:
        raise AssertionError("nft was there a moment ago")
    command = [program, *arguments]
    return pod.run(lambda: subprocess.run(command, input=text, text=True, check=True, capture_output=True).stdout)


needs_nft = pytest.mark.skipif(
    not (shutil.which("nft") or shutil.which("nft", path="/usr/sbin:/sbin")),
    reason="needs nft, to compare with: apt-get install nftables",
)


def break_rules(rules: RuleSet) -> RuleSet:
    """The same, and at the very end a jump to a chain that is not there."""
    *tables, last = rules.tables
    *chains, end = last.chains
    broken = replace(end, rules=(*end.rules, Rule((), Jump("nowhere"))))
    return replace(rules, tables=(*tables, replace(last, chains=(*chains, broken))))


@every_settings
@isolated
def test_applied_rules_are_installed_exactly(settings: PodSettings) -> None:
    rules = build_rules(settings)
    with build_pod() as pod:
        assert not are_pod_rules_installed(pod.namespace, rules)
        apply_pod_rules(pod.namespace, rules)
        assert are_pod_rules_installed(pod.namespace, rules)
        assert pod.run(nftables.read_table_names) == tuple(sorted(table.name for table in rules.tables))


@every_settings
@isolated
def test_applying_again_writes_nothing(settings: PodSettings) -> None:
    rules = build_rules(settings)
    with build_pod() as pod:
        apply_pod_rules(pod.namespace, rules)
        before = read_rule_handles(pod), read_routing(pod)
        apply_pod_rules(pod.namespace, rules)
        assert (read_rule_handles(pod), read_routing(pod)) == before
        assert len(before[0]) == sum(len(chain.rules) for table in rules.tables for chain in table.chains)


@every_settings
@isolated
def test_removal_leaves_nothing(settings: PodSettings) -> None:
    rules = build_rules(settings)
    with build_pod() as pod:
        before = read_routing(pod)
        apply_pod_rules(pod.namespace, rules)
        assert read_routing(pod) != before
        remove_pod_rules(pod.namespace, rules)
        assert (pod.run(nftables.read_table_names), read_rule_handles(pod)) == ((), [])
        assert read_routing(pod) == before


@isolated
def test_removing_what_is_not_there_is_fine() -> None:
    with build_pod() as pod:
        remove_pod_rules(pod.namespace, DEFAULT)
        remove_pod_rules(pod.namespace, DEFAULT)


@isolated
def test_other_settings_replace_the_rules_and_their_leftovers() -> None:
    with build_pod() as pod:
        apply_pod_rules(pod.namespace, EVERYTHING)
        apply_pod_rules(pod.namespace, DEFAULT)
        assert are_pod_rules_installed(pod.namespace, DEFAULT)


@isolated
def test_a_refused_rule_leaves_the_old_rules_untouched() -> None:
    with build_pod() as pod:
        apply_pod_rules(pod.namespace, DEFAULT)
        before = read_rule_handles(pod)
        with pytest.raises(KernelRefusedError, match="add rule 3 to istio-ambient-raw istio-output") as refusal:
            apply_pod_rules(pod.namespace, break_rules(EVERYTHING))
        assert refusal.value.code == errno.ENOENT
        assert read_rule_handles(pod) == before
        assert are_pod_rules_installed(pod.namespace, DEFAULT)


@isolated
def test_a_refused_first_rule_set_leaves_nothing() -> None:
    with build_pod() as pod:
        with pytest.raises(KernelRefusedError):
            apply_pod_rules(pod.namespace, break_rules(DEFAULT))
        assert (pod.run(nftables.read_table_names), read_rule_handles(pod)) == ((), [])


@pytest.mark.parametrize("damage", ["insert", "append", "flush", "extra chain"])
@needs_nft
@isolated
def test_rules_that_somebody_changed_are_repaired(damage: str) -> None:
    commands = {
        "insert": ("insert", "rule", "inet", "istio-ambient-nat", "istio-output", "counter", "accept"),
        "append": ("add", "rule", "inet", "istio-ambient-nat", "output", "counter", "accept"),
        "flush": ("flush", "chain", "inet", "istio-ambient-mangle", "istio-output"),
        "extra chain": ("add", "chain", "inet", "istio-ambient-raw", "another"),
    }
    with build_pod() as pod:
        apply_pod_rules(pod.namespace, DEFAULT)
        run_nft(pod, *commands[damage])
        assert not are_pod_rules_installed(pod.namespace, DEFAULT)
        apply_pod_rules(pod.namespace, DEFAULT)
        assert are_pod_rules_installed(pod.namespace, DEFAULT)


@needs_nft
@isolated
def test_tables_of_others_are_not_touched() -> None:
    foreign = (
        "table inet firewall {\n\tchain input {\n\t\ttype filter hook input priority filter; policy accept;\n\t}\n}\n"
    )
    with build_pod() as pod:
        run_nft(pod, "-f", "-", text=foreign)
        apply_pod_rules(pod.namespace, EVERYTHING)
        assert are_pod_rules_installed(pod.namespace, EVERYTHING)
        remove_pod_rules(pod.namespace, EVERYTHING)
        assert run_nft(pod, "list", "ruleset") == foreign


@every_settings
@needs_nft
@isolated
def test_the_readable_dump_is_what_nft_would_install(settings: PodSettings) -> None:
    rules = build_rules(settings)
    with build_pod() as pod:
        run_nft(pod, "-f", "-", text=render(rules))
        assert pod.run(lambda: nftables.is_installed(rules))


@isolated
def test_a_pod_without_ipv6_gets_its_ipv4_routing() -> None:
    with build_pod() as pod:
        pod.run(lambda: Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6").write_text("1"))
        apply_pod_rules(pod.namespace, DEFAULT)
        assert are_pod_rules_installed(pod.namespace, DEFAULT)
        assert pod.run(lambda: routes.is_routing_installed(DEFAULT.routing[:1]))


def _take_loopback_down() -> None:
    with IPRoute() as pod:
        pod.link("set", index=1, state="down")


@isolated
def test_a_route_that_is_refused_is_named_and_the_pod_stays_captured() -> None:
    with build_pod() as pod:
        pod.run(_take_loopback_down)
        with pytest.raises(KernelRefusedError, match=r"IPV6.*bring the pod's lo up first"):
            apply_pod_rules(pod.namespace, DEFAULT)
        assert pod.run(lambda: nftables.is_installed(DEFAULT))


@isolated
def test_the_addresses_of_a_pod_are_read_over_both_ip_versions() -> None:
    with build_pod() as pod:
        addresses = {str(address) for address in pod.run(routes.read_addresses)}
        assert {"192.0.2.10", "2001:db8::10", "127.0.0.1", "::1"} <= addresses
        assert "192.0.2.1" not in addresses


@isolated
def test_hundreds_of_rules_are_acknowledged_in_one_transaction() -> None:
    many = build_rules(PodSettings(reroute_interfaces=tuple(f"vnet{n}" for n in range(250))))
    with build_pod() as pod:
        apply_pod_rules(pod.namespace, many)
        assert are_pod_rules_installed(pod.namespace, many)
        remove_pod_rules(pod.namespace, many)


def _count_open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@isolated
def test_rules_cost_no_file_descriptor_and_no_thread() -> None:
    with build_pod() as pod:
        apply_pod_rules(pod.namespace, DEFAULT)
        before = _count_open_files(), threading.active_count()
        for _ in range(5):
            apply_pod_rules(pod.namespace, EVERYTHING)
            with pytest.raises(KernelRefusedError):
                apply_pod_rules(pod.namespace, break_rules(DEFAULT))
            remove_pod_rules(pod.namespace, EVERYTHING)
        assert (_count_open_files(), threading.active_count()) == before


def test_an_unanswered_request_is_an_error() -> None:
    with NetlinkSocket(0) as kernel, pytest.raises(netlink.NoAnswerError, match="nothing"):
        kernel.request("nothing", _Silence())


class _Silence(nlmsg):  # type: ignore[misc]  # pyroute2 has no types
    """A message that asks for nothing (NLMSG_NOOP), not even to be acknowledged."""

    def __init__(self) -> None:
        super().__init__()
        self["header"] = {"flags": 0}

    def encode(self) -> None:
        self["header"].update(type=1, flags=0)
        super().encode()
