"""Policies that are attached to nothing, to what does not enforce them, or that ask what nobody there can know."""

from collections.abc import Iterator

from controller.analysis.findings import Finding, Path
from controller.analysis.given import Given
from controller.kinds.policy_conditions import TOKEN_ATTRIBUTES, Attribute
from controller.kinds.policy_targets import SERVICE
from controller.kinds.request_authentication import RequestAuthentication
from controller.kinds.security import AuthorizationPolicy, Rule
from controller.registry.authorizers import explain_missing
from controller.registry.gateway_proxies import describe_gateway
from controller.registry.request_policies import (
    BindingReason,
    Policy,
    find_bindings,
    find_gateway_policies,
    find_gateways,
    find_selected,
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
_TOKEN_ATTRIBUTES = frozenset(TOKEN_ATTRIBUTES)
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
        if not authentication.targets and not any(find_selected(given.snapshot, given.settings, authentication)):
            message = "it selects no gateway, and pods read no tokens: nobody enforces it"
            yield Finding("policy-target-not-bound", authentication.key, ("spec",), message)


def _check_bindings(given: Given, policy: Policy) -> Iterator[Finding]:
    for index, binding in enumerate(find_bindings(given.snapshot, given.settings, policy)):
        if binding.reason in _CODES:
            path: Path = ("spec", "targetRef") if policy.spec.target_ref else ("spec", "targetRefs", index)
            message = f"{binding.message}: the policy is not enforced there"
            yield Finding(_CODES[binding.reason], policy.key, path, message)


def check_providers(given: Given) -> Iterator[Finding]:
    """Policies that leave it to nobody to decide."""
    for policy in given.snapshot.objects(AuthorizationPolicy):
        name = policy.spec.provider.name if policy.spec.provider else ""
        if name and (missing := explain_missing(given.snapshot, given.settings, name)):
            yield Finding("policy-provider-missing", policy.key, ("spec", "provider", "name"), missing)


def check_what_gateways_know(given: Given) -> Iterator[Finding]:
    """Rules about identities, which gateways do not see, and about tokens where nobody says whose are believed."""
    for policy in given.snapshot.objects(AuthorizationPolicy):
        for index, rule in enumerate(policy.spec.rules or ()):
            yield from _check_identities(given, policy, rule, index)
            yield from _check_tokens(given, policy, rule, index)


def _check_identities(given: Given, policy: AuthorizationPolicy, rule: Rule, index: int) -> Iterator[Finding]:
    path = _find_use(rule, index, _IDENTITY_FIELDS, _IDENTITY_ATTRIBUTES)
    place = next(_name_gateways(given, policy), "") if path else ""
    if path and place:
        message = f"{place} takes connections without a certificate of the mesh, so this never matches there"
        yield Finding("policy-identity-unseen", policy.key, path, message)


def _name_gateways(given: Given, policy: AuthorizationPolicy) -> Iterator[str]:
    """Those that take connections from outside, and enforce a policy."""
    for gateway in find_gateways(given.snapshot, given.settings, policy):
        if find_listener(gateway) is None:
            yield str(gateway.key)
    for proxies in find_selected(given.snapshot, given.settings, policy):
        yield f"the gateway {proxies.reader.partition(':')[2]}"


def _check_tokens(given: Given, policy: AuthorizationPolicy, rule: Rule, index: int) -> Iterator[Finding]:
    path = _find_use(rule, index, _TOKEN_FIELDS, _TOKEN_ATTRIBUTES)
    if path is None or any(target.kind == SERVICE for target in policy.targets):
        return
    gateways = find_gateways(given.snapshot, given.settings, policy)
    attached = ((str(each.key), describe_gateway(each), each) for each in gateways)
    selected = find_selected(given.snapshot, given.settings, policy)
    others = ((f"the gateway {each.reader.partition(':')[2]}", each, None) for each in selected)
    for place, proxies, gateway in (*attached, *others):
        if not find_gateway_policies(given.snapshot, given.settings, proxies, gateway).authentications:
            message = f"no RequestAuthentication is for {place}, so no token is read there"
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
