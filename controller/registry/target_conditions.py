"""What has become of policies that are attached to targets, as conditions (facts of the control plane, section 5)."""

from collections.abc import Iterator

from controller.kinds.key_set import KeySet, name_key_set
from controller.kinds.request_authentication import RequestAuthentication
from controller.kinds.security import AuthorizationPolicy
from controller.registry.authorizers import explain_missing
from controller.registry.byte_policies import is_for_ztunnel
from controller.registry.conditions import Condition
from controller.registry.names import MeshSettings
from controller.registry.request_policies import BindingReason, Policy, find_bindings, find_selected
from controller.snapshot import Snapshot

BOUND = "WaypointAccepted"
"""Istio's word for every target that an Envoy serves, be it a waypoint or a gateway."""
KEYS_FETCHED = "KeysFetched"
PROVIDER_FOUND = "ProviderFound"
ZTUNNEL = "ZtunnelAccepted"
BEYOND_ZTUNNEL = (
    "it has rules that only an L7 proxy can judge: pods without the Envoy of a gateway refuse what those might be about"
)


def judge_targeted(snapshot: Snapshot, settings: MeshSettings, policy: Policy, refusal: str) -> Iterator[Condition]:
    """Of a policy with targets; `refusal` says why its present form is not the one that serves, if it is not."""
    yield _judge_bindings(snapshot, settings, policy, refusal)
    yield from _judge_provider(snapshot, settings, policy)
    if isinstance(policy, RequestAuthentication) and policy.key_urls:
        yield _judge_keys(snapshot, policy)


def judge_selecting(snapshot: Snapshot, settings: MeshSettings, policy: Policy, refusal: str) -> Iterator[Condition]:
    """Of a policy without targets: which Envoys enforce it, where ztunnels cannot, and whether these do."""
    is_all_ztunnels = isinstance(policy, AuthorizationPolicy) and is_for_ztunnel(policy)
    if not is_all_ztunnels:
        yield _judge_selected(snapshot, settings, policy, refusal)
        yield from _judge_provider(snapshot, settings, policy)
    if isinstance(policy, RequestAuthentication):
        yield from [_judge_keys(snapshot, policy)] if policy.key_urls else []
    elif refusal:
        yield Condition(ZTUNNEL, False, "UnsupportedValue", refusal)
    elif is_all_ztunnels:
        yield Condition(ZTUNNEL, True, "Accepted", "enforced by ztunnel")
    else:
        message = "ztunnels log nothing of it" if policy.spec.action == "AUDIT" else BEYOND_ZTUNNEL
        yield Condition(ZTUNNEL, False, "UnsupportedValue", message)


def _judge_provider(snapshot: Snapshot, settings: MeshSettings, policy: Policy) -> Iterator[Condition]:
    if isinstance(policy, AuthorizationPolicy) and policy.spec.provider:
        missing = explain_missing(snapshot, settings, policy.spec.provider.name)
        yield Condition(PROVIDER_FOUND, not missing, "ProviderNotFound" if missing else PROVIDER_FOUND, missing)


def _judge_selected(snapshot: Snapshot, settings: MeshSettings, policy: Policy, refusal: str) -> Condition:
    if refusal:
        return Condition(BOUND, False, BindingReason.INVALID.value, refusal)
    if next(find_selected(snapshot, settings, policy), None) is None:
        message = "there is no gateway with the labels of its selector"
        return Condition(BOUND, False, BindingReason.TARGET_NOT_FOUND.value, message)
    where = "with the labels of its selector" if policy.match_labels else "of its namespace"
    return Condition(BOUND, True, BindingReason.ACCEPTED.value, f"bound to the Envoys of gateways {where}")


def _judge_bindings(snapshot: Snapshot, settings: MeshSettings, policy: Policy, refusal: str) -> Condition:
    if refusal:
        return Condition(BOUND, False, BindingReason.INVALID.value, refusal)
    bindings = list(find_bindings(snapshot, settings, policy))
    accepted = sum(each.reason is BindingReason.ACCEPTED for each in bindings)
    message = "; ".join(each.message for each in bindings)
    if not accepted:
        return Condition(BOUND, False, bindings[0].reason.value, message)
    reason = BindingReason.ACCEPTED if accepted == len(bindings) else BindingReason.PARTIALLY_INVALID
    return Condition(BOUND, True, reason.value, message)


def _judge_keys(snapshot: Snapshot, policy: RequestAuthentication) -> Condition:
    """Whether the keys of all its URLs were had, and are new."""
    for url in policy.key_urls:
        keys = snapshot.find(KeySet, "", name_key_set(url))
        if keys is None or not keys.jwks:
            problem = keys.problem if keys else "not yet"
            message = f"{url}: {problem}; tokens that need its keys are refused"
            return Condition(KEYS_FETCHED, False, "KeysNotFetched", message)
        if keys.problem:
            message = f"{url}: {keys.problem}; the keys that were had last are used"
            return Condition(KEYS_FETCHED, True, "KeysAreOld", message)
    return Condition(KEYS_FETCHED, True, KEYS_FETCHED)
