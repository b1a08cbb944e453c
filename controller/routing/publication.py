"""From a change of objects to the L7 resources that it changes: what is touched is built again, nothing else.

    object that changed                  what depends on it
    Gateway                              its ports, their routes, and which clusters its proxies have
    GatewayClass, Namespace              the same, of all Gateways (whose they are, which namespaces may attach)
    HTTPRoute, GRPCRoute, VirtualService the Gateways and Services that it attaches to, now and before
    DestinationRule                      the clusters and endpoints of its Service, and the routes that point at it
    ReferenceGrant                       the routes that point into its namespace from elsewhere
    Service                              its clusters, endpoints and routes, and the routes that point at it
    Pod, WorkloadEntry, EndpointSlice    the endpoints of the Services that it serves, now and before
    Node                                 the endpoints of the Services that its pods serve
    Sidecar                              the Services that its namespace's sidecars are told of newly or no more
    Telemetry                            the Gateways that it selects, now and before; one for the whole mesh all that
                                         sidecars listen for
    EnvoyFilter                          the Gateways that it selects, now and before; one for the whole mesh all
                                         Services, where it patches what sidecars do, and all clusters, where those

Unlike the resources of the L4 mesh these depend on each other over several steps, so that what depends on what is kept
from one change to the next. `tests/unit/controller/test_routing.py` holds it against building everything anew.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from envoy.config.route.v3 import route_pb2

from controller.kinds.core import Namespace, Node, Pod, Service
from controller.kinds.destination_rule import DestinationRule
from controller.kinds.discovery import EndpointSlice
from controller.kinds.envoy_filter import EnvoyFilter
from controller.kinds.gateway_api import BackendReference, Gateway, GatewayClass, ReferenceGrant
from controller.kinds.grpc_route import GRPCRoute
from controller.kinds.http_route import HTTPRoute
from controller.kinds.meta import ObjectKey
from controller.kinds.networking import WorkloadEntry
from controller.kinds.sidecar import Sidecar
from controller.kinds.telemetry import Telemetry
from controller.kinds.virtual_service import Destination as VirtualDestination
from controller.kinds.virtual_service import VirtualService
from controller.registry import grpc_routes, policies, services, telemetry, virtual_services
from controller.registry.attachment import GatewayRoute, attach, find_gateway, find_parent_service, is_ours, resolve
from controller.registry.destinations import ClusterPolicy, Rules, find_rules
from controller.registry.entries import EntryHosts
from controller.registry.envoy_filters import Side, find_for_gateway, is_for, is_for_all, selects
from controller.registry.gateways import Attached, build_ports
from controller.registry.http import Destination, Forward, RequestMatch, Route, Target, VirtualHost, find_targets
from controller.registry.http_routes import Ranked, build_routes, sort_routes
from controller.registry.members import Members
from controller.registry.names import (
    MeshSettings,
    find_service_name,
    name_gateway,
    name_gateway_port,
    name_host,
    name_service_port,
    name_service_routes,
    name_sidecar_port,
)
from controller.registry.sidecars import Visibility
from controller.routing.index import Place, RouteIndex, RouteKey, RouteState
from controller.routing.patched import At, PatchedResources
from controller.routing.patching import PatchRecord
from controller.serve.resources import (
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    LISTENER_TYPE,
    ROUTE_TYPE,
    ChangeGatherer,
    Resource,
    ResourceChanges,
    build_resource,
)
from controller.snapshot import Snapshot
from controller.translate.access_logs import set_access_logs
from controller.translate.clusters import (
    PASSTHROUGH,
    ServingEndpoint,
    build_passthrough,
    translate_cluster,
    translate_endpoints,
)
from controller.translate.listeners import (
    translate_api_listener,
    translate_gateway_port,
    translate_outbound,
    translate_service_port,
)
from controller.translate.routes import Dialect, translate_hosts

OUTBOUND = "sidecar/outbound"
"""The resource name of where a sidecar's redirect rules lead."""
_ADDING_KINDS = (EnvoyFilter.__name__, Gateway.__name__, GatewayClass.__name__, Sidecar.__name__)
"""On what it depends which resources EnvoyFilters add, and for whom."""


@dataclass(slots=True)
class _Dirty:
    """What must be built again."""

    routes: set[RouteKey] = field(default_factory=set)
    gateways: set[Place] = field(default_factory=set)
    services: set[Place] = field(default_factory=set)
    endpoints: set[Place] = field(default_factory=set)
    clusters: set[Target] = field(default_factory=set)


class Routing:
    """The L7 resources of a mesh, and what they were made from. One owner."""

    def __init__(self, settings: MeshSettings) -> None:
        self._settings = settings
        self._index = RouteIndex()
        self.patches = PatchRecord()
        """What EnvoyFilters do."""

    def build(self, snapshot: Snapshot) -> Mapping[str, ResourceChanges]:
        """Everything, from nothing."""
        built = dict(self.update(Snapshot(), snapshot, snapshot.keys()))
        for type_url, resource in _build_fixed(snapshot, self._settings):
            updated = {**built[type_url].updated, resource.name: resource}
            built[type_url] = ResourceChanges(updated, built[type_url].removed)
        return built

    def update(self, old: Snapshot, new: Snapshot, keys: Iterable[ObjectKey]) -> Mapping[str, ResourceChanges]:
        """The resources that the change of the objects `keys` from `old` to `new` may have changed, by type URL."""
        return _Update(self._index, self.patches, old, new, self._settings).run(list(keys))


class _Update:
    """One change."""

    def __init__(
        self, index: RouteIndex, patches: PatchRecord, old: Snapshot, new: Snapshot, settings: MeshSettings
    ) -> None:
        self._index = index
        self._old = old
        self._new = new
        self._settings = settings
        self._members = Members(new, settings, EntryHosts(new, settings))
        self._changes = {
            type_url: ChangeGatherer() for type_url in (CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE)
        }
        self._patched = PatchedResources(self._changes, patches, new, settings)
        self._dirty = _Dirty()
        self._rules: dict[Place, Rules] = {}
        self._visibility = Visibility(new, settings)
        self._sidecar_logging = telemetry.read_logging(telemetry.find_for_all(new, settings))

    def run(self, keys: list[ObjectKey]) -> Mapping[str, ResourceChanges]:
        for key in keys:
            self._note(key)
        for route in sorted(self._dirty.routes):
            after = self._read_route(route)
            before = self._index.put_route(route, after)
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
        if any(key.kind in _ADDING_KINDS for key in keys):
            self._patched.put_added()
        if any(key.kind in (Sidecar.__name__, Telemetry.__name__) for key in keys):
            for type_url, resource in _build_fixed(self._new, self._settings):
                self._changes[type_url].put(resource.name, resource)
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
            case HTTPRoute.__name__ | GRPCRoute.__name__ | VirtualService.__name__:
                self._dirty.routes.add((key.kind, *place))
            case EnvoyFilter.__name__:
                self._note_filter(key)
            case Sidecar.__name__:
                self._note_sidecar(key.namespace)
            case Telemetry.__name__:
                self._note_telemetry(key)
            case ReferenceGrant.__name__:
                self._dirty.routes.update(self._index.routes_into(key.namespace))
            case DestinationRule.__name__:
                for snapshot in (self._old, self._new):
                    if (rule := snapshot.find(DestinationRule, *place)) is not None:
                        self._note_service(find_service_name(rule.spec.host, rule.namespace, self._settings))
            case Service.__name__:
                self._note_service(place)
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

    def _note_filter(self, key: ObjectKey) -> None:
        for snapshot in (self._old, self._new):
            given = snapshot.find(EnvoyFilter, key.namespace, key.name)
            if given is None:
                continue
            gateways = (each for each in self._new.objects(Gateway) if selects(self._settings, given, each))
            self._dirty.gateways |= {(each.namespace, each.name) for each in gateways}
            if not is_for_all(self._settings, given):
                continue
            self._dirty.clusters |= self._patched.find_references([given], Side.SIDECAR)
            changing = [each for each in given.spec.config_patches if not each.adds_resource]
            if any(is_for(each, Side.SIDECAR) and each.apply_to != "CLUSTER" for each in changing):
                self._dirty.services |= {(each.namespace, each.name) for each in self._new.objects(Service)}
            if any(each.apply_to == "CLUSTER" for each in changing):
                self._dirty.clusters |= self._index.all_targets()

    def _note_sidecar(self, namespace: str) -> None:
        before = Visibility(self._old, self._settings)
        for service in self._new.objects(Service):
            place = (service.namespace, service.name)
            host = name_host(self._settings, *place)
            if before.sees(namespace, place[0], host) != self._visibility.sees(namespace, place[0], host):
                self._dirty.services.add(place)
                self._dirty.clusters |= self._index.led_from(place)

    def _note_telemetry(self, key: ObjectKey) -> None:
        for snapshot in (self._old, self._new):
            given = snapshot.find(Telemetry, key.namespace, key.name)
            if given is None:
                continue
            gateways = (each for each in self._new.objects(Gateway) if telemetry.selects(self._settings, given, each))
            self._dirty.gateways |= {(each.namespace, each.name) for each in gateways}
            if telemetry.is_for_all(self._settings, given):
                self._dirty.services |= {(each.namespace, each.name) for each in self._new.objects(Service)}

    def _note_service(self, place: Place | None) -> None:
        if place is not None:
            self._dirty.services.add(place)
            self._dirty.routes.update(self._index.routes_to(place))

    def _read_route(self, key: RouteKey) -> RouteState | None:
        if key[0] == VirtualService.__name__:
            return self._read_virtual_service(key[1:])
        route = self._find_route(key)
        if route is None:
            return None
        backends: set[Place] = set()

        def find_target(namespace: str, reference: BackendReference) -> Target | None:
            backends.add((reference.namespace or namespace, reference.name))
            return resolve(self._new, self._settings, route, reference).target

        if isinstance(route, GRPCRoute):
            routes = tuple(grpc_routes.build_routes(route, find_target))
        else:
            routes = tuple(build_routes(route, find_target))
        parents = route.spec.parent_refs or ()
        gateways = filter(None, (find_gateway(each, route.namespace) for each in parents))
        parent_services = filter(None, (find_parent_service(each, route.namespace) for each in parents))
        return RouteState(routes, frozenset(gateways), frozenset(parent_services), frozenset(backends))

    def _find_route(self, key: RouteKey) -> GatewayRoute | None:
        if key[0] == GRPCRoute.__name__:
            return self._new.find(GRPCRoute, *key[1:])
        return self._new.find(HTTPRoute, *key[1:])

    def _read_virtual_service(self, place: Place) -> RouteState | None:
        service = self._new.find(VirtualService, *place)
        if service is None:
            return None
        namespace = service.namespace
        hosts = (find_service_name(host, namespace, self._settings) for host in service.spec.hosts)
        destinations = (each for _, each in virtual_services.list_destinations(service))
        named = (find_service_name(each.host, namespace, self._settings) for each in destinations)
        own = frozenset(each for each in hosts if each and each[0] == namespace)
        return RouteState((), frozenset(), own, frozenset(each for each in named if each))

    def _build_gateway(self, place: Place) -> None:
        gateway = self._new.find(Gateway, *place)
        ports: dict[int, tuple[VirtualHost, ...]] = {}
        if gateway is not None and is_ours(self._new, gateway):
            ports = build_ports(gateway, self._find_attached(gateway))
        targets = {target for hosts in ports.values() for host in hosts for target in find_targets(host.routes)}
        filters = find_for_gateway(self._new, self._settings, gateway) if gateway is not None and ports else ()
        targets |= self._patched.find_references(filters, Side.GATEWAY)
        gone, changed = self._index.put_gateway(place, set(ports), targets)
        self._dirty.clusters |= changed
        scope = (name_gateway(*place),)
        for port in gone:
            for type_url in (LISTENER_TYPE, ROUTE_TYPE):
                self._patched.remove(type_url, name_gateway_port(*place, port))
        decides = telemetry.find_for_gateway(self._new, self._settings, gateway) if gateway is not None else None
        for port, hosts in ports.items():
            name = name_gateway_port(*place, port)
            at = At(name, port, filters, Side.GATEWAY)
            listener = translate_gateway_port(name, port)
            set_access_logs(listener, telemetry.read_logging(decides))
            self._patched.put_listener(at, listener, scope)
            self._patched.put_routes(at, self._translate(name, hosts, Dialect.ENVOY))

    def _find_attached(self, gateway: Gateway) -> Iterator[Attached]:
        for key, state in self._index.routes_of_gateway((gateway.namespace, gateway.name)):
            route = self._find_route(key)
            hosts: dict[str, tuple[str, ...]] = {}
            for reference in (route.spec.parent_refs or ()) if route else ():
                if route and find_gateway(reference, route.namespace) == (gateway.namespace, gateway.name):
                    hosts.update(attach(self._new, route, reference, gateway).listeners)
            yield Attached(hosts, state.routes)

    def _translate(self, name: str, hosts: Sequence[VirtualHost], dialect: Dialect) -> route_pb2.RouteConfiguration:
        return translate_hosts(name, hosts, lambda target: self._find_policy(target).hashing, dialect)

    def _build_service(self, place: Place) -> None:
        service = self._members.find_service(*place)
        targets = set(self._list_targets(place, service)) if service else set()
        gone = self._index.put_service(place, targets)
        self._dirty.clusters |= gone | targets
        led: set[Target] = set()
        for target in gone:
            self._changes[ENDPOINT_TYPE].put(target.cluster, None)
            if not target.subset:
                self._changes[LISTENER_TYPE].put(name_service_port(target.host, target.port), None)
                self._patched.remove(LISTENER_TYPE, name_sidecar_port(target.host, target.port))
                self._patched.remove(ROUTE_TYPE, name_sidecar_port(target.host, target.port))
                self._changes[ROUTE_TYPE].put(name_service_routes(target.host, target.port), None)
        for target in targets:
            if service and not target.subset:
                name, routes = (
                    name_service_port(target.host, target.port),
                    name_service_routes(target.host, target.port),
                )
                listener = build_resource(LISTENER_TYPE, name, translate_api_listener(name, routes))
                self._changes[LISTENER_TYPE].put(name, listener)
                hosts = [VirtualHost("all", ("*",), self._find_routes(place, target))]
                led.update(find_targets(hosts[0].routes))
                table = build_resource(ROUTE_TYPE, routes, self._translate(routes, hosts, Dialect.GRPC))
                self._changes[ROUTE_TYPE].put(routes, table)
                self._build_sidecar_port(service, target, hosts)
        self._dirty.clusters |= self._index.put_led(place, led)

    def _build_sidecar_port(self, service: services.Service, target: Target, hosts: Sequence[VirtualHost]) -> None:
        """Where sidecars take connections to a port; to a headless service they are none of its.

        They share the routes of gRPC's clients, which could not do what a patch may want: patched, there are two.
        """
        name, routes = name_sidecar_port(target.host, target.port), name_service_routes(target.host, target.port)
        at = self._patched.at_sidecars(name, target.port)
        if service.addresses and self._patched.has_routes_of_sidecars:
            routes = name
            self._patched.put_routes(at, self._translate(name, hosts, Dialect.ENVOY))
        else:
            self._patched.remove(ROUTE_TYPE, name)
        if not service.addresses:
            self._patched.remove(LISTENER_TYPE, name)
            return
        [port] = (each for each in service.ports if each.number == target.port)
        message = translate_service_port(name, service.addresses, port, target, routes)
        set_access_logs(message, self._sidecar_logging)
        self._patched.put_listener(at, message, self._visibility.find_readers((target.namespace, target.host)))

    def _list_targets(self, place: Place, service: services.Service) -> Iterator[Target]:
        for port in service.ports:
            for subset in ("", *self._find_rules(place).subsets):
                yield Target(place[0], service.hostname, port.number, subset)

    def _find_rules(self, place: Place) -> Rules:
        if place not in self._rules:
            self._rules[place] = find_rules(self._new, self._settings, *place)
        return self._rules[place]

    def _find_policy(self, target: Target) -> ClusterPolicy:
        place = find_service_name(target.host, target.namespace, self._settings)
        return self._find_rules(place).policy_of(target.subset, target.port) if place else ClusterPolicy()

    def _find_routes(self, place: Place, target: Target) -> tuple[Route, ...]:
        """The routes of a Service's port: HTTPRoutes that attach to it, else VirtualServices, else its endpoints.

        The two are not merged: what each would do with a request that the other means, nobody wrote.
        """
        if (attached := self._find_attached_routes(place, target)) is not None:
            return sort_routes(attached)
        owners = [
            owner
            for (kind, *found), _ in self._index.routes_of_service(place)
            if kind == VirtualService.__name__
            and (owner := self._new.find(VirtualService, *found)) is not None
            and owner.spec.http
        ]
        if not owners:
            return (Route("default", RequestMatch(), Forward((Destination(target),), missing_status=503)),)
        return tuple(
            route
            for owner in sorted(owners, key=lambda each: each.age_key)
            for route in virtual_services.build_routes(owner, target.port, self._build_finder(owner.namespace, target))
        )

    def _find_attached_routes(self, place: Place, target: Target) -> list[Ranked] | None:
        """Of HTTPRoutes and GRPCRoutes of the Service's own namespace; None where none attaches."""
        attached: list[Ranked] | None = None
        for key, state in self._index.routes_of_service(place):
            route = self._find_route(key) if key[0] != VirtualService.__name__ else None
            for reference in (route.spec.parent_refs or ()) if route and route.namespace == place[0] else ():
                is_meant = find_parent_service(reference, place[0]) == place
                if is_meant and reference.port in (None, target.port):
                    attached = [*(attached or ()), *state.routes]
                    break
        return attached

    def _build_finder(self, namespace: str, of: Target) -> virtual_services.FindTarget:
        """Where the destinations of a VirtualService of `namespace` lead, for the port `of`."""

        def find_target(destination: VirtualDestination) -> Target | None:
            place = find_service_name(destination.host, namespace, self._settings)
            service = self._members.find_service(*place) if place else None
            if place is None or service is None or self._find_rules(place).labels_of(destination.subset or "") is None:
                return None
            ports = [port.number for port in service.ports]
            wanted = destination.port.number if destination.port else ports[0] if len(ports) == 1 else of.port
            return Target(place[0], service.hostname, wanted, destination.subset or "") if wanted in ports else None

        return find_target

    def _build_endpoints(self, place: Place) -> None:
        service = self._members.find_service(*place)
        if service is None:
            return
        serving = [each for each in self._members.find_serving(*place) if each.is_healthy or service.serves_unready]
        for target in self._list_targets(place, service):
            labels = self._find_rules(place).labels_of(target.subset)
            endpoints = [
                ServingEndpoint(address, found.target_port, each.locality, each.is_healthy, each.weight)
                for each in serving
                if policies.matches(labels or {}, each.labels)
                for endpoint in each.endpoints
                if endpoint.service.resource_name == service.resource_name
                for found in endpoint.ports
                if found.service_port == target.port
                for address in each.addresses[:1]
            ]
            message = translate_endpoints(target, endpoints)
            self._changes[ENDPOINT_TYPE].put(target.cluster, build_resource(ENDPOINT_TYPE, target.cluster, message))

    def _build_cluster(self, target: Target) -> None:
        place = find_service_name(target.host, target.namespace, self._settings)
        service = self._members.find_service(*place) if place else None
        port = next((each for each in service.ports if each.number == target.port), None) if service else None
        if place is None or port is None or self._find_rules(place).labels_of(target.subset) is None:
            self._patched.remove(CLUSTER_TYPE, target.cluster)
            return
        message = translate_cluster(target, port.protocol, self._find_policy(target))
        using = {place, *self._index.leading_to(target)}
        sidecars = (
            self._visibility.all_readers
            if target in self._patched.references_of_sidecars
            else self._visibility.find_readers(*((each[0], name_host(self._settings, *each)) for each in sorted(using)))
        )
        self._patched.put_cluster(target, message, (*sidecars, *self._index.readers_of(target)))


def _build_fixed(snapshot: Snapshot, settings: MeshSettings) -> Iterator[tuple[str, Resource]]:
    """What all sidecars have, whatever services there are, each with its type URL."""
    readers = Visibility(snapshot, settings).all_readers
    outbound = translate_outbound(OUTBOUND)
    set_access_logs(outbound, telemetry.read_logging(telemetry.find_for_all(snapshot, settings)))
    yield LISTENER_TYPE, build_resource(LISTENER_TYPE, OUTBOUND, outbound, keys=readers)
    yield CLUSTER_TYPE, build_resource(CLUSTER_TYPE, PASSTHROUGH, build_passthrough(), keys=readers)


def _find_services(snapshot: Snapshot, namespace: str, pod: str, labels: Mapping[str, str]) -> Iterator[Place]:
    """The Services that a workload with `labels`, or the pod of that name, serves."""
    for service in snapshot.objects_in(Service, namespace):
        if services.selects(service, labels):
            yield namespace, service.name
        elif not service.spec.selector and pod:
            for part in snapshot.objects_in(EndpointSlice, namespace):
                if part.service == service.name and any(endpoint.pod == pod for _, endpoint in part.servers):
                    yield namespace, service.name
