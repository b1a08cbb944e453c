"""GRPCRoutes as the mesh sees them: calls are requests whose path is `/SERVICE/METHOD`."""

from collections.abc import Iterator

from controller.kinds import grpc_route as kinds
from controller.kinds.grpc_route import GRPCRoute
from controller.registry import http
from controller.registry.http import Forward, PathForm, RequestMatch
from controller.registry.http_routes import (
    FindTarget,
    Ranked,
    build_changes,
    build_destinations,
    build_mirrors,
    build_named,
)

# Where nobody says which: any name that can stand between two slashes.
_ANY_NAME = "[^/]+"


def build_routes(route: GRPCRoute, find_target: FindTarget) -> Iterator[Ranked]:
    """All that a GRPCRoute says, match by match."""
    for number, rule in enumerate(route.rules):
        name = f"{route.namespace}/{route.name}/{rule.name or number}"
        for match in rule.matches or (kinds.GrpcMatch(),):
            request, response = build_changes(rule.filters or ())
            forward = Forward(
                destinations=build_destinations(route.namespace, rule.backend_refs or (), find_target),
                mirrors=build_mirrors(route.namespace, rule.filters or (), find_target),
            )
            # A rule that sends calls nowhere is unavailable, to gRPC; Envoy makes that of any 503.
            action = forward if rule.backend_refs else http.Reply(503)
            headers = tuple(build_named(match.headers or ()))
            built = http.Route(name, RequestMatch(_build_path(match.method), headers), action, request, response)
            yield Ranked((*_rank(match), *route.age_key, number), built)


def _build_path(method: kinds.MethodMatch | None) -> http.PathMatch:
    if method is None:
        return http.ANY_PATH
    if method.type == "RegularExpression":
        parts = (f"(?:{each})" if each else _ANY_NAME for each in (method.service, method.method))
        return http.PathMatch(PathForm.REGEX, "/" + "/".join(parts))
    if method.service and method.method:
        return http.PathMatch(PathForm.EXACT, f"/{method.service}/{method.method}")
    if method.service:
        return http.PathMatch(PathForm.PREFIX, f"/{method.service}/")
    return http.PathMatch(PathForm.REGEX, f"/{_ANY_NAME}/{http.escape_regex(method.method or '')}")


def _rank(match: kinds.GrpcMatch) -> tuple[int, ...]:
    """Before all HTTPRoutes; then the longest service, the longest method, the most headers (facts of L7, 3.5)."""
    service, method = (match.method.service or "", match.method.method or "") if match.method else ("", "")
    return (-3, -len(service), -len(method), -len(match.headers or ()), 0)
