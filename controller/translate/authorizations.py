"""Policies as istio.security.Authorization (facts of the control plane, section 6; of ztunnel, sections 3.6 and 3.7).

One rule of an AuthorizationPolicy is one Rule; in it the sources are one clause, the operations another, and each
condition one more. Nothing is dropped here: what cannot be expressed was taken out before
(`controller.registry.byte_policies`), and no Match is ever empty (an empty one would never match).
"""

from collections.abc import Sequence

from controller.kinds.policy_conditions import Condition
from controller.kinds.policy_values import IpBlock, parse_ip_block
from controller.kinds.security import (
    AuthorizationPolicy,
    Operation,
    PeerAuthentication,
    Rule,
    Source,
)
from controller.registry.names import MeshSettings
from controller.registry.policies import CONVERTED_PREFIX, STATIC_STRICT_NAME, PeerMode
from mesh.wire import authorization_pb2 as pb


def translate_policy(policy: AuthorizationPolicy, settings: MeshSettings) -> pb.Authorization:
    """The Authorization resource of an AuthorizationPolicy."""
    return pb.Authorization(
        name=policy.name,
        namespace=policy.namespace,
        scope=_find_scope(policy, settings),
        action=pb.DENY if policy.spec.action == "DENY" else pb.ALLOW,
        dry_run=policy.is_dry_run,
        rules=[_translate_rule(rule, policy.namespace) for rule in policy.spec.rules or ()],
    )


def build_static_strict(settings: MeshSettings) -> pb.Authorization:
    """The policy that workloads list to accept nothing without an identity, on any port."""
    return _build_deny(settings.root_namespace, STATIC_STRICT_NAME, [[_match_no_identity()]])


def translate_port_exceptions(policy: PeerAuthentication, base: PeerMode, ports: Sequence[int]) -> pb.Authorization:
    """The policy that enforces a PeerAuthentication whose `ports` differ from its `base` mode."""
    name = CONVERTED_PREFIX + policy.name
    if base is PeerMode.STRICT:
        return _build_deny(policy.namespace, name, [[_match_no_identity(), pb.Match(not_destination_ports=ports)]])
    rules = [[_match_no_identity(), pb.Match(destination_ports=[port])] for port in ports]
    return _build_deny(policy.namespace, name, rules)


def _find_scope(policy: AuthorizationPolicy, settings: MeshSettings) -> pb.Scope:
    if policy.match_labels:
        return pb.WORKLOAD_SELECTOR
    return pb.GLOBAL if policy.namespace == settings.root_namespace else pb.NAMESPACE


def _build_deny(namespace: str, name: str, rules: Sequence[Sequence[pb.Match]]) -> pb.Authorization:
    """A policy for workloads that list it: each rule's matches must all hold, so each is a clause of its own."""
    return pb.Authorization(
        name=name,
        namespace=namespace,
        scope=pb.WORKLOAD_SELECTOR,
        action=pb.DENY,
        rules=[pb.Rule(clauses=[pb.Clause(matches=[match]) for match in matches]) for matches in rules],
    )


def _match_no_identity() -> pb.Match:
    anybody = pb.StringMatch()
    anybody.presence.SetInParent()
    return pb.Match(not_principals=[anybody])


def _translate_rule(rule: Rule, namespace: str) -> pb.Rule:
    clauses = []
    if rule.to:
        clauses.append(pb.Clause(matches=[_translate_operation(each.operation) for each in rule.to]))
    if rule.from_:
        clauses.append(pb.Clause(matches=[_translate_source(each.source, namespace) for each in rule.from_]))
    clauses += [pb.Clause(matches=[_translate_condition(condition)]) for condition in rule.when or ()]
    return pb.Rule(clauses=clauses)


def _translate_operation(operation: Operation) -> pb.Match:
    return pb.Match(destination_ports=operation.ports, not_destination_ports=operation.not_ports)


def _translate_source(source: Source, namespace: str) -> pb.Match:
    return pb.Match(
        principals=_translate_patterns(source.principals),
        not_principals=_translate_patterns(source.not_principals),
        namespaces=_translate_patterns(source.namespaces),
        not_namespaces=_translate_patterns(source.not_namespaces),
        service_accounts=_translate_accounts(source.service_accounts, namespace),
        not_service_accounts=_translate_accounts(source.not_service_accounts, namespace),
        source_ips=_translate_blocks(source.ip_blocks),
        not_source_ips=_translate_blocks(source.not_ip_blocks),
    )


def _translate_condition(condition: Condition) -> pb.Match:
    values, others = condition.values or (), condition.not_values or ()
    match condition.key:
        case "source.principal":
            return pb.Match(principals=_translate_patterns(values), not_principals=_translate_patterns(others))
        case "source.namespace":
            return pb.Match(namespaces=_translate_patterns(values), not_namespaces=_translate_patterns(others))
        case "source.ip":
            return pb.Match(source_ips=_parse_blocks(values), not_source_ips=_parse_blocks(others))
        case "destination.ip":
            return pb.Match(destination_ips=_parse_blocks(values), not_destination_ips=_parse_blocks(others))
        case "destination.port":
            return pb.Match(destination_ports=map(int, values), not_destination_ports=map(int, others))
        case key:  # the door lets no other key in
            raise AssertionError(key)


def _translate_patterns(patterns: Sequence[str] | None) -> list[pb.StringMatch]:
    return [_translate_pattern(pattern) for pattern in patterns or ()]


def _translate_pattern(pattern: str) -> pb.StringMatch:
    if pattern == "*":
        anything = pb.StringMatch()
        anything.presence.SetInParent()
        return anything
    if pattern.startswith("*"):
        return pb.StringMatch(suffix=pattern[1:])
    if pattern.endswith("*"):
        return pb.StringMatch(prefix=pattern[:-1])
    return pb.StringMatch(exact=pattern)


def _translate_accounts(accounts: Sequence[str] | None, namespace: str) -> list[pb.ServiceAccountMatch]:
    """`sa` is one of the policy's own namespace, `ns/sa` one of another."""
    parts = [account.rpartition("/") for account in accounts or ()]
    return [pb.ServiceAccountMatch(namespace=place or namespace, serviceAccount=name) for place, _, name in parts]


def _parse_blocks(texts: Sequence[str]) -> list[pb.Address]:
    return _translate_blocks([parse_ip_block(text) for text in texts])


def _translate_blocks(blocks: Sequence[IpBlock] | None) -> list[pb.Address]:
    return [pb.Address(address=block.network_address.packed, length=block.prefixlen) for block in blocks or ()]
