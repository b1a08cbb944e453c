"""What has become of BackendTLSPolicies, as Gateway API's conditions at the Gateways that they matter to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from controller.kinds.backend_tls_policy import BackendTLSPolicy
from controller.registry.attachment import GatewayRoute, Reason, find_gateway, list_backends
from controller.registry.backend_tls import find_policies, list_targets, resolve_authority
from controller.registry.conditions import Condition, judge_parent
from controller.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class AncestorConditions:
    """What has become of a policy at one of the Gateways that it matters to, by namespace and name."""

    gateway: tuple[str, str]
    conditions: tuple[Condition, ...]


def judge_backend_tls(
    snapshot: Snapshot, policy: BackendTLSPolicy, routes: Sequence[GatewayRoute]
) -> Iterator[AncestorConditions]:
    """At each Gateway of ours whose routes lead to a Service that the policy is for."""
    conditions = (_judge_targets(snapshot, policy), _judge_authorities(snapshot, policy))
    named = {(policy.namespace, target.name) for _, target in list_targets(policy)}
    gateways: set[tuple[str, str]] = set()
    for route in routes:
        backends = (reference for _, reference in list_backends(route))
        if any((each.namespace or route.namespace, each.name) in named for each in backends):
            gateways.update(_find_gateways(snapshot, route))
    for gateway in sorted(gateways):
        yield AncestorConditions(gateway, conditions)


def _find_gateways(snapshot: Snapshot, route: GatewayRoute) -> Iterator[tuple[str, str]]:
    for reference in route.spec.parent_refs or ():
        place = find_gateway(reference, route.namespace)
        found = judge_parent(snapshot, route, reference) if place else None
        if place and found and found.is_accepted:
            yield place


def _judge_targets(snapshot: Snapshot, policy: BackendTLSPolicy) -> Condition:
    """Whether it counts: not where another goes before it, nor without a valid authority."""
    for _, target in list_targets(policy):
        first = find_policies(snapshot, policy.namespace, target.name, target.section_name or "")[0]
        if first.name != policy.name:
            return Condition(
                "Accepted", False, "Conflicted", f"BackendTLSPolicy {first.name} is for the same, and older"
            )
    found = [resolve_authority(snapshot, policy, each) for each in policy.spec.validation.ca_certificate_refs]
    if found and not any(each[0] is Reason.RESOLVED for each in found):
        return Condition("Accepted", False, "NoValidCACertificate", f"{found[0][1]}: requests to its Services fail")
    return Condition("Accepted", True, Reason.ACCEPTED.value)


def _judge_authorities(snapshot: Snapshot, policy: BackendTLSPolicy) -> Condition:
    for reference in policy.spec.validation.ca_certificate_refs:
        reason, message, _ = resolve_authority(snapshot, policy, reference)
        if reason is not Reason.RESOLVED:
            return Condition("ResolvedRefs", False, reason.value, message)
    return Condition("ResolvedRefs", True, Reason.RESOLVED.value)
