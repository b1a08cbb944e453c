"""Which access log the proxies of gateways write, waypoints among them, and sidecars.

Of the Telemetries that speak of access logs the nearest decides alone: one that chooses the gateway, then that of its
namespace, then that of the root namespace; at one level the oldest. Sidecars are all told the same, by the root
namespace's. Without any, every request is logged.
"""

from collections.abc import Iterable, Iterator, Mapping

from controller.kinds.telemetry import AccessLogging, Telemetry
from controller.registry.gateway_proxies import (
    GatewayProxies,
    assume_ingresses,
    describe_ingress,
    list_gateways,
    list_waypoints,
)
from controller.registry.names import MeshSettings
from controller.registry.policies import matches
from controller.snapshot import Snapshot

EVERYTHING = AccessLogging()
"""Where nobody says otherwise."""


def selects(settings: MeshSettings, given: Telemetry, proxies: GatewayProxies) -> bool:
    """Whether it is for the proxies of a gateway, if no nearer one is."""
    if given.namespace != proxies.namespace:
        return is_for_all(settings, given)
    if given.spec.target_refs:
        return proxies.gateway in {each.name for each in given.spec.target_refs}
    return matches(_find_labels(given), proxies.labels)


def _find_labels(given: Telemetry) -> Mapping[str, str]:
    return (given.spec.selector.match_labels if given.spec.selector else None) or {}


def is_for_all(settings: MeshSettings, given: Telemetry) -> bool:
    """Whether it is for every proxy of the mesh."""
    return given.namespace == settings.root_namespace and not _has_choice(given)


def _has_choice(given: Telemetry) -> bool:
    return bool(given.spec.target_refs or (given.spec.selector and given.spec.selector.match_labels))


def find_for_proxies(snapshot: Snapshot, settings: MeshSettings, proxies: GatewayProxies) -> Telemetry | None:
    """The one that decides for the proxies of a gateway."""
    places = {settings.root_namespace, proxies.namespace}
    found = [
        each
        for place in places
        for each in snapshot.objects_in(Telemetry, place)
        if each.spec.access_logging and selects(settings, each, proxies)
    ]
    return min(
        found,
        key=lambda each: (not _has_choice(each), each.namespace != proxies.namespace, each.age_key),
        default=None,
    )


def find_for_all(snapshot: Snapshot, settings: MeshSettings) -> Telemetry | None:
    """The one that decides for sidecars."""
    given = snapshot.objects_in(Telemetry, settings.root_namespace)
    found = (each for each in given if each.spec.access_logging and is_for_all(settings, each))
    return min(found, key=lambda each: each.age_key, default=None)


def read_logging(given: Telemetry | None) -> AccessLogging:
    """What it says of the access log, where there is one that decides."""
    return given.spec.access_logging[0] if given is not None and given.spec.access_logging else EVERYTHING


def find_idle(snapshot: Snapshot, settings: MeshSettings, given: Telemetry) -> str:
    """Why it decides nothing; empty if it does."""
    if not given.spec.access_logging:
        return "it says nothing of accessLogging"
    if given == find_for_all(snapshot, settings):
        return ""
    chosen = [each for each in _list_proxies(snapshot, given) if selects(settings, given, each)]
    winners = list(_find_winners(snapshot, settings, chosen))
    if given in winners:
        return ""
    if winners or is_for_all(settings, given):
        first = winners[0] if winners else find_for_all(snapshot, settings)
        return f"{first.key if first else 'another one'} decides instead of it"
    return (
        "no Gateway of ours is selected; sidecars are all told the same, by the root namespace's, without selector and "
        "targetRefs"
    )


def _list_proxies(snapshot: Snapshot, given: Telemetry) -> Iterator[GatewayProxies]:
    """All that there are, and ingress gateways that it may be for."""
    yield from list_gateways(snapshot)
    yield from list_waypoints(snapshot)
    if not given.spec.target_refs:
        yield from map(describe_ingress, sorted(assume_ingresses(snapshot, given.namespace, _find_labels(given))))


def _find_winners(snapshot: Snapshot, settings: MeshSettings, chosen: Iterable[GatewayProxies]) -> Iterator[Telemetry]:
    for proxies in chosen:
        found = find_for_proxies(snapshot, settings, proxies)
        if found is not None:
            yield found
