"""What a policy of requests means where nobody sees requests: the port speaks something else, or a ztunnel enforces it.

A rule that asks about requests allows no such connection. One that denies does so by what is left of it, and all where
nothing is: so a policy is never wider than it was written. (Istio's rule for Envoys; its ztunnels do not enforce a DENY
of which nothing is left.) What somebody else is to decide by requests is denied, for nobody can be asked.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from controller.kinds.policy_conditions import L4_ATTRIBUTES, TOKEN_ATTRIBUTES, Attribute
from controller.kinds.security import AuthorizationPolicy, Operation, Rule, RuleFrom, RuleTo, Source

if TYPE_CHECKING:  # which asks what selects proxies, as policies of ztunnels are selected
    from controller.registry.request_policies import RequestPolicies

_Part = TypeVar("_Part", Source, Operation)


@dataclass(frozen=True, slots=True)
class _Unseen:
    """What somebody cannot judge."""

    source_fields: Sequence[str]
    operation_fields: Sequence[str]
    attributes: Collection[Attribute]


_OPERATION_FIELDS = ("hosts", "not_hosts", "methods", "not_methods", "paths", "not_paths")
_BY_ENVOY = _Unseen(
    ("request_principals", "not_request_principals"),
    _OPERATION_FIELDS,
    (Attribute.REQUEST_HEADER, *TOKEN_ATTRIBUTES),
)
_BY_ZTUNNEL = _Unseen(
    (*_BY_ENVOY.source_fields, "remote_ip_blocks", "not_remote_ip_blocks", "trust_domains", "not_trust_domains"),
    _OPERATION_FIELDS,
    [each for each in Attribute if each not in L4_ATTRIBUTES],
)


def judge_bytes(policies: "RequestPolicies") -> "RequestPolicies":
    """The same policies, for connections to an Envoy. Tokens are a thing of requests."""
    judged = tuple(_judge(each, _BY_ENVOY) for each in policies.authorizations)
    return replace(policies, authorizations=judged, authentications=())


def judge_for_ztunnel(policy: AuthorizationPolicy) -> AuthorizationPolicy:
    """The same policy, as a ztunnel can enforce it."""
    return _judge(policy, _BY_ZTUNNEL)


def is_for_ztunnel(policy: AuthorizationPolicy) -> bool:
    """Whether a ztunnel enforces all that is written."""
    return policy.spec.action in ("ALLOW", "DENY") and all(
        _is_seen(rule, _BY_ZTUNNEL) for rule in policy.spec.rules or ()
    )


def _judge(policy: AuthorizationPolicy, unseen: _Unseen) -> AuthorizationPolicy:
    action = "DENY" if policy.spec.action == "CUSTOM" else policy.spec.action
    rules = [kept for rule in policy.spec.rules or () if (kept := _keep(rule, action, unseen)) is not None]
    return policy.model_copy(update={"spec": policy.spec.model_copy(update={"rules": rules, "action": action})})


def _keep(rule: Rule, action: str, unseen: _Unseen) -> Rule | None:
    if _is_seen(rule, unseen):
        return rule
    sources = [_strip(each.source, unseen.source_fields) for each in rule.from_ or ()]
    operations = [_strip(each.operation, unseen.operation_fields) for each in rule.to or ()]
    kept = Rule.model_construct(
        from_=None if None in sources else [RuleFrom(source=each) for each in sources if each],
        to=None if None in operations else [RuleTo(operation=each) for each in operations if each],
        when=[each for each in rule.when or () if each.parsed_key.attribute not in unseen.attributes],
    )
    return None if action == "ALLOW" else kept


def _is_seen(rule: Rule, unseen: _Unseen) -> bool:
    return not (
        any(_says_any(each.source, unseen.source_fields) for each in rule.from_ or ())
        or any(_says_any(each.operation, unseen.operation_fields) for each in rule.to or ())
        or any(each.parsed_key.attribute in unseen.attributes for each in rule.when or ())
    )


def _says_any(part: Source | Operation, fields: Sequence[str]) -> bool:
    return any(getattr(part, field) for field in fields)


def _strip(part: _Part, fields: Sequence[str]) -> _Part | None:
    """Without these fields; None where nothing is left, which is met by everybody."""
    left = part.model_copy(update=dict.fromkeys(fields))
    return left if any(getattr(left, field) for field in type(part).model_fields) else None
