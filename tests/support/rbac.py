"""What Envoy's RBAC rules say of a request, as its API documents them; and what policies say, as Istio does.

Two readings of the same policies that share nothing but the patterns' form: tests hold one against the other.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from envoy.config.core.v3.address_pb2 import CidrRange
from envoy.config.rbac.v3 import rbac_pb2 as pb
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as filter_pb
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.type.matcher.v3 import string_pb2, value_pb2

from controller.kinds.policy_conditions import Attribute, Condition, parse_condition_key
from controller.kinds.security import AuthorizationPolicy, Operation, Rule, Source

Claim = str | Sequence[str] | Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Request:
    """A request, and what is known of its connection.

    `identity` is a SPIFFE ID; without a token there are no claims.
    """

    method: str = "GET"
    host: str = "www.test"
    path: str = "/"
    headers: Mapping[str, str] = field(default_factory=dict)
    identity: str = ""
    peer: str = "198.51.100.1"
    remote: str = "198.51.100.1"
    address: str = "192.0.2.1"
    port: int = 80
    server_name: str = ""
    claims: Mapping[str, Claim] = field(default_factory=dict)


# Envoy's reading ----------------------------------------------------------------------------------------------------


def passes(filters: Sequence[hcm_pb2.HttpFilter], request: Request) -> bool:
    """Whether a request passes all RBAC filters among these."""
    for each in filters:
        if each.name == "envoy.filters.http.rbac":
            rules = filter_pb.RBAC.FromString(each.typed_config.value)
            if rules.HasField("rules") and not _is_let_through(rules.rules, request):
                return False
    return True


def _is_let_through(rules: pb.RBAC, request: Request) -> bool:
    matched = any(
        any(_permits(each, request) for each in policy.permissions)
        and any(_is_one(each, request) for each in policy.principals)
        for policy in rules.policies.values()
    )
    return matched if rules.action == pb.RBAC.ALLOW else not matched


def _permits(rule: pb.Permission, request: Request) -> bool:
    match rule.WhichOneof("rule"):
        case "any":
            return True
        case "and_rules":
            return all(_permits(each, request) for each in rule.and_rules.rules)
        case "or_rules":
            return any(_permits(each, request) for each in rule.or_rules.rules)
        case "not_rule":
            return not _permits(rule.not_rule, request)
        case "header":
            return _has_header(rule.header.name, rule.header.string_match, request)
        case "url_path":
            return _fits(rule.url_path.path, request.path.partition("?")[0])
        case "destination_port":
            return bool(rule.destination_port == request.port)
        case "destination_ip":
            return _is_within(rule.destination_ip, request.address)
        case "requested_server_name":
            return _fits(rule.requested_server_name, request.server_name)
        case other:
            raise AssertionError(other)


def _is_one(rule: pb.Principal, request: Request) -> bool:
    match rule.WhichOneof("identifier"):
        case "any":
            return True
        case "and_ids":
            return all(_is_one(each, request) for each in rule.and_ids.ids)
        case "or_ids":
            return any(_is_one(each, request) for each in rule.or_ids.ids)
        case "not_id":
            return not _is_one(rule.not_id, request)
        case "authenticated":
            return bool(request.identity) and _fits(rule.authenticated.principal_name, request.identity)
        case "filter_state":
            return bool(request.identity) and _fits(rule.filter_state.string_match, request.identity)
        case "direct_remote_ip":
            return _is_within(rule.direct_remote_ip, request.peer)
        case "remote_ip":
            return _is_within(rule.remote_ip, request.remote)
        case "header":
            return _has_header(rule.header.name, rule.header.string_match, request)
        case "sourced_metadata":
            matcher = rule.sourced_metadata.metadata_matcher
            return _claims(matcher.value, [each.key for each in matcher.path], request)
        case other:
            raise AssertionError(other)


def _has_header(name: str, text: string_pb2.StringMatcher, request: Request) -> bool:
    found = {":authority": request.host, ":method": request.method, **request.headers}.get(name)
    return found is not None and _fits(text, found)


def _claims(value: value_pb2.ValueMatcher, path: list[str], request: Request) -> bool:
    found: object = {"payload": request.claims} if request.claims else {}
    for step in path:
        if not isinstance(found, Mapping) or step not in found:
            return False
        found = found[step]
    return _is_value(value, found)


def _is_value(value: value_pb2.ValueMatcher, found: object) -> bool:
    match value.WhichOneof("match_pattern"):
        case "string_match":
            return isinstance(found, str) and _fits(value.string_match, found)
        case "list_match":
            return isinstance(found, list) and any(_is_value(value.list_match.one_of, each) for each in found)
        case "or_match":
            return any(_is_value(each, found) for each in value.or_match.value_matchers)
        case other:
            raise AssertionError(other)


def _fits(text: string_pb2.StringMatcher, found: str) -> bool:
    match text.WhichOneof("match_pattern"):
        case "exact":
            return bool(found == text.exact)
        case "prefix":
            return found.startswith(text.prefix)
        case "suffix":
            return found.endswith(text.suffix)
        case "safe_regex":
            return re.fullmatch(text.safe_regex.regex, found) is not None
        case other:
            raise AssertionError(other)


def _is_within(block: CidrRange, address: str) -> bool:
    return ip_address(address) in ip_network(f"{block.address_prefix}/{block.prefix_len.value}")


# Istio's reading ----------------------------------------------------------------------------------------------------


def is_allowed(policies: Sequence[AuthorizationPolicy], request: Request) -> bool:
    """What policies of one place say of a request: a DENY that matches, then whether an ALLOW must and does."""
    given = [each for each in policies if not each.is_dry_run]
    matching = {each.name for each in given if any(_applies(rule, each, request) for rule in each.spec.rules or ())}
    if any(each.spec.action == "DENY" and each.name in matching for each in given):
        return False
    allows = [each.name for each in given if each.spec.action == "ALLOW"]
    return not allows or bool(matching.intersection(allows))


def _applies(rule: Rule, policy: AuthorizationPolicy, request: Request) -> bool:
    return (
        (not rule.from_ or any(_comes_from(each.source, policy.namespace, request) for each in rule.from_))
        and (not rule.to or any(_asks_for(each.operation, request) for each in rule.to))
        and all(_holds(each, policy.namespace, request) for each in rule.when or ())
    )


def _one_of(values: Sequence[object] | None, others: Sequence[object] | None, is_it: "Judge") -> bool:
    return (not values or any(map(is_it, values))) and not any(map(is_it, others or ()))


class Judge:
    """Whether a value of a policy is what a request has, by the value's text."""

    def __init__(self, kind: str, namespace: str, request: Request) -> None:
        self._kind = kind
        self._namespace = namespace
        self._request = request

    def __call__(self, value: object) -> bool:
        text, request = str(value), self._request
        domain, _, path = request.identity.removeprefix("spiffe://").partition("/")
        place, _, account = path.removeprefix("ns/").partition("/sa/") if path.startswith("ns/") else ("", "", "")
        match self._kind:
            case "principal":
                return bool(request.identity) and _like(text, request.identity.removeprefix("spiffe://"))
            case "namespace":
                return _like(text, place)
            case "account":
                return (place, account) == tuple(text.split("/") if "/" in text else (self._namespace, text))
            case "trust domain":
                return _like(text, domain)
            case "request principal":
                iss, sub = request.claims.get("iss"), request.claims.get("sub")
                return bool(iss and sub) and _like(text, f"{iss}/{sub}")
            case "peer" | "remote" | "address":
                found = {"peer": request.peer, "remote": request.remote, "address": request.address}[self._kind]
                return ip_address(found) in ip_network(text, strict=False)
            case "port":
                return int(text) == request.port
            case "host":
                return _is_host(text.lower(), request.host.lower())
            case "method":
                return _like(text, request.method)
            case "path":
                return _is_path(text, request.path.partition("?")[0])
            case "server name":
                return _like(text, request.server_name)
            case other:
                raise AssertionError(other)


def _comes_from(source: Source, namespace: str, request: Request) -> bool:
    fields = (
        ("principal", source.principals, source.not_principals),
        ("namespace", source.namespaces, source.not_namespaces),
        ("account", source.service_accounts, source.not_service_accounts),
        ("trust domain", source.trust_domains, source.not_trust_domains),
        ("request principal", source.request_principals, source.not_request_principals),
        ("peer", source.ip_blocks, source.not_ip_blocks),
        ("remote", source.remote_ip_blocks, source.not_remote_ip_blocks),
    )
    return all(_one_of(values, others, Judge(kind, namespace, request)) for kind, values, others in fields)


def _asks_for(operation: Operation, request: Request) -> bool:
    fields = (
        ("host", operation.hosts, operation.not_hosts),
        ("method", operation.methods, operation.not_methods),
        ("path", operation.paths, operation.not_paths),
        ("port", operation.ports, operation.not_ports),
    )
    return all(_one_of(values, others, Judge(kind, "", request)) for kind, values, others in fields)


_KINDS = {
    Attribute.SOURCE_IP: "peer",
    Attribute.SOURCE_NAMESPACE: "namespace",
    Attribute.SOURCE_PRINCIPAL: "principal",
    Attribute.SOURCE_SERVICE_ACCOUNT: "account",
    Attribute.SOURCE_TRUST_DOMAIN: "trust domain",
    Attribute.REMOTE_IP: "remote",
    Attribute.REQUEST_PRINCIPAL: "request principal",
    Attribute.DESTINATION_IP: "address",
    Attribute.DESTINATION_PORT: "port",
    Attribute.SERVER_NAME: "server name",
}


def _holds(condition: Condition, namespace: str, request: Request) -> bool:
    key = parse_condition_key(condition.key)
    if key.attribute in _KINDS:
        return _one_of(condition.values, condition.not_values, Judge(_KINDS[key.attribute], namespace, request))
    texts = _read(key.attribute, key.path, request)
    has = [any(_like(value, text) for text in texts) for value in condition.values or ()]
    has_not = [any(_like(value, text) for text in texts) for value in condition.not_values or ()]
    return (not has or any(has)) and not any(has_not)


def _read(attribute: Attribute, path: Sequence[str], request: Request) -> list[str]:
    """All texts that a request has there."""
    if attribute is Attribute.REQUEST_HEADER:
        return [text for name, text in request.headers.items() if name == path[0]]
    found: object = request.claims
    steps = {Attribute.REQUEST_AUDIENCES: ("aud",), Attribute.REQUEST_PRESENTER: ("azp",)}.get(attribute, path)
    for step in steps:
        found = found.get(step) if isinstance(found, Mapping) else None
    return [found] if isinstance(found, str) else [str(each) for each in found] if isinstance(found, list) else []


def _like(pattern: str, text: str) -> bool:
    if pattern == "*":
        return text != ""
    if pattern.startswith("*"):
        return text.endswith(pattern[1:])
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern


def _is_host(pattern: str, host: str) -> bool:
    name, _, port = host.partition(":")
    if ":" in pattern or not (port.isdigit() or port == ""):
        return _like(pattern, host)
    return _like(pattern, host) or _like(pattern, name) or _like(pattern, name.removesuffix("."))


def _is_path(pattern: str, path: str) -> bool:
    if "{" not in pattern:
        return _like(pattern, path)
    return _fit_segments(pattern.split("/"), path.split("/"))


def _fit_segments(pattern: Sequence[str], path: Sequence[str]) -> bool:
    if not pattern or not path:
        return not pattern and not path
    if pattern[0] == "{**}":
        return any(_fit_segments(pattern[1:], path[count:]) for count in range(1, len(path) + 1))
    is_segment = path[0] != "" if pattern[0] == "{*}" else pattern[0] == path[0]
    return is_segment and _fit_segments(pattern[1:], path[1:])
