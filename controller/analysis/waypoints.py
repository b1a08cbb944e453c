"""Waypoints that are asked for and cannot be had: what asks for one of these is not reached at all."""

from collections.abc import Iterator, Mapping

from controller.analysis.findings import Finding
from controller.analysis.given import Given
from controller.kinds.core import Namespace, Pod, Service
from controller.kinds.gateway_api import Gateway
from controller.kinds.meta import ObjectKey
from controller.kinds.networking import ServiceEntry, WorkloadEntry
from controller.registry.attachment import is_ours
from controller.registry.bindings import Traffic
from controller.registry.services import is_served
from controller.registry.waypoints import USE_LABEL, Waypoints, find_listener


def check_waypoints(given: Given) -> Iterator[Finding]:
    """Labels that name what is no waypoint for them, and waypoints that nobody finds."""
    waypoints = Waypoints(given.snapshot, given.settings)
    for key, labels, traffic in _list_labelled(given):
        if USE_LABEL not in labels:
            continue
        # A Namespace's label counts for what is in it.
        place, own = (key.namespace, labels) if key.namespace else (key.name, {})
        binding = waypoints.find_binding(place, key.name if key.namespace else "", own, traffic)
        if binding and not binding.is_accepted:
            message = f"{binding.message}: connections are refused"
            yield Finding("waypoint-unusable", key, ("metadata", "labels", USE_LABEL), message)
    for gateway in given.snapshot.objects(Gateway):
        if find_listener(gateway) is not None and is_ours(given.snapshot, gateway):
            yield from _check_service(given, gateway)


def _list_labelled(given: Given) -> Iterator[tuple[ObjectKey, Mapping[str, str], Traffic]]:
    for owner in given.snapshot.objects(Namespace):
        yield owner.key, owner.labels, Traffic.SERVICE
    for service in given.snapshot.objects(Service):
        yield service.key, service.labels, Traffic.SERVICE
    for entry in given.snapshot.objects(ServiceEntry):
        yield entry.key, entry.labels, Traffic.SERVICE
    for pod in given.snapshot.objects(Pod):
        yield pod.key, pod.labels, Traffic.WORKLOAD
    for machine in given.snapshot.objects(WorkloadEntry):
        yield machine.key, machine.all_labels, Traffic.WORKLOAD


def _check_service(given: Given, gateway: Gateway) -> Iterator[Finding]:
    service = given.snapshot.find(Service, gateway.namespace, gateway.name)
    if not gateway.spec.addresses and (service is None or not is_served(service)):
        message = f"no Service is called {gateway.namespace}/{gateway.name}, by which its clients would find it"
        yield Finding("waypoint-without-service", gateway.key, ("metadata", "name"), message)
