"""Which EnvoyFilters are for which Envoys, and in which order.

One without workloadSelector and targetRefs is for all proxies of its namespace, in the root namespace for those of the
mesh. Sidecars are all told the same, so that only such a one of the root namespace is for them. The order is Istio's:
by priority, those of the root namespace first, then the oldest.
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum

from controller.kinds.envoy_filter import ConfigPatch, EnvoyFilter
from controller.registry.gateway_proxies import (
    GatewayProxies,
    assume_ingresses,
    describe_ingress,
    list_gateways,
    list_waypoints,
)
from controller.registry.names import MeshSettings
from controller.registry.policies import matches
from controller.registry.proxies import Ingress
from controller.snapshot import Snapshot


class Side(Enum):
    """Where a resource is used; the values are the contexts of the patches that are for it."""

    GATEWAY = ("ANY", "GATEWAY")
    SIDECAR = ("ANY", "SIDECAR_OUTBOUND")


def is_for_all(settings: MeshSettings, given: EnvoyFilter) -> bool:
    """Whether it is for every proxy of the mesh."""
    return given.namespace == settings.root_namespace and not _has_choice(given)


def _has_choice(given: EnvoyFilter) -> bool:
    selector = given.spec.workload_selector
    return bool(given.spec.target_refs or (selector and selector.labels))


def selects(settings: MeshSettings, given: EnvoyFilter, proxies: GatewayProxies) -> bool:
    """Whether it is for the proxies of a gateway."""
    if given.spec.target_refs:
        names = {each.name for each in given.spec.target_refs}
        return given.namespace == proxies.namespace and proxies.gateway in names
    is_near = given.namespace in (proxies.namespace, settings.root_namespace)
    return is_near and matches(_find_labels(given), proxies.labels)


def _find_labels(given: EnvoyFilter) -> Mapping[str, str]:
    return (given.spec.workload_selector.labels if given.spec.workload_selector else None) or {}


def find_for_proxies(snapshot: Snapshot, settings: MeshSettings, proxies: GatewayProxies) -> Sequence[EnvoyFilter]:
    """Those for the proxies of a gateway, in order."""
    places = dict.fromkeys((settings.root_namespace, proxies.namespace))
    near = (each for place in places for each in snapshot.objects_in(EnvoyFilter, place))
    return _sort(settings, (each for each in near if selects(settings, each, proxies)))


def find_for_all(snapshot: Snapshot, settings: MeshSettings) -> Sequence[EnvoyFilter]:
    """Those for every proxy, in order."""
    given = snapshot.objects_in(EnvoyFilter, settings.root_namespace)
    return _sort(settings, (each for each in given if is_for_all(settings, each)))


def sort_filters(snapshot: Snapshot, settings: MeshSettings) -> Sequence[EnvoyFilter]:
    """All there are, in order."""
    return _sort(settings, snapshot.objects(EnvoyFilter))


def _sort(settings: MeshSettings, given: Iterator[EnvoyFilter]) -> Sequence[EnvoyFilter]:
    return sorted(given, key=lambda each: (each.spec.priority, each.namespace != settings.root_namespace, each.age_key))


def find_assumed(snapshot: Snapshot, given: EnvoyFilter) -> set[Ingress]:
    """The ingress gateways that it is for, if there are such."""
    return set() if given.spec.target_refs else assume_ingresses(snapshot, given.namespace, _find_labels(given))


def is_for(patch: ConfigPatch, side: Side) -> bool:
    """Whether a patch is for resources of that side."""
    return patch.match.context in side.value


def find_idle(snapshot: Snapshot, settings: MeshSettings, given: EnvoyFilter) -> dict[int, str]:
    """The patches that reach no proxy, by their index, each with what to do about it."""
    missed = _explain_missed(snapshot, settings, given)
    for_all = is_for_all(settings, given)
    found = {}
    for index, patch in enumerate(given.spec.config_patches):
        if why := _explain(patch, missed, for_all):
            found[index] = why
    return found


def _explain(patch: ConfigPatch, missed: str, for_all: bool) -> str:
    if patch.match.context == "SIDECAR_INBOUND":
        advice = "write context: GATEWAY to patch what Gateways serve"
        return f"what comes into pods passes no Envoy here; {advice}{'; ' if missed else ''}{missed}"
    if patch.apply_to == "CLUSTER" and not patch.adds_resource:
        return "" if for_all else "all proxies share a service's cluster: patch it in the root namespace"
    if patch.match.context == "SIDECAR_OUTBOUND":
        advice = "patch them in the root namespace, without workloadSelector and targetRefs"
        return "" if for_all else f"all sidecars are told the same: {advice}"
    return "" if for_all and is_for(patch, Side.SIDECAR) else missed


def _explain_missed(snapshot: Snapshot, settings: MeshSettings, given: EnvoyFilter) -> str:
    """Why it is for the proxies of no gateway, with how to reach one; empty if it is for some."""
    assumed = map(describe_ingress, find_assumed(snapshot, given))
    if any(selects(settings, given, each) for each in (*list_gateways(snapshot), *assumed)):
        return ""
    if any(selects(settings, given, each) for each in list_waypoints(snapshot)):
        return "only waypoints are selected, and these are not patched"
    return f"no Gateway of ours is selected; {_advise(given)}"


def _advise(given: EnvoyFilter) -> str:
    if given.spec.target_refs:
        return "correct targetRefs, which name Gateways of the same namespace"
    if _has_choice(given):
        return "give the Gateway these labels, or write targetRefs in its namespace instead of workloadSelector"
    return f"write it in the namespace of the Gateway, instead of {given.namespace}"
