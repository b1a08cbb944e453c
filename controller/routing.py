"""From a change of objects to the L7 resources that it changes: what is touched is built again, nothing else.

    object that changed                  what depends on it
    Gateway                              its ports, their routes, and which clusters its proxies have
    GatewayClass, Namespace              the same, of all Gateways (whose they are, which namespaces may attach)
    HTTPRoute                            the Gateways and Services that it attaches to, now and before
    ReferenceGrant                       the routes that point into its namespace from elsewhere
    Service                              its clusters, endpoints and routes, and the routes that point at it
    Pod, WorkloadEntry, EndpointSlice    the endpoints of the Services that it serves, now and before
    Node                                 the endpoints of the Services that its pods serve

Unlike the resources of the L4 mesh these depend on each other over several steps, so that what depends on what is kept
from one change to the next. `tests/unit/controller/test_routing.py` holds it against building everything anew.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from controller.kinds.core import Namespace, Node, Pod, Service
from controller.kinds.discovery import EndpointSlice
from controller.kinds.gateway_api import BackendReference, Gateway, GatewayClass, ReferenceGrant
from controller.kinds.http_route import HTTPRoute
from controller.kinds.meta import ObjectKey
from controller.kinds.networking import WorkloadEntry
from controller.registry import services
from controller.registry.attachment import attach, find_gateway, find_parent_service, is_ours, resolve
from controller.registry.entries import EntryHosts
from controller.registry.gateways import Attached, build_ports
from controller.registry.http import Destination, Forward, RequestMatch, Route, Target, VirtualHost, find_targets
from controller.registry.http_routes import Ranked, build_routes, sort_routes
from controller.registry.members import Members
from controller.registry.names import (
    MeshSettings,
    name_gateway,
    name_gateway_port,
    name_host,
    name_service_port,
    name_service_routes,
)
from controller.serve.resources import (
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    LISTENER_TYPE,
    ROUTE_TYPE,
    ChangeGatherer,
    ResourceChanges,
    build_resource,
)
from controller.snapshot import Snapshot
from controller.translate.clusters import ServingEndpoint, translate_cluster, translate_endpoints
from controller.translate.listeners import translate_api_listener, translate_gateway_port
from controller.translate.routes import Dialect, translate_hosts

Place = tuple[str, str]
"""Namespace and name of an object whose kind is known."""


@dataclass(frozen=True, slots=True)
class _RouteState:
    """What is known of an HTTPRoute: its routes, what it hangs on and what they point at."""

    routes: tuple[Ranked, ...]
    gateways: frozenset[Place]
    services: frozenset[Place]
    backends: frozenset[Place]


@dataclass(slots=True)
class _Dirty:
    """What must be built again."""

    routes: set[Place] = field(default_factory=set)
    gateways: set[Place] = field(default_factory=set)
    services: set[Place] = field(default_factory=set)
    endpoints: set[Place] = field(default_factory=set)
    clusters: set[Target] = field(default_factory=set)


class Routing:
    """The L7 resources of a mesh, and what they were made from. One owner."""

    def __init__(self, settings: MeshSettings) -> None:
        self._settings = settings
        self._routes: dict[Place, _RouteState] = {}
        self._by_gateway: dict[Place, set[Place]] = {}
        self._by_service: dict[Place, set[Place]] = {}
        self._by_backend: dict[Place, set[Place]] = {}
        self._gateway_ports: dict[Place, set[int]] = {}
        self._gateway_targets: dict[Place, set[Target]] = {}
        self._readers: dict[Target, set[Place]] = {}
        self._service_ports: dict[Place, set[int]] = {}

    def build(self, snapshot: Snapshot) -> Mapping[str, ResourceChanges]:
        """Everything, from nothing."""
        return self.update(Snapshot(), snapshot, snapshot.keys())

    def update(self, old: Snapshot, new: Snapshot, keys: Iterable[ObjectKey]) -> Mapping[str, ResourceChanges]:
        """The resources that the change of the objects `keys` from `old` to `new` may have changed, by type URL."""
        return _Update(self, old, new, self._settings).run(list(keys))

    def find_touched_routes(self, keys: Iterable[ObjectKey]) -> Iterator[Place]:
        """The HTTPRoutes that must be read again when these objects change."""
        for key in keys:
            place = (key.namespace, key.name)
            match key.kind:
                case HTTPRoute.__name__:
                    yield place
                case Service.__name__:
                    yield from self._by_backend.get(place, ())
                case ReferenceGrant.__name__:
                    for (namespace, _), routes in self._by_backend.items():
                        yield from (route for route in routes if namespace == key.namespace != route[0])

    def put_route(self, place: Place, state: _RouteState | None) -> _RouteState | None:
        """Take over what is known of an HTTPRoute; gives what was known before."""
        before = self._routes.pop(place, None)
        indexes = (
            (self._by_gateway, "gateways"),
            (self._by_service, "services"),
            (self._by_backend, "backends"),
        )
        for index, name in indexes:
            for each in getattr(before, name) if before else ():
                index[each].discard(place)
                if not index[each]:
                    del index[each]
            for each in getattr(state, name) if state else ():
                index.setdefault(each, set()).add(place)
        if state is not None:
            self._routes[place] = state
        return before

    def routes_of_gateway(self, place: Place) -> Iterator[tuple[Place, _RouteState]]:
        return ((each, self._routes[each]) for each in sorted(self._by_gateway.get(place, ())))

    def routes_of_service(self, place: Place) -> Iterator[tuple[Place, _RouteState]]:
        return ((each, self._routes[each]) for each in sorted(self._by_service.get(place, ())))

    def put_gateway(self, place: Place, ports: set[int], targets: set[Target]) -> tuple[set[int], set[Target]]:
        """Take over which ports a Gateway has and what it sends to; gives the ports and targets that it has no more,
        or has newly."""
        old_ports, old_targets = self._gateway_ports.pop(place, set()), self._gateway_targets.pop(place, set())
        if ports:
            self._gateway_ports[place], self._gateway_targets[place] = ports, targets
        for target in old_targets - targets:
            self._readers[target].discard(place)
            if not self._readers[target]:
                del self._readers[target]
        for target in targets - old_targets:
            self._readers.setdefault(target, set()).add(place)
        return old_ports - ports, old_targets ^ targets

    def readers_of(self, target: Target) -> tuple[str, ...]:
        """The names under which the Gateways find a target's cluster that send to it."""
        return tuple(name_gateway(*place) for place in sorted(self._readers.get(target, ())))

    def put_service(self, place: Place, ports: set[int]) -> set[int]:
        """Take over which ports a Service has; gives those that it has no more."""
        before = self._service_ports.pop(place, set())
        if ports:
            self._service_ports[place] = ports
        return before - ports


class _Update:
    """One change."""

    def __init__(self, state: Routing, old: Snapshot, new: Snapshot, settings: MeshSettings) -> None:
        self._state = state
        self._old = old
        self._new = new
        self._settings = settings
        self._members = Members(new, settings, EntryHosts(new, settings))
        self._changes = {
            type_url: ChangeGatherer() for type_url in (CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE)
        }
        self._dirty = _Dirty()

    def run(self, keys: list[ObjectKey]) -> Mapping[str, ResourceChanges]:
        self._dirty.routes.update(self._state.find_touched_routes(keys))
        for key in keys:
            self._note(key)
        for place in sorted(self._dirty.routes):
            after = self._read_route(place)
            before = self._state.put_route(place, after)
            for state in filter(None, (before, after)):
                self._dirty.gateways |= state.gateways
                self._dirty.services |= state.services
        for place in sorted(self._dirty.gateways):
            self._build_gateway(place)
        for place in sorted(self._dirty.services):
            self._build_service(place)
        for place in sorted(self._dirty.services | self._dirty.endpoints):
            self._build_endpoints(place)
        for target in sorted(self._dirty.clusters):
            self._build_cluster(target)
        return {type_url: changes.finish() for type_url, changes in self._changes.items()}

    def _note(self, key: ObjectKey) -> None:
        place = (key.namespace, key.name)
        match key.kind:
            case Gateway.__name__:
                self._dirty.gateways.add(place)
            case GatewayClass.__name__ | Namespace.__name__:
                self._dirty.gateways |= {(each.namespace, each.name) for each in self._new.objects(Gateway)}
                if key.kind == Namespace.__name__:
                    services_there = self._new.objects_in(Service, key.name)
                    self._dirty.services |= {(each.namespace, each.name) for each in services_there}
            case Service.__name__:
                self._dirty.services.add(place)
            case EndpointSlice.__name__:
                for snapshot in (self._old, self._new):
                    if (part := snapshot.find(EndpointSlice, *place)) is not None and part.service:
                        self._dirty.endpoints.add((key.namespace, part.service))
            case Pod.__name__:
                for snapshot in (self._old, self._new):
                    if (pod := snapshot.find(Pod, *place)) is not None:
                        self._dirty.endpoints |= set(_find_services(snapshot, key.namespace, key.name, pod.labels))
            case WorkloadEntry.__name__:
                for snapshot in (self._old, self._new):
                    if (entry := snapshot.find(WorkloadEntry, *place)) is not None:
                        self._dirty.endpoints |= set(_find_services(snapshot, key.namespace, "", entry.all_labels))
            case Node.__name__:
                for pod in self._new.objects(Pod):
                    if pod.spec.node_name == key.name:
                        self._dirty.endpoints |= set(_find_services(self._new, pod.namespace, pod.name, pod.labels))

    def _read_route(self, place: Place) -> _RouteState | None:
        route = self._new.find(HTTPRoute, *place)
        if route is None:
            return None
        backends: set[Place] = set()

        def find_target(namespace: str, reference: BackendReference) -> Target | None:
            backends.add((reference.namespace or namespace, reference.name))
            return resolve(self._new, self._settings, namespace, reference).target

        routes = tuple(build_routes(route, find_target))
        parents = route.spec.parent_refs or ()
        gateways = filter(None, (find_gateway(each, route.namespace) for each in parents))
        parent_services = filter(None, (find_parent_service(each, route.namespace) for each in parents))
        return _RouteState(routes, frozenset(gateways), frozenset(parent_services), frozenset(backends))

    def _build_gateway(self, place: Place) -> None:
        gateway = self._new.find(Gateway, *place)
        ports: dict[int, tuple[VirtualHost, ...]] = {}
        if gateway is not None and is_ours(self._new, gateway):
            ports = build_ports(gateway, self._find_attached(gateway))
        targets = {target for hosts in ports.values() for host in hosts for target in find_targets(host.routes)}
        gone, changed = self._state.put_gateway(place, set(ports), targets)
        self._dirty.clusters |= changed
        scope = (name_gateway(*place),)
        for port in gone:
            for type_url in (LISTENER_TYPE, ROUTE_TYPE):
                self._changes[type_url].put(name_gateway_port(*place, port), None)
        for port, hosts in ports.items():
            name = name_gateway_port(*place, port)
            listener = build_resource(LISTENER_TYPE, name, translate_gateway_port(name, port), keys=scope)
            self._changes[LISTENER_TYPE].put(name, listener)
            self._changes[ROUTE_TYPE].put(name, build_resource(ROUTE_TYPE, name, translate_hosts(name, hosts)))

    def _find_attached(self, gateway: Gateway) -> Iterator[Attached]:
        for place, state in self._state.routes_of_gateway((gateway.namespace, gateway.name)):
            route = self._new.find(HTTPRoute, *place)
            hosts: dict[str, tuple[str, ...]] = {}
            for reference in (route.spec.parent_refs or ()) if route else ():
                if route and find_gateway(reference, route.namespace) == (gateway.namespace, gateway.name):
                    hosts.update(attach(self._new, route, reference, gateway).listeners)
            yield Attached(hosts, state.routes)

    def _build_service(self, place: Place) -> None:
        service = self._members.find_service(*place)
        ports = {port.number for port in service.ports} if service else set()
        gone = self._state.put_service(place, ports)
        host = name_host(self._settings, *place)
        for port in gone:
            target = Target(place[0], host, port)
            self._dirty.clusters.add(target)
            self._changes[ENDPOINT_TYPE].put(target.cluster, None)
            self._changes[LISTENER_TYPE].put(name_service_port(host, port), None)
            self._changes[ROUTE_TYPE].put(name_service_routes(host, port), None)
        for port in ports:
            target = Target(place[0], host, port)
            self._dirty.clusters.add(target)
            name, routes = name_service_port(host, port), name_service_routes(host, port)
            listener = build_resource(LISTENER_TYPE, name, translate_api_listener(name, routes))
            self._changes[LISTENER_TYPE].put(name, listener)
            table = translate_hosts(
                routes, [VirtualHost("all", ("*",), self._find_routes(place, target))], Dialect.GRPC
            )
            self._changes[ROUTE_TYPE].put(routes, build_resource(ROUTE_TYPE, routes, table))

    def _find_routes(self, place: Place, target: Target) -> tuple[Route, ...]:
        """The routes of a Service's port: those that attach to it, else one that leads to its endpoints."""
        attached: list[Ranked] = []
        is_attached = False
        for owner, state in self._state.routes_of_service(place):
            route = self._new.find(HTTPRoute, *owner)
            for reference in (route.spec.parent_refs or ()) if route else ():
                is_meant = route and find_parent_service(reference, route.namespace) == place
                if is_meant and owner[0] == place[0] and reference.port in (None, target.port):
                    is_attached = True
                    attached.extend(state.routes)
                    break
        if is_attached:
            return sort_routes(attached)
        return (Route("default", RequestMatch(), Forward((Destination(target),))),)

    def _build_endpoints(self, place: Place) -> None:
        service = self._members.find_service(*place)
        if service is None:
            return
        serving = list(self._members.find_serving(*place))
        for port in service.ports:
            target = Target(place[0], service.hostname, port.number)
            endpoints = [
                ServingEndpoint(address, found.target_port, each.locality, each.is_healthy, each.weight)
                for each in serving
                if each.is_healthy or service.serves_unready
                for endpoint in each.endpoints
                if endpoint.service.resource_name == service.resource_name
                for found in endpoint.ports
                if found.service_port == port.number
                for address in each.addresses[:1]
            ]
            message = translate_endpoints(target, endpoints)
            self._changes[ENDPOINT_TYPE].put(target.cluster, build_resource(ENDPOINT_TYPE, target.cluster, message))

    def _build_cluster(self, target: Target) -> None:
        name = target.host.removesuffix(f".{target.namespace}.svc.{self._settings.domain_suffix}")
        service = self._members.find_service(target.namespace, name)
        port = next((each for each in service.ports if each.number == target.port), None) if service else None
        if port is None:
            self._changes[CLUSTER_TYPE].put(target.cluster, None)
            return
        message = translate_cluster(target, port.protocol)
        keys = self._state.readers_of(target)
        self._changes[CLUSTER_TYPE].put(
            target.cluster, build_resource(CLUSTER_TYPE, target.cluster, message, keys=keys)
        )


def _find_services(snapshot: Snapshot, namespace: str, pod: str, labels: Mapping[str, str]) -> Iterator[Place]:
    """The Services that a workload with `labels`, or the pod of that name, serves."""
    for service in snapshot.objects_in(Service, namespace):
        if services.selects(service, labels):
            yield namespace, service.name
        elif not service.spec.selector and pod:
            for part in snapshot.objects_in(EndpointSlice, namespace):
                if part.service == service.name and any(endpoint.pod == pod for _, endpoint in part.servers):
                    yield namespace, service.name
