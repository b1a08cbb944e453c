"""VirtualServices as the mesh sees them: the routes of one service's port, in their author's order.

In the mesh a VirtualService counts for the Services of its own namespace (as at Istio's waypoints; those of other
namespaces would be rules of clients). Several for one host follow each other, the oldest first. What it is at the
Gateways that it is bound to, `ingress` says.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from controller.kinds import virtual_service as kinds
from controller.kinds.traffic import Percent, is_exported
from controller.kinds.virtual_service import GRPC_STATUSES, MESH, VirtualService
from controller.registry import http
from controller.registry.delegates import Rule
from controller.registry.http import Forward, NamedMatch, PathForm, RequestMatch, TextForm, TextMatch

# Istio's, where somebody asks for retries and does not say on what: what a user wrote is followed to the letter.
_RETRIED = ("connect-failure", "refused-stream", "unavailable", "cancelled", "retriable-status-codes")
_HOST_NAMES = ("host", ":authority")

FindTarget = Callable[[kinds.Destination], http.Target | None]
"""Where a destination leads, for the port at hand; None where that is nothing."""


def list_destinations(service: VirtualService) -> Iterator[tuple[tuple[str | int, ...], kinds.Destination]]:
    """All that its own routes send requests to, each with its field."""
    for number, rule in enumerate(service.spec.http or ()):
        for path, destination in list_rule_destinations(rule):
            yield ("spec", "http", number, *path), destination


def find_gateways(service: VirtualService) -> frozenset[tuple[str, str]]:
    """The Gateways that it is bound to, by namespace and name."""
    return _find_places(service.spec.gateways or (), service.namespace)


def is_for_mesh(service: VirtualService) -> bool:
    """Whether it counts for clients within the mesh, for which it is a rule of its own namespace's Services."""
    is_seen = is_exported(service.spec.export_to, service.namespace, service.namespace)
    return is_seen and MESH in (service.spec.gateways or (MESH,))


def list_rule_destinations(rule: kinds.HttpRoute) -> Iterator[tuple[tuple[str | int, ...], kinds.Destination]]:
    """All that a rule sends requests to, each with its field."""
    for index, each in enumerate(rule.route or ()):
        yield ("route", index, "destination"), each.destination
    for index, mirror in enumerate(rule.mirrors or ()):
        yield ("mirrors", index, "destination"), mirror.destination
    if rule.mirror:
        yield ("mirror",), rule.mirror


def build_routes(
    rule: Rule, port: int, find_target: FindTarget, gateway: tuple[str, str] | None = None
) -> Iterator[http.Route]:
    """The routes that a rule is for a port of a Gateway, or where none is given of the mesh, match by match."""
    for match in rule.rule.match or (kinds.RequestMatch(),):
        if match.port not in (None, port) or not is_meant(match.gateways, rule.namespace, gateway):
            continue
        if rule.is_lost:
            nowhere = Forward((http.Destination(None),), missing_status=503)
            yield http.Route(rule.name, _build_match(match), nowhere)
        else:
            yield _build_route(rule.name, rule.rule, match, find_target)


def is_meant(named: Sequence[str] | None, namespace: str, gateway: tuple[str, str] | None) -> bool:
    """Whether a match of a VirtualService of `namespace` is for a Gateway, or where none is given for the mesh."""
    if not named:
        return True
    return MESH in named if gateway is None else gateway in _find_places(named, namespace)


def _find_places(gateways: Sequence[str], namespace: str) -> frozenset[tuple[str, str]]:
    split = (each.rpartition("/") for each in gateways if each != MESH)
    return frozenset((namespace if place in ("", ".") else place, name) for place, _, name in split)


def _build_route(name: str, rule: kinds.HttpRoute, match: kinds.RequestMatch, find_target: FindTarget) -> http.Route:
    request, response, host = _build_headers(rule.headers)
    action = _build_action(rule, match, find_target)
    if isinstance(action, Forward) and host and not action.host:
        action = replace(action, host=host)
    return http.Route(
        name=name,
        match=_build_match(match),
        action=action,
        request=request,
        response=response,
        cors=_build_cors(rule.cors_policy) if rule.cors_policy else None,
        fault=_build_fault(rule.fault) if rule.fault else None,
    )


def _build_match(match: kinds.RequestMatch) -> RequestMatch:
    pseudo = {":scheme": match.scheme, ":method": match.method, ":authority": match.authority}
    headers = [NamedMatch(name, _build_text(text)) for name, text in pseudo.items() if text is not None]
    headers += _build_named({name.lower(): text for name, text in (match.headers or {}).items()})
    headers += (
        NamedMatch(name.lower(), _build_text(text), is_inverted=True)
        for name, text in sorted((match.without_headers or {}).items())
    )
    query = tuple(_build_named(match.query_params or {}))
    return RequestMatch(_build_path(match), tuple(headers), query)


def _build_path(match: kinds.RequestMatch) -> http.PathMatch:
    uri, ignores_case = match.uri, bool(match.ignore_uri_case)
    if uri is None:
        return http.ANY_PATH
    if uri.exact is not None:
        return http.PathMatch(PathForm.EXACT, uri.exact, ignores_case)
    if uri.regex is not None:
        return http.PathMatch(PathForm.REGEX, f"(?i:{uri.regex})" if ignores_case else uri.regex)
    return http.PathMatch(PathForm.PREFIX, uri.prefix or "/", ignores_case)


def _build_named(matches: Mapping[str, kinds.StringMatch]) -> Iterator[NamedMatch]:
    return (NamedMatch(name, _build_text(text)) for name, text in sorted(matches.items()))


def _build_text(text: kinds.StringMatch) -> TextMatch:
    """A regular expression of `*` is Istio's older way to say that a header is there."""
    if text.exact is not None:
        return TextMatch(TextForm.EXACT, text.exact)
    if text.prefix is not None:
        return TextMatch(TextForm.PREFIX, text.prefix)
    return TextMatch(TextForm.REGEX, text.regex) if text.regex is not None else TextMatch(TextForm.PRESENT)


def _build_action(rule: kinds.HttpRoute, match: kinds.RequestMatch, find_target: FindTarget) -> http.Action:
    if rule.redirect:
        return _build_redirect(rule.redirect)
    if rule.direct_response:
        body = rule.direct_response.body
        return http.Reply(rule.direct_response.status, body.content if body else b"")
    mirrors = [*(rule.mirrors or ())]
    if rule.mirror:
        mirrors.append(kinds.MirrorPolicy(destination=rule.mirror, percentage=rule.mirror_percentage))
    return Forward(
        destinations=_build_destinations(rule.route or (), find_target),
        host=(rule.rewrite.authority or "") if rule.rewrite else "",
        path=_build_path_change(rule.rewrite, match) if rule.rewrite else None,
        timeout_milliseconds=rule.timeout or 0,
        retries=_build_retries(rule.retries) if rule.retries else http.SAFE_RETRIES,
        mirrors=tuple(
            http.Mirror(target, _share(each.percentage, 1.0))
            for each in mirrors
            if (target := find_target(each.destination)) is not None
        ),
        missing_status=503,
    )


def _build_destinations(
    routes: Sequence[kinds.RouteDestination], find_target: FindTarget
) -> tuple[http.Destination, ...]:
    """A lone destination has all; of several one without a weight has nothing."""
    built = []
    for each in routes:
        request, response, host = _build_headers(each.headers)
        weight = each.weight if len(routes) > 1 else 100
        if weight:
            built.append(http.Destination(find_target(each.destination), weight, request, response, host))
    return tuple(built)


def _build_headers(headers: kinds.Headers | None) -> tuple[http.HeaderChanges, http.HeaderChanges, str]:
    """What is done to a request, to its answer, and the host that it gets, which is set like a header."""
    if headers is None:
        return http.NO_CHANGES, http.NO_CHANGES, ""
    given = headers.request.set or {} if headers.request else {}
    host = next((value for name, value in given.items() if name.lower() in _HOST_NAMES), "")
    return _build_operations(headers.request), _build_operations(headers.response), host


def _build_operations(given: kinds.HeaderOperations | None) -> http.HeaderChanges:
    if given is None:
        return http.NO_CHANGES
    return http.HeaderChanges(_list_headers(given.set), _list_headers(given.add), tuple(given.remove or ()))


def _list_headers(headers: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    return tuple(each for each in sorted((headers or {}).items()) if each[0].lower() not in _HOST_NAMES)


def _build_redirect(redirect: kinds.HttpRedirect) -> http.Redirect:
    path = http.PathChange(http.PathChangeForm.FULL, redirect.uri) if redirect.uri else None
    port = redirect.port or 0
    if redirect.derive_port == "FROM_PROTOCOL_DEFAULT":
        port = 443 if redirect.scheme == "https" else 80
    return http.Redirect(redirect.redirect_code, redirect.scheme or "", redirect.authority or "", port, path)


def _build_path_change(rewrite: kinds.HttpRewrite, match: kinds.RequestMatch) -> http.PathChange | None:
    if rewrite.uri_regex_rewrite:
        given = rewrite.uri_regex_rewrite
        return http.PathChange(http.PathChangeForm.REGEX, given.rewrite, given.match)
    if not rewrite.uri:
        return None
    if match.uri and match.uri.regex is not None:
        return http.PathChange(http.PathChangeForm.REGEX, rewrite.uri, match.uri.regex)
    if rewrite.uri == "/" and match.uri and match.uri.prefix not in (None, "/"):
        return http.PathChange(http.PathChangeForm.ELEMENTS, "")  # else /a/b would become //b
    return http.PathChange(http.PathChangeForm.PREFIX, rewrite.uri)


def _build_retries(retry: kinds.HttpRetry) -> http.Retries:
    if retry.attempts == 0:
        return http.NO_RETRIES
    given = kinds.split_conditions(retry.retry_on) if retry.retry_on else list(_RETRIED)
    codes = tuple(int(each) for each in given if each.isdigit())
    conditions = [each for each in given if not each.isdigit()]
    if codes and "retriable-status-codes" not in conditions:
        conditions.append("retriable-status-codes")
    return http.Retries(
        attempts=retry.attempts,
        conditions=tuple(conditions),
        codes=codes,
        try_milliseconds=retry.per_try_timeout or 0,
        pause_milliseconds=retry.backoff or 0,
        avoids_previous=retry.retry_ignore_previous_hosts is not False,
    )


def _build_fault(fault: kinds.FaultInjection) -> http.Fault:
    delay, abort = fault.delay, fault.abort
    old_share = (delay.percent / 100 if delay.percent is not None else 1.0) if delay else 0.0
    return http.Fault(
        delay_milliseconds=delay.fixed_delay if delay else 0,
        delay_share=_share(delay.percentage, old_share) if delay else 0.0,
        status=(abort.http_status or 0) if abort else 0,
        grpc_status=GRPC_STATUSES.index(abort.grpc_status) if abort and abort.grpc_status else None,
        abort_share=_share(abort.percentage, 1.0) if abort else 0.0,
    )


def _share(percentage: Percent | None, otherwise: float) -> float:
    return percentage.value / 100 if percentage is not None else otherwise


def _build_cors(cors: kinds.CorsPolicy) -> http.Cors:
    return http.Cors(
        origins=tuple(_build_text(each) for each in cors.allow_origins or ()),
        methods=tuple(cors.allow_methods or ()),
        headers=tuple(cors.allow_headers or ()),
        exposed=tuple(cors.expose_headers or ()),
        max_age_seconds=None if cors.max_age is None else cors.max_age // 1000,
        allows_credentials=bool(cors.allow_credentials),
    )
