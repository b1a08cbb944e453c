"""Istio's Gateways, and VirtualServices that are bound to them: what serves nobody, and what another one hides."""

from collections.abc import Iterator, Sequence
from functools import partial

from controller.analysis.findings import Finding
from controller.analysis.given import Given
from controller.kinds.gateway_api import Gateway
from controller.kinds.istio_gateway import IstioGateway
from controller.kinds.meta import ObjectKey
from controller.kinds.virtual_service import VirtualService
from controller.registry.delegates import list_rules
from controller.registry.ingress import is_for_any, list_bound_hosts
from controller.registry.virtual_services import build_routes, find_gateways


def check_bindings(given: Given) -> Iterator[Finding]:
    """VirtualServices bound to a Gateway that is not there, or that has none of their hosts."""
    for service in given.snapshot.objects(VirtualService):
        for place in sorted(find_gateways(service)):
            gateway = given.snapshot.find(IstioGateway, *place)
            if gateway is None:
                message = _describe_missing(given, place)
                yield Finding("virtual-service-gateway-unknown", service.key, ("spec", "gateways"), message)
            elif not any(list_bound_hosts(given.settings, gateway, each, service) for each in gateway.spec.servers):
                message = f"no server of {gateway.key} has one of these hosts for namespace {service.namespace}"
                yield Finding("virtual-service-host-not-at-gateway", service.key, ("spec", "hosts"), message)


def _describe_missing(given: Given, place: tuple[str, str]) -> str:
    name = "/".join(place)
    if given.snapshot.find(Gateway, *place) is not None:
        return f"Gateway {name} is Gateway API's, to which only its own routes attach; there is no Istio Gateway {name}"
    return f"there is no Istio Gateway {name}"


def check_istio_gateways(given: Given) -> Iterator[Finding]:
    """Gateways without VirtualServices, and VirtualServices that an older one hides at a Gateway."""
    for gateway in given.snapshot.objects(IstioGateway):
        bound = sorted(_list_bound(given, gateway), key=lambda each: each.age_key)
        if not bound and not all(server.redirects_to_https for server in gateway.spec.servers):
            message = "no VirtualService is bound to it: requests get 404, and connections are closed"
            yield Finding("gateway-without-routes", gateway.key, ("spec",), message)
        for key, message in _find_hidden(given, gateway, bound).items():
            yield Finding("virtual-service-host-twice", key, ("spec", "hosts"), message)


def _list_bound(given: Given, gateway: IstioGateway) -> Iterator[VirtualService]:
    for service in given.snapshot.objects(VirtualService):
        if (gateway.namespace, gateway.name) in find_gateways(service):
            yield service


def _find_hidden(given: Given, gateway: IstioGateway, bound: Sequence[VirtualService]) -> dict[ObjectKey, str]:
    """Of those that take all requests for a host, those before which an older one does."""
    place = (gateway.namespace, gateway.name)
    hidden: dict[ObjectKey, str] = {}
    for server in (each for each in gateway.spec.servers if each.serves_requests):
        takers: dict[str, VirtualService] = {}
        for service in bound:
            rules = list_rules(service, partial(given.snapshot.find, VirtualService))
            routes = (each for rule in rules for each in build_routes(rule, server.port.number, lambda _: None, place))
            if not any(map(is_for_any, routes)):
                continue
            for host in list_bound_hosts(given.settings, gateway, server, service):
                older = takers.setdefault(host, service)
                if older is not service:
                    hidden[service.key] = f"all requests for {host} that no other match meets go to {older.key}"
    return hidden
