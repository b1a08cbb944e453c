"""VirtualServices that leave rules to others which are not there, and those to whom nobody leaves any."""

from collections.abc import Iterator

from controller.analysis.findings import Finding
from controller.analysis.given import Given
from controller.kinds.virtual_service import HttpRoute, VirtualService
from controller.registry.delegates import find_delegate, list_merged, place_of


def check_delegates(given: Given) -> Iterator[Finding]:
    """Both ends of each delegation."""
    named: set[tuple[str, str]] = set()
    for service in given.snapshot.objects(VirtualService):
        for number, rule in enumerate(service.spec.http or ()):
            if rule.delegate:
                named.add(place_of(service, rule.delegate))
                yield from _check_rule(given, service, number, rule)
    for service in given.snapshot.objects(VirtualService):
        if not service.spec.hosts and (service.namespace, service.name) not in named:
            message = "it has no hosts, and no VirtualService delegates to it: it is for nobody"
            yield Finding("delegate-unused", service.key, ("spec",), message)


def _check_rule(given: Given, service: VirtualService, number: int, rule: HttpRoute) -> Iterator[Finding]:
    if rule.delegate is None:
        return
    path = ("spec", "http", number, "delegate")

    def find(namespace: str, name: str) -> VirtualService | None:
        return given.snapshot.find(VirtualService, namespace, name)

    other = find_delegate(service, rule.delegate, find)
    if other is None:
        namespace, name = place_of(service, rule.delegate)
        message = f"there is no VirtualService {namespace}/{name} without hosts that is seen; such requests get 503"
        yield Finding("delegate-missing", service.key, path, message)
        return
    for index, (each, merged) in enumerate(list_merged(service, rule, other)):
        if merged is None:
            message = (
                f"rule {each.name or index} of {other.key} asks for more than this match passes on: it does not serve"
            )
            yield Finding("delegate-conflict", service.key, path, message)
