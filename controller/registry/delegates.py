"""VirtualServices that leave routes to others, as one list of rules.

Istio's rules (facts of the control plane, section 12): one level only; each match of the other must be within one of
the root's, else the rule does not serve; what the other does not say is the root's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from controller.kinds.traffic import is_exported
from controller.kinds.virtual_service import (
    MESH,
    Delegate,
    HttpRoute,
    RequestMatch,
    StringMatch,
    VirtualService,
)

_Value = TypeVar("_Value")

FindVirtualService = Callable[[str, str], VirtualService | None]
"""By namespace and name."""
# What a rule of the other has of the root's where it says nothing itself.
_INHERITED = (
    *("rewrite", "timeout", "retries", "fault", "mirror", "mirror_percentage", "mirrors", "cors_policy", "headers"),
)
_OWN_NAMESPACE = "."
_TEXTS = ("uri", "scheme", "method", "authority")
_NAMED = ("headers", "without_headers", "query_params")


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule with its name, and the namespace in which its destinations are meant.

    One that is `lost` was left to a VirtualService that is not there.
    """

    name: str
    namespace: str
    rule: HttpRoute
    is_lost: bool = False


def list_rules(service: VirtualService, find: FindVirtualService) -> Iterator[Rule]:
    """All rules of a VirtualService, in order."""
    for number, rule in enumerate(service.spec.http or ()):
        name = f"{service.namespace}/{service.name}/{rule.name or number}"
        if rule.delegate is None:
            yield Rule(name, service.namespace, rule)
        elif (other := find_delegate(service, rule.delegate, find)) is None:
            yield Rule(name, service.namespace, rule, is_lost=True)
        else:
            for index, (each, merged) in enumerate(list_merged(service, rule, other)):
                if merged is not None:
                    yield Rule(f"{name}/{each.name or index}", other.namespace, merged)


def place_of(service: VirtualService, delegate: Delegate) -> tuple[str, str]:
    """The namespace and name of whom a VirtualService leaves a rule to."""
    return delegate.namespace or service.namespace, delegate.name


def find_delegate(service: VirtualService, delegate: Delegate, find: FindVirtualService) -> VirtualService | None:
    """Whom it leaves a rule to: one without hosts, that its namespace sees."""
    found = find(*place_of(service, delegate))
    if found is None or found.spec.hosts:
        return None
    return found if is_exported(found.spec.export_to, found.namespace, service.namespace) else None


def list_merged(
    service: VirtualService, rule: HttpRoute, other: VirtualService
) -> Iterator[tuple[HttpRoute, HttpRoute | None]]:
    """The rules of whom a VirtualService leaves a rule to, and what each becomes; None where it does not serve."""
    root = _name_gateways(rule, service.namespace)
    for each in other.spec.http or ():
        yield each, merge(root, _name_gateways(each, other.namespace))


def _name_gateways(rule: HttpRoute, namespace: str) -> HttpRoute:
    """The same, with the Gateways of its matches by their whole names."""
    matches = [
        each.model_copy(update={"gateways": [_name_gateway(name, namespace) for name in each.gateways or ()]})
        for each in rule.match or ()
    ]
    return rule.model_copy(update={"match": matches})


def _name_gateway(name: str, namespace: str) -> str:
    place, _, rest = name.rpartition("/")
    return name if name == MESH else f"{namespace if place in ('', _OWN_NAMESPACE) else place}/{rest}"


def merge(root: HttpRoute, other: HttpRoute) -> HttpRoute | None:
    """A rule of the other as a part of the root's; None where it asks for what the root does not pass on."""
    matches = _merge_matches(root.match or (), other.match or ())
    if matches is None:
        return None
    inherited = {name: getattr(root, name) for name in _INHERITED if getattr(other, name) is None}
    if other.redirect:
        inherited = {name: value for name, value in inherited.items() if name in ("cors_policy", "headers", "fault")}
    return other.model_copy(update={**inherited, "match": matches})


def _merge_matches(root: Sequence[RequestMatch], other: Sequence[RequestMatch]) -> Sequence[RequestMatch] | None:
    if not root or not other:
        return root or other
    merged: list[RequestMatch] = []
    for each in other:
        found = [_merge_match(outer, each) for outer in root if _contains(outer, each)]
        if not found:
            return None
        merged += found
    return merged


def _contains(root: RequestMatch, other: RequestMatch) -> bool:
    """Whether what `other` asks for is what `root` passes on, as far as both speak of the same."""
    texts = [(getattr(root, name), getattr(other, name)) for name in _TEXTS]
    for name in _NAMED:
        outer, inner = getattr(root, name) or {}, getattr(other, name) or {}
        texts += [(text, inner.get(key)) for key, text in outer.items()]
    ports = {port for port in (root.port, other.port) if port}
    has_case = bool(root.ignore_uri_case) == bool(other.ignore_uri_case)
    has_gateways = not root.gateways or set(other.gateways or ()) <= set(root.gateways)
    return has_case and has_gateways and len(ports) < 2 and all(_includes(outer, inner) for outer, inner in texts)


def _includes(outer: StringMatch | None, inner: StringMatch | None) -> bool:
    """Of two regular expressions, or of one and anything else, nobody can say."""
    if outer is None or inner is None:
        return True
    if outer.exact is not None:
        return inner.exact == outer.exact
    if outer.prefix is not None:
        text = inner.exact if inner.exact is not None else inner.prefix
        return text is not None and text.startswith(outer.prefix)
    return outer.regex is None


def _merge_match(root: RequestMatch, other: RequestMatch) -> RequestMatch:
    update: dict[str, object] = {name: _given(getattr(other, name), getattr(root, name)) for name in _TEXTS}
    for name in _NAMED:
        named: Mapping[str, StringMatch] = {**(getattr(root, name) or {}), **(getattr(other, name) or {})}
        update[name] = named or None
    update |= {"port": _given(other.port, root.port), "gateways": other.gateways or root.gateways}
    return other.model_copy(update=update)


def _given(value: _Value | None, otherwise: _Value | None) -> _Value | None:
    return otherwise if value is None else value
