"""Where traffic to service addresses goes: decided from services and ready pods. What kube-proxy knows; no effects."""

from collections.abc import Iterable
from dataclasses import dataclass

from ambit.lab.addresses import Address
from ambit.lab.pods import Pod
from ambit.lab.services import Service
from controller.kinds import core


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """A pod's address and port."""

    address: Address
    port: int


@dataclass(frozen=True, slots=True)
class ServiceRoute:
    """One service address and port, and the endpoints (at least one, of the same family) to choose from."""

    address: Address
    port: int
    protocol: str
    endpoints: tuple[Endpoint, ...]


def build_service_routes(services: Iterable[tuple[Service, Iterable[Pod]]]) -> tuple[ServiceRoute, ...]:
    """The routes of all services with their selected, ready pods; a port without endpoints has no route."""
    routes = []
    for service, pods in services:
        pods = list(pods)
        for port in service.value.spec.ports or ():
            for address in service.addresses:
                endpoints = tuple(endpoint for pod in pods for endpoint in _endpoints(pod, port, address.version))
                if endpoints and port.protocol in ("TCP", "UDP"):
                    routes.append(ServiceRoute(address, port.port, port.protocol, endpoints))
    return tuple(routes)


def _endpoints(pod: Pod, port: core.ServicePort, family: int) -> list[Endpoint]:
    number = _target_number(pod, port)
    if number is None:
        return []
    return [Endpoint(address, number) for address in pod.sandbox.addresses if address.version == family]


def _target_number(pod: Pod, port: core.ServicePort) -> int | None:
    """The pod's port that a service port means; None when it names one that the pod does not declare."""
    target = port.target_port if port.target_port is not None else port.port
    if isinstance(target, int):
        return target
    declared = [each for container in pod.value.spec.containers for each in container.ports or ()]
    return next((each.container_port for each in declared if each.name == target), None)
