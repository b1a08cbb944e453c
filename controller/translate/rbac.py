"""AuthorizationPolicies to Envoy's RBAC rules (facts of L7, section 4).

Of a rule, what is asked for (operations, destinations) becomes permissions, and who asks becomes principals: a rule
matches when one of its permissions and one of its principals does. What a client claims by a token is in the metadata
that `controller.translate.jwt` has the JWT filter write.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import re2
from envoy.config.core.v3 import address_pb2
from envoy.config.rbac.v3 import rbac_pb2 as pb
from envoy.config.route.v3 import route_components_pb2
from envoy.type.matcher.v3 import metadata_pb2, regex_pb2, string_pb2, value_pb2

from controller.kinds.policy_conditions import Attribute, Condition
from controller.kinds.policy_values import ANY_SEGMENT, ANY_SEGMENTS, IpBlock, is_template, parse_ip_block
from controller.kinds.security import AuthorizationPolicy, Operation, Rule, Source

JWT_FILTER = "envoy.filters.http.jwt_authn"
RBAC_FILTER = "envoy.filters.http.rbac"
PAYLOAD = "payload"
"""The filter's metadata has a token's claims under this name, as Istio's has."""

_SPIFFE = "spiffe://"
_SEGMENT = "[^/]+"

Node = TypeVar("Node", pb.Permission, pb.Principal)


@dataclass(frozen=True, slots=True)
class _Algebra(Generic[Node]):
    """And, or and not of one of the two message types."""

    any_of: Callable[[list[Node]], Node]
    all_of: Callable[[list[Node]], Node]
    negate: Callable[[Node], Node]

    def join(self, choices: list[Node]) -> Node:
        return choices[0] if len(choices) == 1 else self.any_of(choices)

    def meet(self, parts: list[Node]) -> Node:
        return parts[0] if len(parts) == 1 else self.all_of(parts)

    def add(self, choices: list[Node], conditions: list[Node]) -> list[Node]:
        """Choices that are one of these, while the conditions hold."""
        if not conditions:
            return choices
        return [self.meet([*([self.join(choices)] if choices else []), *conditions])]

    def select(self, values: Sequence[Node], others: Sequence[Node]) -> Iterator[Node]:
        """One of `values`, and none of `others`; of either nothing is said where there are none."""
        if values:
            yield self.join(list(values))
        if others:
            yield self.negate(self.join(list(others)))


_PERMISSIONS: _Algebra[pb.Permission] = _Algebra(
    any_of=lambda rules: pb.Permission(or_rules={"rules": rules}),
    all_of=lambda rules: pb.Permission(and_rules={"rules": rules}),
    negate=lambda rule: pb.Permission(not_rule=rule),
)
_PRINCIPALS: _Algebra[pb.Principal] = _Algebra(
    any_of=lambda ids: pb.Principal(or_ids={"ids": ids}),
    all_of=lambda ids: pb.Principal(and_ids={"ids": ids}),
    negate=lambda each: pb.Principal(not_id=each),
)


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """Where a client's SPIFFE ID stands: in a filter state of this name, or else in its certificate."""

    filter_state: str = ""


def translate_policies(
    policies: Sequence[AuthorizationPolicy], action: str, identity: ClientIdentity
) -> pb.RBAC | None:
    """The rules of the policies with one action, ALLOW, DENY or AUDIT; None where there are none of it.

    ALLOW policies that have no rules between them allow nothing.
    """
    chosen = [policy for policy in policies if policy.spec.action == action]
    return translate_rules(chosen, action, identity) if chosen else None


def translate_rules(policies: Sequence[AuthorizationPolicy], action: str, identity: ClientIdentity) -> pb.RBAC:
    """The rules of all of these policies, with one action whatever theirs is."""
    rules: dict[str, pb.Policy] = {}
    for policy in policies:
        translation = _Translation(policy.namespace, identity)
        for index, rule in enumerate(policy.spec.rules or ()):
            # Istio's names, which an access log shows of a request that was refused.
            name = f"ns[{policy.namespace}]-policy[{policy.name}]-rule[{index}]"
            rules[name] = translation.translate_rule(rule)
    return pb.RBAC(action=_ACTIONS[action], policies=rules)


_ACTIONS = {"ALLOW": pb.RBAC.ALLOW, "DENY": pb.RBAC.DENY, "AUDIT": pb.RBAC.LOG}


@dataclass(frozen=True, slots=True)
class _Translation:
    """Of one policy's rules."""

    namespace: str
    identity: ClientIdentity

    def translate_rule(self, rule: Rule) -> pb.Policy:
        asked, asking = self._split_conditions(rule.when or ())
        operations = [_PERMISSIONS.meet(list(_permit(each.operation))) for each in rule.to or ()]
        sources = [_PRINCIPALS.meet(list(self._identify(each.source))) for each in rule.from_ or ()]
        return pb.Policy(
            permissions=_PERMISSIONS.add(operations, asked) or [pb.Permission(any=True)],
            principals=_PRINCIPALS.add(sources, asking) or [pb.Principal(any=True)],
        )

    def _split_conditions(self, conditions: Sequence[Condition]) -> tuple[list[pb.Permission], list[pb.Principal]]:
        asked: list[pb.Permission] = []
        asking: list[pb.Principal] = []
        for condition in conditions:
            values, others = condition.values or (), condition.not_values or ()
            permit = _PERMITS.get(condition.parsed_key.attribute)
            if permit is not None:
                asked += _PERMISSIONS.select(list(map(permit, values)), list(map(permit, others)))
            else:
                asking += _PRINCIPALS.select(
                    [self._condition(condition, each) for each in values],
                    [self._condition(condition, each) for each in others],
                )
        return asked, asking

    def _identify(self, source: Source) -> Iterator[pb.Principal]:
        fields: list[tuple[Callable[[str], pb.Principal], Sequence[str] | None, Sequence[str] | None]] = [
            (self._principal, source.principals, source.not_principals),
            (self._namespace, source.namespaces, source.not_namespaces),
            (self._account, source.service_accounts, source.not_service_accounts),
            (self._trust_domain, source.trust_domains, source.not_trust_domains),
            (_request_principal, source.request_principals, source.not_request_principals),
        ]
        for build, values, others in fields:
            yield from _PRINCIPALS.select(list(map(build, values or ())), list(map(build, others or ())))
        blocks: list[tuple[Callable[[IpBlock], pb.Principal], Sequence[IpBlock] | None, Sequence[IpBlock] | None]] = [
            (_peer_address, source.ip_blocks, source.not_ip_blocks),
            (_remote_address, source.remote_ip_blocks, source.not_remote_ip_blocks),
        ]
        for build_block, given, excluded in blocks:
            yield from _PRINCIPALS.select(list(map(build_block, given or ())), list(map(build_block, excluded or ())))

    def _condition(self, condition: Condition, value: str) -> pb.Principal:
        key = condition.parsed_key
        match key.attribute:
            case Attribute.SOURCE_IP:
                return _peer_address(parse_ip_block(value))
            case Attribute.REMOTE_IP:
                return _remote_address(parse_ip_block(value))
            case Attribute.SOURCE_PRINCIPAL:
                return self._principal(value)
            case Attribute.SOURCE_NAMESPACE:
                return self._namespace(value)
            case Attribute.SOURCE_SERVICE_ACCOUNT:
                return self._account(value)
            case Attribute.SOURCE_TRUST_DOMAIN:
                return self._trust_domain(value)
            case Attribute.REQUEST_HEADER:
                header = route_components_pb2.HeaderMatcher(name=key.path[0], string_match=match_text(value))
                return pb.Principal(header=header)
            case Attribute.REQUEST_PRINCIPAL:
                return _request_principal(value)
            case Attribute.REQUEST_AUDIENCES:
                return _claim(("aud",), match_text(value))
            case Attribute.REQUEST_PRESENTER:
                return _claim(("azp",), match_text(value))
            case Attribute.REQUEST_CLAIM:
                return _claim(key.path, match_text(value))
            case attribute:  # the others are permissions
                raise AssertionError(attribute)

    def _known_as(self, identity: string_pb2.StringMatcher) -> pb.Principal:
        if self.identity.filter_state:
            return pb.Principal(filter_state={"key": self.identity.filter_state, "string_match": identity})
        return pb.Principal(authenticated={"principal_name": identity})

    def _principal(self, pattern: str) -> pb.Principal:
        is_open = pattern.startswith("*")
        return self._known_as(match_text(pattern if is_open else _SPIFFE + pattern))

    def _namespace(self, pattern: str) -> pb.Principal:
        return self._known_as(_match_regex(f"{_SPIFFE}{_SEGMENT}/ns/{_segment(pattern)}/sa/{_SEGMENT}"))

    def _account(self, account: str) -> pb.Principal:
        namespace, _, name = account.rpartition("/")
        place = re2.escape(namespace or self.namespace)
        return self._known_as(_match_regex(f"{_SPIFFE}{_SEGMENT}/ns/{place}/sa/{re2.escape(name)}"))

    def _trust_domain(self, pattern: str) -> pb.Principal:
        return self._known_as(_match_regex(f"{_SPIFFE}{_segment(pattern)}/.+"))


def _permit(operation: Operation) -> Iterator[pb.Permission]:
    fields: list[tuple[Callable[[str], pb.Permission], Sequence[str] | None, Sequence[str] | None]] = [
        (_host, operation.hosts, operation.not_hosts),
        (_method, operation.methods, operation.not_methods),
        (_path, operation.paths, operation.not_paths),
    ]
    for build, values, others in fields:
        yield from _PERMISSIONS.select(list(map(build, values or ())), list(map(build, others or ())))
    ports, other_ports = map(_port, operation.ports or ()), map(_port, operation.not_ports or ())
    yield from _PERMISSIONS.select(list(ports), list(other_ports))


def _host(pattern: str) -> pb.Permission:
    """Whatever the case, as Istio; and whatever the port and with or without the root's dot, unless one is named.

    Routes take no notice of a port either: a DENY that did could be avoided by writing one.
    """
    rest = "" if _names_port(pattern) else r"\.?(:[0-9]*)?"
    if pattern == "*":
        regex = ".+"
    elif pattern.endswith("*"):
        regex = f"(?i){re2.escape(pattern[:-1])}.*"
    elif pattern.startswith("*"):
        regex = f"(?i).*{re2.escape(pattern[1:])}{rest}"
    else:
        regex = f"(?i){re2.escape(pattern)}{rest}"
    return pb.Permission(header={"name": ":authority", "string_match": _match_regex(regex)})


def _names_port(host: str) -> bool:
    return host.rpartition("]")[2].count(":") == 1


def _method(pattern: str) -> pb.Permission:
    return pb.Permission(header={"name": ":method", "string_match": match_text(pattern)})


def _path(pattern: str) -> pb.Permission:
    """The path without query and fragment, as routes see it."""
    if not is_template(pattern):
        return pb.Permission(url_path={"path": match_text(pattern)})
    # Envoy's own templates take no characters that a path should have encoded: a DENY could be avoided by one.
    forms = {ANY_SEGMENT: _SEGMENT, ANY_SEGMENTS: ".*"}
    regex = "/".join(forms.get(segment) or re2.escape(segment) for segment in pattern.split("/"))
    return pb.Permission(url_path={"path": _match_regex(regex)})


def _port(port: int) -> pb.Permission:
    return pb.Permission(destination_port=port)


_PERMITS: dict[Attribute, Callable[[str], pb.Permission]] = {
    Attribute.DESTINATION_IP: lambda value: pb.Permission(destination_ip=_translate_block(parse_ip_block(value))),
    Attribute.DESTINATION_PORT: lambda value: _port(int(value)),
    Attribute.SERVER_NAME: lambda value: pb.Permission(requested_server_name=match_text(value)),
}


def _peer_address(block: IpBlock) -> pb.Principal:
    return pb.Principal(direct_remote_ip=_translate_block(block))


def _remote_address(block: IpBlock) -> pb.Principal:
    return pb.Principal(remote_ip=_translate_block(block))


def _translate_block(block: IpBlock) -> address_pb2.CidrRange:
    return address_pb2.CidrRange(address_prefix=str(block.network_address), prefix_len={"value": block.prefixlen})


def _request_principal(pattern: str) -> pb.Principal:
    """ISSUER/SUBJECT. Issuers have slashes themselves, so each one in the pattern may be the one between the two."""
    if pattern == "*":
        return _principal_of(match_text("*"), match_text("*"))
    is_suffix, is_prefix = pattern.startswith("*"), pattern.endswith("*")
    text = pattern.strip("*") if is_suffix or is_prefix else pattern
    choices = []
    for index in (index for index, each in enumerate(text) if each == "/"):
        issuer, subject = text[:index], text[index + 1 :]
        issuers = match_text(f"*{issuer}") if is_suffix else string_pb2.StringMatcher(exact=issuer)
        subjects = match_text(f"{subject}*") if is_prefix else string_pb2.StringMatcher(exact=subject)
        choices.append(_principal_of(issuers, subjects))
    if is_suffix:
        choices.append(_principal_of(match_text("*"), match_text(pattern)))
    if is_prefix:
        choices.append(_principal_of(match_text(pattern), match_text("*")))
    return _PRINCIPALS.join(choices)


def _principal_of(issuer: string_pb2.StringMatcher, subject: string_pb2.StringMatcher) -> pb.Principal:
    texts = (("iss", issuer), ("sub", subject))
    return _PRINCIPALS.all_of([_claim_is((name,), value_pb2.ValueMatcher(string_match=text)) for name, text in texts])


def _claim(path: Sequence[str], text: string_pb2.StringMatcher) -> pb.Principal:
    """A claim that is a text, or a list with one."""
    either = [
        value_pb2.ValueMatcher(string_match=text),
        value_pb2.ValueMatcher(list_match={"one_of": {"string_match": text}}),
    ]
    return _claim_is(path, value_pb2.ValueMatcher(or_match={"value_matchers": either}))


def _claim_is(path: Sequence[str], value: value_pb2.ValueMatcher) -> pb.Principal:
    keys = [{"key": each} for each in (PAYLOAD, *path)]
    matcher = metadata_pb2.MetadataMatcher(filter=JWT_FILTER, path=keys, value=value)
    return pb.Principal(sourced_metadata={"metadata_matcher": matcher})


def match_text(pattern: str) -> string_pb2.StringMatcher:
    """Istio's patterns: any text that is not empty, one that begins or ends so, or exactly this one."""
    if pattern == "*":
        return _match_regex("(?s).+")
    if pattern.startswith("*"):
        return string_pb2.StringMatcher(suffix=pattern[1:])
    if pattern.endswith("*"):
        return string_pb2.StringMatcher(prefix=pattern[:-1])
    return string_pb2.StringMatcher(exact=pattern)


def _segment(pattern: str) -> str:
    """A pattern inside of an identity, as a regular expression."""
    if pattern == "*":
        return _SEGMENT
    if pattern.startswith("*"):
        return f"[^/]*{re2.escape(pattern[1:])}"
    if pattern.endswith("*"):
        return f"{re2.escape(pattern[:-1])}[^/]*"
    return str(re2.escape(pattern))


def _match_regex(regex: str) -> string_pb2.StringMatcher:
    return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=regex))
