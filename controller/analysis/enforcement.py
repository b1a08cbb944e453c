"""Policies that are valid and select something, and still do not do what they read."""

from collections.abc import Iterator

from controller.analysis.findings import Finding, Path
from controller.analysis.given import Given, Policy, name_some
from controller.kinds.security import AuthorizationPolicy, PeerAuthentication


def check_enforcement(given: Given) -> Iterator[Finding]:
    """Policies for pods outside of the mesh, where no ztunnel enforces them.

    One for the whole mesh is for what is in it, and says nothing of the rest.
    """
    for policy in given.policies:
        if given.reaches_all(policy) and not policy.match_labels:
            continue
        outside = [pod for pod in given.selected_by(policy) if given.is_outside(pod)]
        if outside and _restricts(policy):
            what = "this policy" if isinstance(policy, AuthorizationPolicy) else "STRICT"
            path: Path = ("spec", "selector") if policy.match_labels else ("spec",)
            message = f"{name_some(outside)}: not in the mesh, so {what} is not enforced there"
            yield Finding("policy-not-enforced", policy.key, path, message)


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
