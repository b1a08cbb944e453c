"""HTTPRoutes as the mesh sees them: each match with what is done, in Gateway API's order of precedence.

Whether a route attaches to something is decided in `controller.registry.attachment`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from controller.kinds import http_route as kinds
from controller.kinds.gateway_api import BackendReference
from controller.kinds.http_route import HTTPRoute
from controller.registry import http
from controller.registry.http import Forward, PathForm, Redirect, Reply, RequestMatch, Target, TextForm

_PATH_FORMS = {"Exact": PathForm.EXACT, "PathPrefix": PathForm.ELEMENTS, "RegularExpression": PathForm.REGEX}
# What is tried again beside the codes that a rule lists: Gateway API wants connection errors among them.
_RETRIED = ("connect-failure", "refused-stream", "reset", "retriable-status-codes")
_PATH_RANK = {PathForm.EXACT: 2, PathForm.REGEX: 1}


class FindTarget(Protocol):
    """Where a backend leads that an HTTPRoute of a namespace names; None where that is nothing, or not allowed."""

    def __call__(self, namespace: str, reference: BackendReference) -> Target | None: ...


@dataclass(frozen=True, slots=True)
class Ranked:
    """A route, and its place among those of all HTTPRoutes of one host: the lowest rank comes first."""

    rank: tuple[object, ...]
    route: http.Route


def build_routes(route: HTTPRoute, find_target: FindTarget) -> list[Ranked]:
    """All that an HTTPRoute says, match by match."""
    built = []
    for number, rule in enumerate(route.rules):
        name = f"{route.namespace}/{route.name}/{rule.name or number}"
        for match in rule.matches or (kinds.HttpMatch(),):
            request = _build_match(match)
            made = _Rule(route, rule, request, find_target).build(name)
            built.append(Ranked((*_rank(request), *route.age_key, number), made))
    return built


def sort_routes(ranked: Iterable[Ranked]) -> tuple[http.Route, ...]:
    """In the order in which they are tried."""
    return tuple(each.route for each in sorted(ranked, key=lambda each: each.rank))


def _rank(match: RequestMatch) -> tuple[int, ...]:
    """Exact paths, then the longest prefix, a method, the most headers, the most parameters (facts of L7, 3.5)."""
    has_method = any(each.name == ":method" for each in match.headers)
    path = match.path
    length = 0 if path.form is PathForm.PREFIX else len(path.value)
    return (-_PATH_RANK.get(path.form, 0), -length, -has_method, -(len(match.headers) - has_method), -len(match.query))


def _build_match(match: kinds.HttpMatch) -> RequestMatch:
    headers = list(build_named(match.headers or ()))
    if match.method:
        headers.append(http.NamedMatch(":method", http.TextMatch(TextForm.EXACT, match.method)))
    return RequestMatch(_build_path(match.path), tuple(headers), tuple(build_named(match.query_params or ())))


def _build_path(path: kinds.PathMatch) -> http.PathMatch:
    form = _PATH_FORMS[path.type]
    if form is not PathForm.ELEMENTS:
        return http.PathMatch(form, path.value)
    elements = path.value.rstrip("/")
    return http.PathMatch(form, elements) if elements else http.ANY_PATH


def build_named(matches: Sequence[kinds.NamedMatch]) -> Iterator[http.NamedMatch]:
    """Of several with one name the first counts (Gateway API)."""
    seen: set[str] = set()
    for match in matches:
        if match.name not in seen:
            seen.add(match.name)
            form = TextForm.EXACT if match.type == "Exact" else TextForm.REGEX
            yield http.NamedMatch(match.name, http.TextMatch(form, match.value))


class _Rule:
    """One match of one rule."""

    def __init__(self, route: HTTPRoute, rule: kinds.HttpRule, match: RequestMatch, find_target: FindTarget) -> None:
        self._route = route
        self._rule = rule
        self._match = match
        self._find_target = find_target
        self._filters = rule.filters or ()

    def build(self, name: str) -> http.Route:
        request, response = build_changes(self._filters)
        cors = next((_build_cors(each.cors) for each in self._filters if each.cors), None)
        return http.Route(name, self._match, self._build_action(), request, response, cors)

    def _build_action(self) -> http.Action:
        redirect = next((each.request_redirect for each in self._filters if each.request_redirect), None)
        if redirect is not None:
            path = self._build_path_change(redirect.path)
            host, port = redirect.hostname or "", redirect.port or 0
            return Redirect(redirect.status_code, redirect.scheme or "", host, port, path)
        if not self._rule.backend_refs:
            return Reply(500)  # Gateway API's, for a rule that sends requests nowhere
        rewrite = next((each.url_rewrite for each in self._filters if each.url_rewrite), None)
        timeouts = self._rule.timeouts or kinds.Timeouts()
        retries = self._build_retries(timeouts)
        waits = timeouts.request or (0 if retries.try_milliseconds else timeouts.backend_request) or 0
        if not retries.try_milliseconds and timeouts.backend_request:
            waits = min(waits, timeouts.backend_request)
        return Forward(
            destinations=build_destinations(self._route.namespace, self._rule.backend_refs, self._find_target),
            host=(rewrite.hostname or "") if rewrite else "",
            path=self._build_path_change(rewrite.path) if rewrite else None,
            timeout_milliseconds=waits,
            retries=retries,
            mirrors=build_mirrors(self._route.namespace, self._filters, self._find_target),
        )

    def _build_retries(self, timeouts: kinds.Timeouts) -> http.Retries:
        retry = self._rule.retry
        if retry is None:
            return http.SAFE_RETRIES
        if retry.attempts == 0:
            return http.NO_RETRIES
        return http.Retries(
            attempts=retry.attempts or 1,
            conditions=_RETRIED,
            codes=tuple(retry.codes or ()),
            try_milliseconds=timeouts.backend_request or 0,
            pause_milliseconds=retry.backoff or 0,
        )

    def _build_path_change(self, change: kinds.PathModifier | None) -> http.PathChange | None:
        if change is None:
            return None
        if change.type == "ReplaceFullPath":
            return http.PathChange(http.PathChangeForm.FULL, change.value)
        return http.PathChange(http.PathChangeForm.ELEMENTS, change.value.rstrip("/"))


def build_destinations(
    namespace: str, backends: Sequence[kinds.HttpBackend], find_target: FindTarget
) -> tuple[http.Destination, ...]:
    """Where a rule of a route of `namespace` sends requests."""
    built = []
    for backend in backends:
        request, response = build_changes(backend.filters or ())
        built.append(http.Destination(find_target(namespace, backend), backend.weight, request, response))
    return tuple(built)


def build_mirrors(namespace: str, filters: Sequence[kinds.Filter], find_target: FindTarget) -> tuple[http.Mirror, ...]:
    """Where a rule of a route of `namespace` copies requests to; what leads nowhere is left out."""
    given = (each.request_mirror for each in filters if each.request_mirror)
    found = ((mirror, find_target(namespace, mirror.backend_ref)) for mirror in given)
    return tuple(http.Mirror(target, mirror.share) for mirror, target in found if target)


def build_changes(filters: Sequence[kinds.Filter]) -> tuple[http.HeaderChanges, http.HeaderChanges]:
    """What is done to the headers of a request, and of its answer."""
    request = next((each.request_header_modifier for each in filters if each.request_header_modifier), None)
    response = next((each.response_header_modifier for each in filters if each.response_header_modifier), None)
    return _build_modifier(request), _build_modifier(response)


def _build_modifier(modifier: kinds.HeaderModifier | None) -> http.HeaderChanges:
    if modifier is None:
        return http.NO_CHANGES
    return http.HeaderChanges(
        tuple((each.name, each.value) for each in modifier.set or ()),
        tuple((each.name, each.value) for each in modifier.add or ()),
        tuple(modifier.remove or ()),
    )


def _build_cors(cors: kinds.Cors) -> http.Cors:
    return http.Cors(
        origins=tuple(_build_origin(each) for each in cors.allow_origins or ()),
        methods=tuple(cors.allow_methods or ()),
        headers=tuple(cors.allow_headers or ()),
        exposed=tuple(cors.expose_headers or ()),
        max_age_seconds=cors.max_age,
        allows_credentials=bool(cors.allow_credentials),
    )


def _build_origin(origin: str) -> http.TextMatch:
    """`*` is any; one in a host name stands for any number of its elements (Gateway API)."""
    if "*" not in origin:
        return http.TextMatch(TextForm.EXACT, origin)
    parts = [http.escape_regex(part) for part in origin.split("*")]
    return http.TextMatch(TextForm.REGEX, ".*".join(parts))
