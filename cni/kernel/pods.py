"""What the agent asks of the kernel for one pod, each in the pod's own namespace: apply, remove, inspect.

These block; the agent calls them in worker threads.
"""

from ipaddress import IPv4Address, IPv6Address

from cni.kernel.namespaces import NetworkNamespace, run_in_namespace
from cni.kernel.nftables import apply_tables, is_installed, remove_tables
from cni.kernel.routes import (
    apply_local,
    apply_routing,
    is_local_installed,
    is_routing_installed,
    read_addresses,
    remove_local,
    remove_routing,
)
from cni.kernel.rules import RuleSet


def apply_pod_rules(namespace: NetworkNamespace, rules: RuleSet) -> None:
    """Make the pod's redirection equal to `rules`; when it is, nothing changes.

    Rules come before routes: if a later step fails, the pod is captured and its traffic waits, which is the safe
    side. Raises KernelRefusedError or EnterNamespaceError.
    """

    def apply() -> None:
        apply_tables(rules)
        apply_routing(rules.routing)
        apply_local(rules.local)

    run_in_namespace(namespace, apply)


def remove_pod_rules(namespace: NetworkNamespace, rules: RuleSet) -> None:
    """Remove every table of ours and the routing of `rules`. Raises KernelRefusedError or EnterNamespaceError."""

    def remove() -> None:
        remove_tables()
        remove_routing(rules.routing)
        remove_local(rules.local)

    run_in_namespace(namespace, remove)


def are_pod_rules_installed(namespace: NetworkNamespace, rules: RuleSet) -> bool:
    """Whether the pod's redirection is exactly `rules`."""

    def look() -> bool:
        return is_installed(rules) and is_routing_installed(rules.routing) and is_local_installed(rules.local)

    return run_in_namespace(namespace, look)


def read_pod_addresses(namespace: NetworkNamespace) -> frozenset[IPv4Address | IPv6Address]:
    """The addresses of the pod's interfaces."""
    return run_in_namespace(namespace, read_addresses)
