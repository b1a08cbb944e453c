"""EnvoyFilters that do nothing, or too much."""

from collections.abc import Iterator

from controller.analysis.findings import Finding
from controller.analysis.given import Given
from controller.kinds.envoy_filter import EnvoyFilter
from controller.registry.envoy_filters import find_assumed, find_idle


def check_envoy_filters(given: Given) -> Iterator[Finding]:
    """Patches that reach no proxy of ours."""
    for each in given.snapshot.objects(EnvoyFilter):
        for index, why in find_idle(given.snapshot, given.settings, each).items():
            is_context = each.spec.config_patches[index].match.context.startswith("SIDECAR")
            path = ("spec", "configPatches", index, *(("match", "context") if is_context else ()))
            yield Finding("envoy-filter-idle", each.key, path, f"reaches no proxy: {why}")


def check_patches(given: Given) -> Iterator[Finding]:
    """Patches that match nothing, and filters that spoil what they patch. It builds all that proxies would be told."""
    filters = list(given.snapshot.objects(EnvoyFilter))
    if not filters:
        return
    from controller.routing.publication import Routing  # Envoy's API alone is 20 MiB

    routing = Routing(given.settings)
    routing.build(given.snapshot)
    for assumed in sorted({ingress for each in filters for ingress in find_assumed(given.snapshot, each)}):
        routing.open(given.snapshot, assumed)
    faults, touching = routing.patches.faults, routing.patches.touching
    for each in filters:
        if each.key in faults:
            yield Finding("envoy-filter-breaks", each.key, ("spec", "configPatches"), faults[each.key])
    if faults:
        return  # what is spoilt is not patched any further
    for each in filters:
        idle = find_idle(given.snapshot, given.settings, each)
        for index, patch in enumerate(each.spec.config_patches):
            if index not in idle and (each.key, index) not in touching:
                message = f"no {patch.apply_to} of the proxies that it reaches is matched"
                yield Finding("envoy-patch-matches-nothing", each.key, ("spec", "configPatches", index), message)
