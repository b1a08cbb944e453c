"""Policies that are valid and select something, and still do not do what they read."""

from collections.abc import Iterator

from controller.analysis.findings import Finding, Path
from controller.analysis.given import Given, Policy, name_some
from controller.kinds.security import AuthorizationPolicy, PeerAuthentication
from controller.registry.byte_policies import is_for_ztunnel
from controller.registry.gateway_proxies import runs_gateway
from controller.registry.target_conditions import BEYOND_ZTUNNEL


def check_enforcement(given: Given) -> Iterator[Finding]:
    """Policies for pods outside of the mesh, where no ztunnel enforces them.

    One for the whole mesh is for what is in it, and says nothing of the rest.
    """
    for policy in given.policies:
        if given.reaches_all(policy) and not policy.match_labels:
            continue
        outside = [pod for pod in given.selected_by(policy) if given.is_outside(pod)]
        if isinstance(policy, AuthorizationPolicy) and policy.match_labels:
            outside = [pod for pod in outside if not runs_gateway(given.snapshot, pod)]
        if outside and _restricts(policy):
            what = "this policy" if isinstance(policy, AuthorizationPolicy) else "STRICT"
            path: Path = ("spec", "selector") if policy.match_labels else ("spec",)
            message = f"{name_some(outside)}: not in the mesh, so {what} is not enforced there"
            yield Finding("policy-not-enforced", policy.key, path, message)


def check_judges(given: Given) -> Iterator[Finding]:
    """Policies by selector with rules that only an L7 proxy can judge, for pods that have none."""
    for policy in given.policies:
        if not isinstance(policy, AuthorizationPolicy) or is_for_ztunnel(policy):
            continue
        blind = [pod for pod in given.selected_by(policy) if not runs_gateway(given.snapshot, pod)]
        if blind:
            message = f"{name_some(blind)}: no Envoy of a gateway enforces this there; {BEYOND_ZTUNNEL}"
            yield Finding("policy-beyond-ztunnel", policy.key, ("spec", "rules"), message)


def _restricts(policy: Policy) -> bool:
    if isinstance(policy, AuthorizationPolicy):
        return True
    return "STRICT" in (policy.mode, *policy.port_modes.values())


def check_shadowing(given: Given) -> Iterator[Finding]:
    """PeerAuthentications for a whole namespace, or the mesh, of which only the oldest counts."""
    levels: dict[str, list[PeerAuthentication]] = {}
    for policy in given.snapshot.objects(PeerAuthentication):
        if not policy.match_labels:
            levels.setdefault(policy.namespace, []).append(policy)
    for policies in levels.values():
        first, *others = sorted(policies, key=lambda policy: policy.age_key)
        for policy in others:
            message = f"{first.key} is for the same pods and goes before it: this one has no effect"
            yield Finding("peer-authentication-shadowed", policy.key, ("spec",), message)
