"""`cni.kernel` for the event loop: everything that talks netlink runs in a worker thread."""

import asyncio
from ipaddress import IPv4Address, IPv6Address

from cni.kernel import pods
from cni.kernel.namespaces import NetworkNamespace
from cni.kernel.rules import RuleSet


class ThreadedPodKernel:
    """The real kernel, as `cni.agent.enrolment.PodKernel`. Cancelled, a step still runs to its end in its thread."""

    def open(self, path: str) -> NetworkNamespace:
        return NetworkNamespace.open(path)

    async def read_addresses(self, namespace: NetworkNamespace) -> frozenset[IPv4Address | IPv6Address]:
        return await asyncio.to_thread(pods.read_pod_addresses, namespace)

    async def apply(self, namespace: NetworkNamespace, rules: RuleSet) -> None:
        await asyncio.to_thread(pods.apply_pod_rules, namespace, rules)

    async def remove(self, namespace: NetworkNamespace, rules: RuleSet) -> None:
        await asyncio.to_thread(pods.remove_pod_rules, namespace, rules)

    async def is_installed(self, namespace: NetworkNamespace, rules: RuleSet) -> bool:
        return await asyncio.to_thread(pods.are_pod_rules_installed, namespace, rules)
