"""Policies that are attached to nothing, to what does not enforce them, or that ask what nobody there can know."""

from collections.abc import Iterator

from controller.analysis.findings import Finding, Path
from controller.analysis.given import Given
from controller.kinds.policy_conditions import Attribute
from controller.kinds.policy_targets import SERVICE
from controller.kinds.request_authentication import RequestAuthentication
from controller.kinds.security import AuthorizationPolicy, Rule
from controller.registry.request_policies import (
    BindingReason,
    Policy,
    find_bindings,
    find_gateways,
    find_policies,
)
from controller.registry.waypoints import find_listener

_IDENTITY_FIELDS = ("principals", "namespaces", "service_accounts", "trust_domains")
_TOKEN_FIELDS = ("request_principals", "not_request_principals")
_IDENTITY_ATTRIBUTES = frozenset(
    {
        Attribute.SOURCE_NAMESPACE,
        Attribute.SOURCE_PRINCIPAL,
        Attribute.SOURCE_SERVICE_ACCOUNT,
        Attribute.SOURCE_TRUST_DOMAIN,
    }
)
_TOKEN_ATTRIBUTES = frozenset(
    {
        Attribute.REQUEST_AUDIENCES,
        Attribute.REQUEST_CLAIM,
        Attribute.REQUEST_PRESENTER,
        Attribute.REQUEST_PRINCIPAL,
    }
)
_CODES = {
    BindingReason.INVALID: "policy-target-missing",
    BindingReason.TARGET_NOT_FOUND: "policy-target-missing",
    BindingReason.ANCESTOR_NOT_BOUND: "policy-target-not-bound",
}


def check_targets(given: Given) -> Iterator[Finding]:
    """Targets that are not there, or that enforce nothing."""
    for authorization in given.snapshot.objects(AuthorizationPolicy):
        yield from _check_bindings(given, authorization)
    for authentication in given.snapshot.objects(RequestAuthentication):
        yield from _check_bindings(given, authentication)


def _check_bindings(given: Given, policy: Policy) -> Iterator[Finding]:
    for index, binding in enumerate(find_bindings(given.snapshot, given.settings, policy)):
        if binding.reason in _CODES:
            path: Path = ("spec", "targetRef") if policy.spec.target_ref else ("spec", "targetRefs", index)
            message = f"{binding.message}: the policy is not enforced there"
            yield Finding(_CODES[binding.reason], policy.key, path, message)


def check_what_gateways_know(given: Given) -> Iterator[Finding]:
    """Rules about identities, which gateways do not see, and about tokens where nobody says whose are believed."""
    for policy in given.snapshot.objects(AuthorizationPolicy):
        for index, rule in enumerate(policy.spec.rules or ()):
            yield from _check_identities(given, policy, rule, index)
            yield from _check_tokens(given, policy, rule, index)


def _check_identities(given: Given, policy: AuthorizationPolicy, rule: Rule, index: int) -> Iterator[Finding]:
    gateway = next(find_gateways(given.snapshot, given.settings, policy), None)
    path = _find_use(rule, index, _IDENTITY_FIELDS, _IDENTITY_ATTRIBUTES)
    if gateway is not None and find_listener(gateway) is None and path is not None:
        message = f"{gateway.key} takes connections without a certificate of the mesh, so this never matches there"
        yield Finding("policy-identity-unseen", policy.key, path, message)


def _check_tokens(given: Given, policy: AuthorizationPolicy, rule: Rule, index: int) -> Iterator[Finding]:
    path = _find_use(rule, index, _TOKEN_FIELDS, _TOKEN_ATTRIBUTES)
    if path is None or any(target.kind == SERVICE for target in policy.targets):
        return
    for gateway in find_gateways(given.snapshot, given.settings, policy):
        if not find_policies(given.snapshot, given.settings, gateway).authentications:
            message = f"no RequestAuthentication is attached to {gateway.key}, so no token is read there"
            yield Finding("policy-tokens-unread", policy.key, path, message)
            return


def _find_use(rule: Rule, index: int, fields: tuple[str, ...], attributes: frozenset[Attribute]) -> Path | None:
    """The first place in a rule that asks about one of these."""
    for number, each in enumerate(rule.from_ or ()):
        if any(getattr(each.source, field) for field in fields):
            return ("spec", "rules", index, "from", number, "source")
    for number, condition in enumerate(rule.when or ()):
        if condition.parsed_key.attribute in attributes:
            return ("spec", "rules", index, "when", number, "key")
    return None
