"""Routes to Envoy's RouteConfiguration.

gRPC's own client refuses a whole RouteConfiguration for a path matched by elements (facts of L7, 2.14): for it such a
match becomes two.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2 as pb
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2
from envoy.type.v3 import percent_pb2

from controller.registry import http
from controller.registry.destinations import HashedPart, Hashing
from controller.registry.http import Forward, PathChangeForm, PathForm, Redirect, Reply, Route, TextForm, VirtualHost
from controller.translate.envoy import milliseconds, pack

CORS_FILTER = "envoy.filters.http.cors"
FAULT_FILTER = "envoy.filters.http.fault"
PREVIOUS_HOSTS = "envoy.retry_host_predicates.previous_hosts"
# No cluster has this name: what goes there fails as Gateway API wants it.
NOWHERE = "nowhere"
# Envoy's default, and Istio's: as many tries to find another endpoint than the last.
_OTHER_HOST_TRIES = 5
_MILLION = 1_000_000
_PREVIOUS_HOSTS = pack(previous_hosts_pb2.PreviousHostsPredicate())
_REDIRECT_CODES = {
    301: pb.RedirectAction.MOVED_PERMANENTLY,
    302: pb.RedirectAction.FOUND,
    303: pb.RedirectAction.SEE_OTHER,
    307: pb.RedirectAction.TEMPORARY_REDIRECT,
    308: pb.RedirectAction.PERMANENT_REDIRECT,
}
_MISSING = {
    500: pb.RouteAction.INTERNAL_SERVER_ERROR,
    503: pb.RouteAction.SERVICE_UNAVAILABLE,
}
_SET = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
_ADD = base_pb2.HeaderValueOption.APPEND_IF_EXISTS_OR_ADD


class Dialect(Enum):
    """Who reads it."""

    ENVOY = "envoy"
    GRPC = "grpc"


FindHashing = Callable[[http.Target], Hashing | None]
"""In what requests to a target must be alike to go to the same endpoint."""


def translate_hosts(
    name: str, hosts: Sequence[VirtualHost], find_hashing: FindHashing, dialect: Dialect = Dialect.ENVOY
) -> route_pb2.RouteConfiguration:
    """All that a port serves. A host is recognised with any port behind it."""
    return route_pb2.RouteConfiguration(
        name=name,
        virtual_hosts=[_Translation(dialect, find_hashing).translate_host(host) for host in hosts],
        ignore_port_in_host_matching=dialect is Dialect.ENVOY,
    )


@dataclass(frozen=True, slots=True)
class _Translation:
    """For one reader."""

    dialect: Dialect
    find_hashing: FindHashing

    def translate_host(self, host: VirtualHost) -> pb.VirtualHost:
        routes = [each for route in host.routes for each in self._translate_route(route)]
        tls = pb.VirtualHost.ALL if host.requires_tls else pb.VirtualHost.NONE
        return pb.VirtualHost(name=host.name, domains=host.domains, routes=routes, require_tls=tls)

    def _translate_route(self, route: Route) -> Iterator[pb.Route]:
        for match in _translate_match(route.match, self.dialect):
            built = pb.Route(name=route.name, match=match)
            _add_changes(built, route.request, route.response)
            if route.cors:
                built.typed_per_filter_config[CORS_FILTER].CopyFrom(pack(_translate_cors(route.cors)))
            if route.fault:
                built.typed_per_filter_config[FAULT_FILTER].CopyFrom(pack(_translate_fault(route.fault)))
            match route.action:
                case Forward():
                    built.route.CopyFrom(self._translate_forward(route.action, route.match))
                case Redirect():
                    built.redirect.CopyFrom(_translate_redirect(route.action, route.match))
                case Reply():
                    built.direct_response.status = route.action.status
                    if route.action.body:
                        built.direct_response.body.inline_bytes = route.action.body
            yield built

    def _translate_forward(self, action: Forward, match: http.RequestMatch) -> pb.RouteAction:
        built = _translate_action(action, match)
        if action.timeout_milliseconds and self.dialect is Dialect.GRPC:
            # For Envoy this bounds what gRPC callers may ask for; the other field would end its websockets, too.
            built.max_stream_duration.grpc_timeout_header_max.CopyFrom(milliseconds(action.timeout_milliseconds))
        hashings = (self.find_hashing(each.target) for each in action.destinations if each.target)
        for hashing in dict.fromkeys(each for each in hashings if each):
            built.hash_policy.append(_translate_hashing(hashing))
        return built


def _translate_hashing(hashing: Hashing) -> pb.RouteAction.HashPolicy:
    built = pb.RouteAction.HashPolicy()
    match hashing.part:
        case HashedPart.HEADER:
            built.header.header_name = hashing.name
        case HashedPart.COOKIE:
            built.cookie.name, built.cookie.path = hashing.name, hashing.path
            if hashing.ttl_milliseconds is not None:
                built.cookie.ttl.CopyFrom(milliseconds(hashing.ttl_milliseconds))
        case HashedPart.QUERY:
            built.query_parameter.name = hashing.name
        case HashedPart.SOURCE_IP:
            built.connection_properties.source_ip = True
    return built


def _translate_match(match: http.RequestMatch, dialect: Dialect) -> Iterator[pb.RouteMatch]:
    for path in _translate_path(match.path, dialect):
        path.headers.extend(_translate_header(each) for each in match.headers)
        path.query_parameters.extend(_translate_query(each) for each in match.query)
        yield path


def _translate_path(path: http.PathMatch, dialect: Dialect) -> Iterator[pb.RouteMatch]:
    sensitive = None if not path.ignores_case else {"value": False}
    match path.form:
        case PathForm.EXACT:
            yield pb.RouteMatch(path=path.value, case_sensitive=sensitive)
        case PathForm.PREFIX:
            yield pb.RouteMatch(prefix=path.value, case_sensitive=sensitive)
        case PathForm.REGEX:
            yield pb.RouteMatch(safe_regex=regex_pb2.RegexMatcher(regex=path.value))
        case PathForm.ELEMENTS if dialect is Dialect.GRPC:
            yield pb.RouteMatch(path=path.value, case_sensitive=sensitive)
            yield pb.RouteMatch(prefix=f"{path.value}/", case_sensitive=sensitive)
        case PathForm.ELEMENTS:
            yield pb.RouteMatch(path_separated_prefix=path.value, case_sensitive=sensitive)


def _translate_header(match: http.NamedMatch) -> pb.HeaderMatcher:
    if match.text.form is TextForm.PRESENT:
        return pb.HeaderMatcher(name=match.name, present_match=True, invert_match=match.is_inverted)
    text = translate_text(match.text)
    return pb.HeaderMatcher(name=match.name, string_match=text, invert_match=match.is_inverted)


def _translate_query(match: http.NamedMatch) -> pb.QueryParameterMatcher:
    if match.text.form is TextForm.PRESENT:
        return pb.QueryParameterMatcher(name=match.name, present_match=True)
    return pb.QueryParameterMatcher(name=match.name, string_match=translate_text(match.text))


def translate_text(text: http.TextMatch) -> string_pb2.StringMatcher:
    """A comparison that is not only for presence."""
    match text.form:
        case TextForm.PREFIX:
            return string_pb2.StringMatcher(prefix=text.value)
        case TextForm.REGEX:
            return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=text.value))
        case _:
            return string_pb2.StringMatcher(exact=text.value)


def _add_changes(
    to: "pb.Route | pb.WeightedCluster.ClusterWeight", request: http.HeaderChanges, response: http.HeaderChanges
) -> None:
    to.request_headers_to_add.extend(_translate_added(request))
    to.request_headers_to_remove.extend(request.remove)
    to.response_headers_to_add.extend(_translate_added(response))
    to.response_headers_to_remove.extend(response.remove)


def _translate_added(changes: http.HeaderChanges) -> Iterator[base_pb2.HeaderValueOption]:
    for action, headers in ((_SET, changes.set), (_ADD, changes.add)):
        for name, value in headers:
            # A value is a format of Envoy's, in which % begins a command.
            header = base_pb2.HeaderValue(key=name, value=value.replace("%", "%%"))
            yield base_pb2.HeaderValueOption(header=header, append_action=action, keep_empty_value=True)


def _translate_action(action: Forward, match: http.RequestMatch) -> pb.RouteAction:
    built = pb.RouteAction(
        timeout=milliseconds(action.timeout_milliseconds),
        cluster_not_found_response_code=_MISSING[action.missing_status],
        request_mirror_policies=[_translate_mirror(each) for each in action.mirrors],
    )
    if len(action.destinations) == 1 and action.destinations[0].weight:
        built.cluster = _cluster_of(action.destinations[0])
        one = action.destinations[0]
        if one.request != http.NO_CHANGES or one.response != http.NO_CHANGES or one.host:
            built.weighted_clusters.CopyFrom(_translate_weights(action.destinations))
    elif any(each.weight for each in action.destinations):
        built.weighted_clusters.CopyFrom(_translate_weights(action.destinations))
    else:
        built.cluster = NOWHERE
    if action.host:
        built.host_rewrite_literal = action.host
    if action.path is not None:
        if action.path.form is PathChangeForm.PREFIX:
            built.prefix_rewrite = action.path.value
        else:
            built.regex_rewrite.CopyFrom(_translate_path_change(action.path, match))
    if action.retries.attempts:
        built.retry_policy.CopyFrom(_translate_retries(action.retries))
    built.upgrade_configs.add(upgrade_type="websocket")
    return built


def _cluster_of(destination: http.Destination) -> str:
    return destination.target.cluster if destination.target else NOWHERE


def _translate_weights(destinations: Sequence[http.Destination]) -> pb.WeightedCluster:
    built = pb.WeightedCluster()
    for each in destinations:
        cluster = built.clusters.add(name=_cluster_of(each), weight={"value": each.weight})
        _add_changes(cluster, each.request, each.response)
        if each.host:
            cluster.host_rewrite_literal = each.host
    return built


def _translate_mirror(mirror: http.Mirror) -> pb.RouteAction.RequestMirrorPolicy:
    return pb.RouteAction.RequestMirrorPolicy(
        cluster=mirror.target.cluster,
        runtime_fraction={"default_value": _translate_share(mirror.share)},
        trace_sampled={"value": False},
    )


def _translate_share(share: float) -> percent_pb2.FractionalPercent:
    return percent_pb2.FractionalPercent(
        numerator=round(share * _MILLION), denominator=percent_pb2.FractionalPercent.MILLION
    )


def _translate_retries(retries: http.Retries) -> pb.RetryPolicy:
    built = pb.RetryPolicy(
        retry_on=",".join(retries.conditions),
        num_retries={"value": retries.attempts},
        retriable_status_codes=retries.codes,
    )
    if retries.avoids_previous:
        built.retry_host_predicate.add(name=PREVIOUS_HOSTS, typed_config=_PREVIOUS_HOSTS)
        built.host_selection_retry_max_attempts = _OTHER_HOST_TRIES
    if retries.try_milliseconds:
        built.per_try_timeout.CopyFrom(milliseconds(retries.try_milliseconds))
    if retries.pause_milliseconds:
        built.retry_back_off.base_interval.CopyFrom(milliseconds(retries.pause_milliseconds))
    return built


def _translate_redirect(action: Redirect, match: http.RequestMatch) -> pb.RedirectAction:
    built = pb.RedirectAction(
        response_code=_REDIRECT_CODES[action.status],
        scheme_redirect=action.scheme or None,
        host_redirect=action.host,
        port_redirect=action.port,
    )
    if action.path is not None:
        if action.path.form is PathChangeForm.FULL:
            built.path_redirect = action.path.value
        elif action.path.form is PathChangeForm.PREFIX:
            built.prefix_rewrite = action.path.value
        else:
            built.regex_rewrite.CopyFrom(_translate_path_change(action.path, match))
    return built


def _translate_path_change(change: http.PathChange, match: http.RequestMatch) -> regex_pb2.RegexMatchAndSubstitute:
    """By regular expression: Envoy's own rewriting of prefixes doubles the slash behind /a that becomes /."""
    match change.form:
        case PathChangeForm.ELEMENTS:
            elements = re.escape(match.path.value.rstrip("/"))
            tail = r"\1\2" if change.value else r"/\2"
            pattern, value = f"^{elements}(/?)(.*)$", _escape_substitution(change.value) + tail
        case PathChangeForm.REGEX:
            pattern, value = change.pattern, change.value
        case _:
            pattern, value = "^/.*$", _escape_substitution(change.value)
    return regex_pb2.RegexMatchAndSubstitute(pattern=regex_pb2.RegexMatcher(regex=pattern), substitution=value)


def _escape_substitution(text: str) -> str:
    return text.replace("\\", "\\\\")


def _translate_cors(cors: http.Cors) -> cors_pb2.CorsPolicy:
    return cors_pb2.CorsPolicy(
        allow_origin_string_match=[_translate_origin(each) for each in cors.origins],
        allow_methods=",".join(cors.methods),
        allow_headers=",".join(cors.headers),
        expose_headers=",".join(cors.exposed),
        max_age="" if cors.max_age_seconds is None else str(cors.max_age_seconds),
        allow_credentials={"value": cors.allows_credentials},
    )


def _translate_origin(origin: http.TextMatch) -> string_pb2.StringMatcher:
    return translate_text(http.TextMatch(TextForm.REGEX, ".*") if origin.form is TextForm.PRESENT else origin)


def _translate_fault(fault: http.Fault) -> fault_pb2.HTTPFault:
    built = fault_pb2.HTTPFault()
    if fault.delay_share:
        built.delay.fixed_delay.CopyFrom(milliseconds(fault.delay_milliseconds))
        built.delay.percentage.CopyFrom(_translate_share(fault.delay_share))
    if fault.abort_share and fault.grpc_status is not None:
        built.abort.grpc_status = fault.grpc_status
    elif fault.abort_share:
        built.abort.http_status = fault.status
    if fault.abort_share:
        built.abort.percentage.CopyFrom(_translate_share(fault.abort_share))
    return built
