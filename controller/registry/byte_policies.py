"""What a policy of requests means for a connection whose requests nobody sees: the port speaks something else.

A rule that asks about requests allows no such connection. One that denies does so by what is left of it, and all where
nothing is: so a policy is never wider than it was written (Istio's rule).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from controller.kinds.policy_conditions import Attribute
from controller.kinds.security import AuthorizationPolicy, Operation, Rule, RuleFrom, RuleTo, Source
from controller.registry.request_policies import RequestPolicies

_OF_REQUESTS = (
    Attribute.REQUEST_HEADER,
    Attribute.REQUEST_PRINCIPAL,
    Attribute.REQUEST_AUDIENCES,
    Attribute.REQUEST_PRESENTER,
    Attribute.REQUEST_CLAIM,
)
_SOURCE_FIELDS = ("request_principals", "not_request_principals")
_OPERATION_FIELDS = ("hosts", "not_hosts", "methods", "not_methods", "paths", "not_paths")

_Part = TypeVar("_Part", Source, Operation)


def judge_bytes(policies: RequestPolicies) -> RequestPolicies:
    """The same policies, for connections. Tokens are a thing of requests."""
    return replace(policies, authorizations=tuple(map(_judge, policies.authorizations)), authentications=())


def _judge(policy: AuthorizationPolicy) -> AuthorizationPolicy:
    rules = [kept for rule in policy.spec.rules or () if (kept := _keep(rule, policy.spec.action)) is not None]
    return policy.model_copy(update={"spec": policy.spec.model_copy(update={"rules": rules})})


def _keep(rule: Rule, action: str) -> Rule | None:
    sources = [_strip(each.source, _SOURCE_FIELDS) for each in rule.from_ or ()]
    operations = [_strip(each.operation, _OPERATION_FIELDS) for each in rule.to or ()]
    conditions = [each for each in rule.when or () if each.parsed_key.attribute not in _OF_REQUESTS]
    kept = Rule.model_construct(
        from_=None if None in sources else [RuleFrom(source=each) for each in sources if each],
        to=None if None in operations else [RuleTo(operation=each) for each in operations if each],
        when=conditions,
    )
    is_whole = sources == [each.source for each in rule.from_ or ()]
    is_whole &= operations == [each.operation for each in rule.to or ()]
    is_whole &= len(conditions) == len(rule.when or ())
    return kept if is_whole or action == "DENY" else None


def _strip(part: _Part, fields: Sequence[str]) -> _Part | None:
    """Without these fields; None where nothing is left, which is met by everybody."""
    left = part.model_copy(update=dict.fromkeys(fields))
    return left if any(getattr(left, field) for field in type(part).model_fields) else None
