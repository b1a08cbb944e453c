"""The ports of Gateways and of ingress gateways: their listeners, and the routes that these name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from controller.kinds.gateway_api import Gateway
from controller.kinds.virtual_service import VirtualService
from controller.registry import ingress_ports, request_policies, telemetry, virtual_services
from controller.registry.attachment import attach, find_gateway, is_ours
from controller.registry.backend_tls import secure_chains
from controller.registry.delegates import list_rules
from controller.registry.envoy_filters import Side, find_for_proxies
from controller.registry.gateway_proxies import GatewayProxies, describe_gateway, describe_ingress
from controller.registry.gateways import Attached, Chain, RequestChain, build_ports, find_chain_targets
from controller.registry.http import Route, Target
from controller.registry.ingress import BoundRoutes
from controller.registry.names import (
    Place,
    name_gateway,
    name_gateway_port,
    name_gateway_routes,
    name_ingress_port,
    name_ingress_routes,
)
from controller.registry.proxies import Ingress
from controller.registry.request_policies import NO_POLICIES, RequestPolicies
from controller.routing.authorizers import find_authorizers, list_targets
from controller.routing.index import ResourceName, RouteIndex
from controller.routing.patched import At, PatchedResources
from controller.routing.update import Update
from controller.serve.resources import LISTENER_TYPE, ROUTE_TYPE
from controller.translate.access_logs import add_audit_logs, set_access_logs
from controller.translate.gateway_ports import translate_chains
from controller.translate.routes import translate_hosts


class GatewayPorts:
    """Builds the ports. Takes over in the index what each gateway's proxies have, and where they send requests."""

    def __init__(self, update: Update, index: RouteIndex, patched: PatchedResources) -> None:
        self._update = update
        self._new = update.new
        self._settings = update.settings
        self._ingresses = update.ingresses
        self._destinations = update.destinations
        self._index = index
        self._patched = patched

    def build_gateway(self, place: Place) -> set[Target]:
        """Build the ports of a Gateway; gives the targets that its proxies have newly or no more."""
        gateway = self._new.find(Gateway, *place)
        proxies = GatewayProxies(place[0], {}, name_gateway(*place), place[1])
        ports: dict[int, tuple[Chain, ...]] = {}
        held = NO_POLICIES
        if gateway is not None and is_ours(self._new, gateway):
            proxies = describe_gateway(gateway)
            built = build_ports(self._new, gateway, self._find_attached(gateway))
            ports = {port: self._secure(chains) for port, chains in built.items()}
            held = self._find_policies(proxies, gateway)

        def name(port: int, listener: str) -> str:
            return name_gateway_routes(*place, port, listener) if listener else name_gateway_port(*place, port)

        return self._put_ports(proxies, ports, name, held)

    def build_ingress(self, reader: Ingress) -> set[Target]:
        """Build those of an ingress gateway, or remove them where it is not open; gives the same."""
        ports: dict[int, tuple[Chain, ...]] = {}
        if reader in self._ingresses:
            bound = BoundRoutes(self._find_bound, self._build_bound_routes, self._destinations.build_finder)
            ports = ingress_ports.build_ports(self._new, self._settings, reader, bound)

        def name(port: int, server: str) -> str:
            return name_ingress_routes(reader, port, server) if server else name_ingress_port(reader, port)

        proxies = describe_ingress(reader)
        held = self._find_policies(proxies) if ports else NO_POLICIES
        return self._put_ports(proxies, ports, name, held)

    def _find_policies(self, proxies: GatewayProxies, gateway: Gateway | None = None) -> RequestPolicies:
        found = request_policies.find_gateway_policies(self._new, self._settings, proxies, gateway)
        return find_authorizers(self._update, found)

    def _find_bound(self, gateway: Place) -> Iterator[VirtualService]:
        for _, *place in self._index.routes_of_istio_gateway(gateway):
            if (service := self._new.find(VirtualService, *place)) is not None:
                yield service

    def _build_bound_routes(self, service: VirtualService, port: int, gateway: Place) -> Iterator[Route]:
        for rule in list_rules(service, self._update.find_virtual_service):
            find_target = self._destinations.build_finder(rule.namespace, port)
            yield from virtual_services.build_routes(rule, port, find_target, gateway)

    def _find_attached(self, gateway: Gateway) -> Iterator[Attached]:
        for key, state in self._index.routes_of_gateway((gateway.namespace, gateway.name)):
            route = self._update.find_route(key)
            hosts: dict[str, tuple[str, ...]] = {}
            for reference in (route.spec.parent_refs or ()) if route else ():
                if route and find_gateway(reference, route.namespace) == (gateway.namespace, gateway.name):
                    hosts.update(attach(self._new, route, reference, gateway).listeners)
            age = route.age_key if route else ()
            yield Attached(hosts, state.routes, age, state.destinations)

    def _put_ports(
        self,
        proxies: GatewayProxies,
        ports: Mapping[int, tuple[Chain, ...]],
        name: Callable[[int, str], str],
        held: RequestPolicies,
    ) -> set[Target]:
        """Take over the ports of a gateway's proxies; gives the targets that they have newly or no more.

        `name` gives the resource name of a port, or of the routes of one of its listeners.
        """
        filters = find_for_proxies(self._new, self._settings, proxies) if ports else ()
        made: set[ResourceName] = set()
        for port, chains in ports.items():
            at = At(name(port, ""), port, filters, Side.GATEWAY)
            made |= set(self._put_port(proxies, at, chains, partial(name, port), held))
        targets = {target for chains in ports.values() for target in find_chain_targets(chains)}
        targets |= self._patched.find_references(filters, Side.GATEWAY)
        targets |= set(list_targets(held)) if ports else set()
        gone, changed = self._index.put_reader(proxies.reader, made, targets)
        for type_url, each in gone:
            self._patched.remove(type_url, each)
        return changed

    def _put_port(
        self,
        proxies: GatewayProxies,
        at: At,
        chains: Sequence[Chain],
        name: Callable[[str], str],
        held: RequestPolicies,
    ) -> Iterator[ResourceName]:
        """The listener of a port, and the routes that it names; gives what they are called."""
        listener = translate_chains(at.name, at.port, chains, lambda chain: name(chain.listener), held)
        given = telemetry.find_for_proxies(self._new, self._settings, proxies)
        set_access_logs(listener, telemetry.read_logging(given))
        if held.has_audits:
            add_audit_logs(listener)
        self._patched.put_listener(at, listener, (proxies.reader,))
        yield LISTENER_TYPE, at.name
        for chain in chains:
            if isinstance(chain, RequestChain) and chain.secrets != ():
                routes = name(chain.listener)
                table = translate_hosts(routes, chain.hosts, self._destinations.find_hashing)
                self._patched.put_routes(replace(at, name=routes), table)
                yield ROUTE_TYPE, routes

    def _secure(self, chains: Sequence[Chain]) -> tuple[Chain, ...]:
        """Speak TLS to what has a policy for it."""
        targets = find_chain_targets(chains)
        return secure_chains(chains, {each for each in targets if self._destinations.find_backend_tls(each)})
