"""From a change of objects to the L7 resources that it changes: what is touched is built again, nothing else.

    object that changed                  what depends on it
    Gateway                              its ports, their routes, which clusters and secrets its proxies have; if it is
                                         a waypoint, the Services that ask for it
    Istio's Gateway                      the same, of the ingress gateways that it selects, now and before
    GatewayClass, Namespace              the same, of all Gateways (whose they are, which namespaces may attach)
    *Route, VirtualService               the Gateways and Services that it attaches to, now and before, and those of
                                         the VirtualServices that delegate to it
    AuthorizationPolicy,                 the Gateways that it is attached to, now and before
    RequestAuthentication
    KeySet                               the Gateways of the RequestAuthentications that take their keys from there
    BackendTLSPolicy, ConfigMap          the clusters and endpoints of its Services, and the routes that point at them
    Secret                               itself, and the Gateways that name it
    DestinationRule                      the clusters and endpoints of its Service, and the routes that point at it
    ReferenceGrant                       the routes and Gateways that point into its namespace from elsewhere
    Service                              its clusters, endpoints and routes, routes that point at it, its waypoint, and
                                         where the ingress gateways listen that it stands before
    ServiceEntry                         the same of each of its hosts, and of those that it takes from others
    Pod, WorkloadEntry, EndpointSlice    the endpoints of the Services that it serves, now and before;
                                         the secrets of the Gateway whose proxy a pod is
    Node                                 the endpoints of the Services that its pods serve, and where clients may stand
    Sidecar                              the Services that its namespace's sidecars are told of newly or no more
    Telemetry                            the gateways of both kinds that it selects, now and before; one for the whole
                                         mesh all that sidecars listen for
    EnvoyFilter                          the gateways of both kinds that it selects, now and before; one for the whole
                                         mesh all Services, where it patches what sidecars do, and all clusters, where
                                         those

Which ingress gateways there are, no object says: one is opened for its first proxy, and closed after its last.

Unlike the resources of the L4 mesh these depend on each other over several steps, so that what depends on what is kept
from one change to the next. `tests/unit/controller/test_routing.py` holds it against building everything anew.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_network

from envoy.config.route.v3 import route_pb2

from controller.kinds.backend_tls_policy import BackendTLSPolicy
from controller.kinds.config_maps import ConfigMap
from controller.kinds.core import Namespace, Node, Pod, Service
from controller.kinds.destination_rule import DestinationRule
from controller.kinds.discovery import EndpointSlice
from controller.kinds.envoy_filter import EnvoyFilter
from controller.kinds.gateway_api import GATEWAY_LABEL, BackendReference, Gateway, GatewayClass, ReferenceGrant
from controller.kinds.grpc_route import GRPCRoute
from controller.kinds.http_route import HTTPRoute
from controller.kinds.istio_gateway import IstioGateway
from controller.kinds.key_set import KeySet, name_key_set
from controller.kinds.meta import ObjectKey
from controller.kinds.networking import ServiceEntry, WorkloadEntry
from controller.kinds.request_authentication import RequestAuthentication
from controller.kinds.secrets import Secret
from controller.kinds.security import AuthorizationPolicy
from controller.kinds.sidecar import Sidecar
from controller.kinds.stream_routes import TCPRoute, TLSRoute
from controller.kinds.telemetry import AccessLogging, Telemetry
from controller.kinds.virtual_service import VirtualService
from controller.registry import grpc_routes, ingress, policies, request_policies, services, telemetry, virtual_services
from controller.registry.attachment import (
    HOSTNAME_KIND,
    ROUTE_KINDS,
    GatewayRoute,
    RequestRoute,
    StreamRoute,
    attach,
    covers,
    find_gateway,
    find_parent_service,
    is_ours,
    resolve,
    served_listeners,
)
from controller.registry.backend_tls import list_targets, secure_chains
from controller.registry.byte_routes import find_byte_destinations, list_byte_destinations
from controller.registry.certificates import find_nodes, find_secrets, list_references
from controller.registry.delegates import list_rules, place_of
from controller.registry.destinations import Rules
from controller.registry.entries import EntryHosts
from controller.registry.envoy_filters import Side, find_for_proxies, is_for, is_for_all, selects
from controller.registry.gateway_proxies import GatewayProxies, describe_gateway, describe_ingress
from controller.registry.gateways import ANY_HOST, Attached, Chain, RequestChain, build_ports, find_chain_targets
from controller.registry.http import Destination, Forward, RequestMatch, Route, Target, VirtualHost, find_targets
from controller.registry.http_routes import FindTarget, Ranked, build_routes, sort_routes
from controller.registry.members import Members
from controller.registry.names import (
    MeshSettings,
    find_full_host,
    find_service_name,
    name_direct,
    name_gateway,
    name_gateway_port,
    name_gateway_routes,
    name_host,
    name_ingress_port,
    name_proxy,
    name_secret,
    name_service_port,
    name_service_routes,
    name_sidecar_port,
    name_waypoint,
)
from controller.registry.proxies import Ingress
from controller.registry.request_policies import NO_POLICIES, RequestPolicies
from controller.registry.sidecars import Visibility
from controller.registry.waypoints import Waypoints
from controller.routing.clusters import Clusters, list_localities
from controller.routing.destinations import Destinations
from controller.routing.index import Capture, Place, ResourceName, RouteIndex, RouteKey, RouteState
from controller.routing.patched import At, PatchedResources
from controller.routing.patching import PatchRecord
from controller.routing.secrets import SecretIndex
from controller.serve.resources import (
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    LISTENER_TYPE,
    ROUTE_TYPE,
    ROUTING_TYPES,
    SECRET_TYPE,
    ChangeGatherer,
    Resource,
    ResourceChanges,
    build_resource,
)
from controller.snapshot import Snapshot
from controller.translate.access_logs import set_access_logs
from controller.translate.clusters import (
    PASSTHROUGH,
    build_passthrough,
)
from controller.translate.gateway_ports import translate_chains
from controller.translate.listeners import translate_api_listener, translate_outbound, translate_service_port
from controller.translate.routes import Dialect, translate_hosts
from controller.translate.secrets import translate_secret
from controller.translate.waypoints import Others, WaypointPort, build_direct, translate_waypoint

_KINDS = {kind.KIND: kind for kind in ROUTE_KINDS}
OUTBOUND = "sidecar/outbound"
"""The resource name of where a sidecar's redirect rules lead."""
_ADDING_KINDS = {each.GROUP_KIND for each in (EnvoyFilter, Gateway, GatewayClass, Sidecar)}
"""On what it depends which resources EnvoyFilters add, and for whom; beside it, on which ingress gateways there are."""
_FIXED_KINDS = {each.GROUP_KIND for each in (Sidecar, Telemetry)}
"""On what it depends what all sidecars have."""


@dataclass(slots=True)
class _Dirty:
    """What must be built again."""

    routes: set[RouteKey] = field(default_factory=set)
    gateways: set[Place] = field(default_factory=set)
    istio_gateways: set[Place] = field(default_factory=set)
    ingresses: set[Ingress] = field(default_factory=set)
    services: set[Place] = field(default_factory=set)
    endpoints: set[Place] = field(default_factory=set)
    clusters: set[Target] = field(default_factory=set)
    waypoints: set[Place] = field(default_factory=set)
    sidecars: set[Place] = field(default_factory=set)
    secrets: set[Place] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is kept from one change to the next. `ingresses` are the ingress gateways that are open."""

    routes: RouteIndex = field(default_factory=RouteIndex)
    secrets: SecretIndex = field(default_factory=SecretIndex)
    patches: PatchRecord = field(default_factory=PatchRecord)
    ingresses: set[Ingress] = field(default_factory=set)


class Routing:
    """The L7 resources of a mesh, and what they were made from. One owner."""

    def __init__(self, settings: MeshSettings) -> None:
        self._settings = settings
        self._kept = _Kept()

    @property
    def patches(self) -> PatchRecord:
        """What EnvoyFilters do."""
        return self._kept.patches

    def build(self, snapshot: Snapshot) -> Mapping[str, ResourceChanges]:
        """Everything, from nothing."""
        built = dict(self.update(Snapshot(), snapshot, snapshot.keys()))
        for type_url, resource in _build_fixed(snapshot, self._settings):
            updated = {**built[type_url].updated, resource.name: resource}
            built[type_url] = ResourceChanges(updated, built[type_url].removed)
        return built

    def update(self, old: Snapshot, new: Snapshot, keys: Iterable[ObjectKey]) -> Mapping[str, ResourceChanges]:
        """The resources that the change of the objects `keys` from `old` to `new` may have changed, by type URL."""
        return self._begin(old, new).run(list(keys))

    def open(self, snapshot: Snapshot, ingress: Ingress) -> Mapping[str, ResourceChanges]:
        """What the first proxy of an ingress gateway adds."""
        self._kept.ingresses.add(ingress)
        return self._begin(snapshot, snapshot).run_for(ingress)

    def close(self, snapshot: Snapshot, ingress: Ingress) -> Mapping[str, ResourceChanges]:
        """What goes with the last proxy of an ingress gateway."""
        self._kept.ingresses.discard(ingress)
        return self._begin(snapshot, snapshot).run_for(ingress)

    def _begin(self, old: Snapshot, new: Snapshot) -> "_Update":
        return _Update(self._kept, old, new, self._settings)


class _Update:
    """One change."""

    def __init__(self, kept: _Kept, old: Snapshot, new: Snapshot, settings: MeshSettings) -> None:
        self._index, self._secrets = kept.routes, kept.secrets
        self._ingresses = frozenset(kept.ingresses)
        self._old = old
        self._new = new
        self._settings = settings
        self._members = Members(new, settings, EntryHosts(new, settings))
        self._changes = {type_url: ChangeGatherer() for type_url in ROUTING_TYPES}
        self._patched = PatchedResources(self._changes, kept.patches, new, settings)
        self._dirty = _Dirty()
        self._waypoints = Waypoints(new, settings)
        self._visibility = Visibility(new, settings)
        self._sidecar_logging = telemetry.read_logging(telemetry.find_for_all(new, settings))
        self._destinations = Destinations(new, settings, self._members)
        self._clusters = Clusters(new, settings, self._index, self._members, self._destinations)

    def run(self, keys: list[ObjectKey]) -> Mapping[str, ResourceChanges]:
        for key in keys:
            self._note(key)
        self._note_nodes({key.name for key in keys if key.group_kind == Node.GROUP_KIND})
        if any(key.group_kind in (Service.GROUP_KIND, ServiceEntry.GROUP_KIND) for key in keys):
            self._note_hosts()
        for route in sorted(self._dirty.routes):
            after = self._read_route(route)
            before = self._index.put_route(route, after)
            for state in filter(None, (before, after)):
                self._dirty.gateways |= state.gateways
                self._dirty.services |= state.services
                self._dirty.istio_gateways |= state.istio_gateways
        self._dirty.ingresses.update(self._find_selected())
        changed = {key.group_kind for key in keys}
        if changed & _FIXED_KINDS:
            for type_url, resource in _build_fixed(self._new, self._settings):
                self._changes[type_url].put(resource.name, resource)
        return self._build(adds=bool(changed & _ADDING_KINDS))

    def run_for(self, opened: Ingress) -> Mapping[str, ResourceChanges]:
        """The resources of an ingress gateway that was opened or closed."""
        self._dirty.ingresses.add(opened)
        return self._build(adds=True)

    def _build(self, adds: bool) -> Mapping[str, ResourceChanges]:
        for place in sorted(self._dirty.services):
            self._build_service(place)
        for place in sorted(self._dirty.sidecars):
            self._build_sidecar_ports(place)
        for place in sorted(self._dirty.gateways):
            self._build_gateway(place)
            self._build_waypoint(place)
        for each in sorted(self._dirty.ingresses):
            self._build_ingress(each)
        for place in sorted(self._dirty.waypoints):
            self._dirty.clusters |= self._index.settle_waypoint(place)
        for place in sorted(self._dirty.services | self._dirty.endpoints):
            for target, resource in self._clusters.build_endpoints(place):
                self._changes[ENDPOINT_TYPE].put(target.cluster, resource)
                if resource is None:
                    self._dirty.clusters.add(target)
        for target in sorted(self._dirty.clusters):
            self._build_cluster(target)
        for place in sorted(self._dirty.secrets):
            self._build_secret(place)
        if adds:
            self._patched.put_added(sorted(self._ingresses))
        return {type_url: changes.finish() for type_url, changes in self._changes.items()}

    def _note(self, key: ObjectKey) -> None:
        place = (key.namespace, key.name)
        match key.group_kind:
            case Gateway.GROUP_KIND:
                self._note_gateways([place])
            case IstioGateway.GROUP_KIND:
                self._dirty.istio_gateways.add(place)
            case GatewayClass.GROUP_KIND | Namespace.GROUP_KIND:
                self._note_gateways([(each.namespace, each.name) for each in self._new.objects(Gateway)])
                if key.group_kind == Namespace.GROUP_KIND:
                    services_there = self._new.objects_in(Service, key.name)
                    self._dirty.services |= {(each.namespace, each.name) for each in services_there}
                    hosts = self._members.hosts.by_namespace.get(key.name, ())
                    self._dirty.services |= {(key.name, each.name) for each in hosts}
            case (
                HTTPRoute.GROUP_KIND
                | GRPCRoute.GROUP_KIND
                | TLSRoute.GROUP_KIND
                | TCPRoute.GROUP_KIND
                | VirtualService.GROUP_KIND
            ):
                self._dirty.routes.add((key.kind, *place))
                if key.kind == VirtualService.KIND:
                    self._dirty.routes.update(self._index.routes_delegating_to(place))
            case EnvoyFilter.GROUP_KIND:
                self._note_filter(key)
            case Sidecar.GROUP_KIND:
                self._note_sidecar(key.namespace)
            case Telemetry.GROUP_KIND:
                self._note_telemetry(key)
            case AuthorizationPolicy.GROUP_KIND:
                for snapshot in (self._old, self._new):
                    self._note_policy(snapshot.find(AuthorizationPolicy, *place))
            case RequestAuthentication.GROUP_KIND:
                for snapshot in (self._old, self._new):
                    self._note_policy(snapshot.find(RequestAuthentication, *place))
            case KeySet.GROUP_KIND:
                for authentication in self._new.objects(RequestAuthentication):
                    if key.name in map(name_key_set, authentication.key_urls):
                        self._note_policy(authentication)
            case ReferenceGrant.GROUP_KIND:
                self._dirty.routes.update(self._index.routes_into(key.namespace))
                self._dirty.gateways.update(self._secrets.gateways_into(key.namespace))
            case Secret.GROUP_KIND:
                self._dirty.secrets.add(place)
                self._dirty.gateways.update(self._secrets.gateways_naming(place))
            case DestinationRule.GROUP_KIND:
                for snapshot in (self._old, self._new):
                    if (rule := snapshot.find(DestinationRule, *place)) is not None:
                        self._note_rule(rule)
            case BackendTLSPolicy.GROUP_KIND:
                for snapshot in (self._old, self._new):
                    if (policy := snapshot.find(BackendTLSPolicy, *place)) is not None:
                        self._note_backend_tls(policy)
            case ConfigMap.GROUP_KIND:
                for policy in self._new.objects_in(BackendTLSPolicy, key.namespace):
                    if any(each.name == key.name for each in policy.spec.validation.ca_certificate_refs):
                        self._note_backend_tls(policy)
            case Service.GROUP_KIND:
                self._note_service(place)
                for snapshot in (self._old, self._new):
                    if (service := snapshot.find(Service, *place)) is not None:
                        self._note_wanted(snapshot, key.namespace, service.labels)
                self._dirty.ingresses.update(self._find_behind(place))
            case EndpointSlice.GROUP_KIND:
                for snapshot in (self._old, self._new):
                    if (part := snapshot.find(EndpointSlice, *place)) is not None and part.service:
                        self._dirty.endpoints.add((key.namespace, part.service))
            case Pod.GROUP_KIND:
                for snapshot in (self._old, self._new):
                    if (pod := snapshot.find(Pod, *place)) is not None:
                        self._dirty.endpoints |= set(_find_services(snapshot, key.namespace, key.name, pod.labels))
                        self._note_selecting(key.namespace, pod.labels)
                        if GATEWAY_LABEL in pod.labels:
                            self._dirty.gateways.add((key.namespace, pod.labels[GATEWAY_LABEL]))
            case WorkloadEntry.GROUP_KIND:
                for snapshot in (self._old, self._new):
                    if (entry := snapshot.find(WorkloadEntry, *place)) is not None:
                        self._dirty.endpoints |= set(_find_services(snapshot, key.namespace, "", entry.all_labels))
                        self._note_selecting(key.namespace, entry.all_labels)

    def _note_nodes(self, names: Collection[str]) -> None:
        """Nodes that changed: those on them serve from elsewhere, and clients may stand where nobody stood."""
        if names and list_localities(self._new) != list_localities(self._old):
            self._dirty.endpoints |= self._index.placed
        for pod in self._new.objects(Pod) if names else ():
            if pod.spec.node_name in names:
                self._dirty.endpoints |= set(_find_services(self._new, pod.namespace, pod.name, pod.labels))
                self._note_selecting(pod.namespace, pod.labels)

    def _note_gateways(self, places: Collection[Place]) -> None:
        """Gateways that changed, and the Services that may be bound to them as waypoints."""
        self._dirty.gateways.update(places)
        waypoints = [Waypoints(snapshot, self._settings) for snapshot in (self._old, self._new)]
        changed = {place for place in places if any(each.find_gateway(place) for each in waypoints)}
        users = waypoints[-1].find_users(changed) if changed else ()
        self._dirty.services |= {(each.namespace, each.name) for each in users}
        for place, host in self._members.hosts.by_place.items() if changed else ():
            if waypoints[-1].find_wanted(place[0], host.entry.labels) in changed:
                self._dirty.services.add(place)

    def _note_hosts(self) -> None:
        """Hosts of ServiceEntries, which a Service or another entry may win and lose."""
        versions = ((self._old, EntryHosts(self._old, self._settings)), (self._new, self._members.hosts))
        (_, before), (_, after) = versions
        for place in before.by_place.keys() | after.by_place.keys():
            if before.by_place.get(place) == after.by_place.get(place):
                continue
            self._note_service(place)
            self._dirty.routes.update(self._index.routes_to(("", place[1])))
            for snapshot, hosts in versions:
                if (host := hosts.by_place.get(place)) is not None:
                    self._note_wanted(snapshot, host.entry.namespace, host.entry.labels)

    def _note_rule(self, rule: DestinationRule) -> None:
        """What a rule may be for."""
        pattern = find_full_host(rule.spec.host, rule.namespace, self._settings)
        self._note_service(find_service_name(rule.spec.host, rule.namespace, self._settings))
        for place in self._members.hosts.by_place:
            if covers(pattern, place[1]):
                self._note_service(place)
                self._dirty.routes.update(self._index.routes_to(("", place[1])))
        for service in self._new.objects(Service) if "*" in pattern else ():
            if covers(pattern, name_host(self._settings, service.namespace, service.name)):
                self._note_service((service.namespace, service.name))

    def _note_selecting(self, namespace: str, labels: Mapping[str, str]) -> None:
        """The hosts whose entries select a workload with `labels`."""
        for entry in self._new.objects_in(ServiceEntry, namespace):
            if entry.selector and policies.matches(entry.selector, labels):
                self._dirty.endpoints |= {(namespace, host) for host in entry.hosts}

    def _note_wanted(self, snapshot: Snapshot, namespace: str, labels: Mapping[str, str]) -> None:
        if (wanted := Waypoints(snapshot, self._settings).find_wanted(namespace, labels)) is not None:
            self._dirty.gateways.add(wanted)

    def _note_backend_tls(self, policy: BackendTLSPolicy) -> None:
        for _, target in list_targets(policy):
            self._note_service((policy.namespace, target.name))

    def _note_filter(self, key: ObjectKey) -> None:
        for snapshot in (self._old, self._new):
            given = snapshot.find(EnvoyFilter, key.namespace, key.name)
            if given is None:
                continue
            self._note_proxies(partial(selects, self._settings, given))
            if not is_for_all(self._settings, given):
                continue
            self._dirty.clusters |= self._patched.find_references([given], Side.SIDECAR)
            changing = [each for each in given.spec.config_patches if not each.adds_resource]
            if any(is_for(each, Side.SIDECAR) and each.apply_to != "CLUSTER" for each in changing):
                self._dirty.services.update(self._list_services())
            if any(each.apply_to == "CLUSTER" for each in changing):
                self._dirty.clusters |= self._index.all_targets()

    def _note_sidecar(self, namespace: str) -> None:
        self._dirty.clusters |= self._patched.references_of_sidecars
        before = Visibility(self._old, self._settings)
        for place in self._list_services():
            host = self._find_host(place)
            if before.sees(namespace, place[0], host) != self._visibility.sees(namespace, place[0], host):
                self._dirty.services.add(place)
                self._dirty.clusters |= self._index.led_from(place)

    def _note_telemetry(self, key: ObjectKey) -> None:
        for snapshot in (self._old, self._new):
            given = snapshot.find(Telemetry, key.namespace, key.name)
            if given is None:
                continue
            self._note_proxies(partial(telemetry.selects, self._settings, given))
            if telemetry.is_for_all(self._settings, given):
                self._dirty.services.update(self._list_services())

    def _note_proxies(self, is_chosen: Callable[[GatewayProxies], bool]) -> None:
        gateways = (each for each in self._new.objects(Gateway) if is_chosen(describe_gateway(each)))
        self._dirty.gateways |= {(each.namespace, each.name) for each in gateways}
        self._dirty.ingresses |= {each for each in self._ingresses if is_chosen(describe_ingress(each))}

    def _note_service(self, place: Place | None) -> None:
        if place is not None:
            self._dirty.services.add(place)
            self._dirty.routes.update(self._index.routes_to(place))

    def _note_policy(self, policy: request_policies.Policy | None) -> None:
        gateways = request_policies.find_gateways(self._new, self._settings, policy) if policy else ()
        self._dirty.gateways |= {(each.namespace, each.name) for each in gateways}
        for service in request_policies.find_services(self._new, policy) if policy else ():
            self._note_wanted(self._new, service.namespace, service.labels)

    def _find_selected(self) -> Iterator[Ingress]:
        """The ingress gateways that Gateways which are touched select, or did."""
        for place in self._dirty.istio_gateways:
            for snapshot in (self._old, self._new):
                if (gateway := snapshot.find(IstioGateway, *place)) is not None:
                    yield from (each for each in self._ingresses if ingress.selects(gateway, each))

    def _find_behind(self, place: Place) -> Iterator[Ingress]:
        """The ingress gateways that a Service stands before, or did."""
        for snapshot in (self._old, self._new):
            if (service := snapshot.find(Service, *place)) is not None:
                for each in self._ingresses:
                    if each.namespace == place[0] and services.selects(service, dict(each.labels)):
                        yield each

    def _read_route(self, key: RouteKey) -> RouteState | None:
        if key[0] == VirtualService.KIND:
            return self._read_virtual_service(key[1:])
        route = self._find_route(key)
        if route is None:
            return None
        backends: set[Place] = set()

        def find_target(namespace: str, reference: BackendReference) -> Target | None:
            is_host = reference.kind == HOSTNAME_KIND
            backends.add(("", reference.name) if is_host else (reference.namespace or namespace, reference.name))
            return resolve(self._new, self._settings, route, reference, self._members.hosts).target

        is_request = isinstance(route, RequestRoute)
        routes: tuple[Ranked, ...] = ()
        destinations: tuple[Destination, ...] = ()
        if isinstance(route, GRPCRoute):
            routes = tuple(grpc_routes.build_routes(route, find_target))
        elif isinstance(route, HTTPRoute):
            routes = tuple(build_routes(route, find_target))
        else:
            destinations = _build_destinations(route, find_target)
        parents = route.spec.parent_refs or ()
        gateways = filter(None, (find_gateway(each, route.namespace) for each in parents))
        parent_services = filter(None, (find_parent_service(each, route.namespace) for each in parents if is_request))
        return RouteState(routes, frozenset(gateways), frozenset(parent_services), frozenset(backends), destinations)

    def _find_route(self, key: RouteKey) -> GatewayRoute | None:
        kind = _KINDS[key[0]]
        return self._new.find(kind, *key[1:])

    def _read_virtual_service(self, place: Place) -> RouteState | None:
        service = self._new.find(VirtualService, *place)
        if service is None:
            return None
        namespace = service.namespace
        own: set[Place] = set()
        if virtual_services.is_for_mesh(service):
            own = {place for host in service.spec.hosts for place in self._list_places(host, namespace, namespace)}
        given = [(each.host, namespace) for _, each in list_byte_destinations(service)]
        for rule in list_rules(service, self._find_virtual_service):
            destinations = virtual_services.list_rule_destinations(rule.rule)
            given += ((each.host, rule.namespace) for _, each in destinations)
        backends = {place for host, where in given for place in self._list_places(host, where, "")}
        return RouteState(
            routes=(),
            gateways=frozenset(),
            services=frozenset(own),
            backends=frozenset(backends),
            istio_gateways=virtual_services.find_gateways(service),
            delegates=frozenset(place_of(service, each.delegate) for each in service.spec.http or () if each.delegate),
        )

    def _find_virtual_service(self, namespace: str, name: str) -> VirtualService | None:
        return self._new.find(VirtualService, namespace, name)

    def _list_places(self, host: str, namespace: str, hosts_of: str) -> Iterator[Place]:
        """What an object of `namespace` may mean by `host`: a Service, or a host of an entry of `hosts_of`.

        Where only Services of one namespace are wanted, that is `hosts_of`, too.
        """
        yield hosts_of, find_full_host(host, namespace, self._settings)
        place = find_service_name(host, namespace, self._settings)
        if place is not None and hosts_of in ("", place[0]):
            yield place

    def _build_gateway(self, place: Place) -> None:
        gateway = self._new.find(Gateway, *place)
        proxies = GatewayProxies(place[0], {}, name_gateway(*place), place[1])
        ports: dict[int, tuple[Chain, ...]] = {}
        held = NO_POLICIES
        if gateway is not None and is_ours(self._new, gateway):
            proxies = describe_gateway(gateway)
            built = build_ports(self._new, gateway, self._find_attached(gateway))
            ports = {port: self._secure(chains) for port, chains in built.items()}
            held = self._find_policies(gateway)
            self._note_secrets(place, gateway)
        else:
            self._dirty.secrets |= self._secrets.put_gateway(place, (), (), ())

        def name(port: int, listener: str) -> str:
            return name_gateway_routes(*place, port, listener) if listener else name_gateway_port(*place, port)

        self._put_ports(proxies, ports, name, held)

    def _build_ingress(self, reader: Ingress) -> None:
        ports: dict[int, tuple[Chain, ...]] = {}
        if reader in self._ingresses:
            built = ingress.build_ports(self._new, self._settings, reader, self._find_bound, self._build_bound_routes)
            ports = {port: (RequestChain("", ANY_HOST, hosts),) for port, hosts in built.items()}
        self._put_ports(describe_ingress(reader), ports, lambda port, _: name_ingress_port(reader, port))

    def _find_bound(self, gateway: Place) -> Iterator[VirtualService]:
        for _, *place in self._index.routes_of_istio_gateway(gateway):
            if (service := self._new.find(VirtualService, *place)) is not None:
                yield service

    def _build_bound_routes(self, service: VirtualService, port: int, gateway: Place) -> Iterator[Route]:
        for rule in list_rules(service, self._find_virtual_service):
            find_target = self._destinations.build_finder(rule.namespace, port)
            yield from virtual_services.build_routes(rule, port, find_target, gateway)

    def _put_ports(
        self,
        proxies: GatewayProxies,
        ports: Mapping[int, tuple[Chain, ...]],
        name: Callable[[int, str], str],
        held: RequestPolicies = NO_POLICIES,
    ) -> None:
        """Take over the ports of a gateway's proxies.

        `name` gives the resource name of a port, or of the routes of one of its listeners.
        """
        filters = find_for_proxies(self._new, self._settings, proxies) if ports else ()
        made: set[ResourceName] = set()
        for port, chains in ports.items():
            at = At(name(port, ""), port, filters, Side.GATEWAY)
            made |= set(self._put_port(proxies, at, chains, partial(name, port), held))
        targets = {target for chains in ports.values() for target in find_chain_targets(chains)}
        targets |= self._patched.find_references(filters, Side.GATEWAY)
        gone, changed = self._index.put_reader(proxies.reader, made, targets)
        self._dirty.clusters |= changed
        for type_url, each in gone:
            self._patched.remove(type_url, each)

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
        set_access_logs(listener, self._find_logging(proxies))
        self._patched.put_listener(at, listener, (proxies.reader,))
        yield LISTENER_TYPE, at.name
        for chain in chains:
            if isinstance(chain, RequestChain) and chain.secrets != ():
                routes = name(chain.listener)
                table = self._translate(routes, chain.hosts, Dialect.ENVOY)
                self._patched.put_routes(replace(at, name=routes), table)
                yield ROUTE_TYPE, routes

    def _find_logging(self, proxies: GatewayProxies) -> AccessLogging:
        return telemetry.read_logging(telemetry.find_for_proxies(self._new, self._settings, proxies))

    def _secure(self, chains: Sequence[Chain]) -> tuple[Chain, ...]:
        """Speak TLS to what has a policy for it."""
        targets = find_chain_targets(chains)
        return secure_chains(chains, {each for each in targets if self._destinations.find_backend_tls(each)})

    def _note_secrets(self, place: Place, gateway: Gateway) -> None:
        """Take over what a Gateway needs to end TLS, and who may have it."""
        mentioned = {secret for each in gateway.spec.listeners for _, secret in list_references(gateway, each)}
        used = {secret for each in served_listeners(gateway) for secret in find_secrets(self._new, gateway, each)}
        readers = [name_proxy(*place, node) for node in find_nodes(self._new, gateway)] if used else []
        self._dirty.secrets |= self._secrets.put_gateway(place, mentioned, used, readers)

    def _build_secret(self, place: Place) -> None:
        secret, readers = self._new.find(Secret, *place), self._secrets.readers_of(place)
        name = name_secret(*place)
        if secret is None or not readers:
            self._changes[SECRET_TYPE].put(name, None)
            return
        resource = build_resource(SECRET_TYPE, name, translate_secret(name, secret), keys=readers)
        self._changes[SECRET_TYPE].put(name, resource)

    def _build_waypoint(self, place: Place) -> None:
        gateway = self._waypoints.find_gateway(place)
        name, direct = name_waypoint(*place), name_direct(*place)
        if gateway is None or not is_ours(self._new, gateway):
            self._index.put_waypoint(place, set())
            self._dirty.waypoints.add(place)
            self._changes[LISTENER_TYPE].put(name, None)
            self._changes[CLUSTER_TYPE].put(direct, None)
            return
        bound = sorted(self._list_bound(place), key=lambda each: (each.is_entry, each.place))
        self._index.put_waypoint(place, {each.place for each in bound})
        self._dirty.waypoints.add(place)
        served = list(self._list_waypoint_ports(gateway, bound, direct))
        others = Others(direct, self._find_policies(gateway)) if self._waypoints.serves_workloads(gateway) else None
        message = translate_waypoint(name, served, others)
        set_access_logs(message, self._find_logging(describe_gateway(gateway)))
        scope = (name_gateway(*place),)
        self._changes[LISTENER_TYPE].put(name, build_resource(LISTENER_TYPE, name, message, keys=scope))
        self._changes[CLUSTER_TYPE].put(direct, build_resource(CLUSTER_TYPE, direct, build_direct(direct), keys=scope))

    def _list_bound(self, gateway: Place) -> Iterator[services.Service]:
        """The services of both kinds that are reached through a waypoint."""
        users = self._waypoints.find_users({gateway})
        found = [self._members.find_service(each.namespace, each.name) for each in users]
        hosts = self._members.hosts.by_place.values()
        wanted = [
            each for each in hosts if self._waypoints.find_wanted(each.entry.namespace, each.entry.labels) == gateway
        ]
        for service in (*found, *(self._members.build_host(each) for each in wanted)):
            binding = service.waypoint if service else None
            if service and binding and binding.is_accepted and (service.addresses or service.ranges):
                yield service

    def _list_waypoint_ports(
        self, gateway: Gateway, bound: Sequence[services.Service], direct: str
    ) -> Iterator[WaypointPort]:
        """What a waypoint takes for its services.

        To a ServiceEntry's host without routes its ztunnel knows the way; so where several hosts have an address and a
        port in common, and only their client knows which of them it meant.
        """
        claims: dict[Capture, list[services.Service]] = {}
        for service in bound:
            for capture in _list_captures(service):
                claims.setdefault(capture, []).append(service)
        for service in bound:
            source = None if service.is_entry else self._new.find(Service, service.namespace, service.name)
            policies = self._find_policies(gateway, source)
            for port in service.ports:
                target = Target(service.namespace, service.reference, port.number)
                claimed = {each: claims[each, port.number] for each in _list_ranges(service)}
                first = [each for each, claimants in claimed.items() if claimants[0] is service]
                routed = [each for each in first if self._is_routed(service) and len(claimed[each]) == 1]
                if not service.is_entry:
                    routed = first
                others = [each for each in first if each not in routed]
                name, common = f"{target.host}:{target.port}", (port.number, port.protocol)
                if routed:
                    routes = name_service_routes(target.host, target.port)
                    destinations = self._find_byte_destinations(service, port)
                    yield WaypointPort(name, routed, *common, target.cluster, policies, routes, destinations)
                if others:
                    yield WaypointPort(f"{name}/direct" if routed else name, others, *common, direct, policies)

    def _find_policies(self, gateway: Gateway, service: Service | None = None) -> RequestPolicies:
        return request_policies.find_policies(self._new, self._settings, gateway, service)

    def _find_attached(self, gateway: Gateway) -> Iterator[Attached]:
        for key, state in self._index.routes_of_gateway((gateway.namespace, gateway.name)):
            route = self._find_route(key)
            hosts: dict[str, tuple[str, ...]] = {}
            for reference in (route.spec.parent_refs or ()) if route else ():
                if route and find_gateway(reference, route.namespace) == (gateway.namespace, gateway.name):
                    hosts.update(attach(self._new, route, reference, gateway).listeners)
            age = route.age_key if route else ()
            yield Attached(hosts, state.routes, age, state.destinations)

    def _translate(self, name: str, hosts: Sequence[VirtualHost], dialect: Dialect) -> route_pb2.RouteConfiguration:
        return translate_hosts(name, hosts, lambda target: self._destinations.find_policy(target).hashing, dialect)

    def _build_service(self, place: Place) -> None:
        service = self._members.find(place)
        targets = set(self._destinations.list_targets(service)) if service else set()
        gone = self._index.put_service(place, targets)
        self._dirty.clusters |= gone | targets
        led: set[Target] = set()
        for target in gone:
            self._changes[ENDPOINT_TYPE].put(target.cluster, None)
            if not target.subset and not target.is_secured:
                self._changes[LISTENER_TYPE].put(name_service_port(target.host, target.port), None)
                self._patched.remove(LISTENER_TYPE, name_sidecar_port(target.host, target.port))
                self._patched.remove(ROUTE_TYPE, name_sidecar_port(target.host, target.port))
                self._changes[ROUTE_TYPE].put(name_service_routes(target.host, target.port), None)
        captures = _list_captures(service) if service else frozenset()
        sharing = self._index.put_captures(place, captures, is_entry=bool(service and service.is_entry))
        self._dirty.sidecars |= {place} | sharing
        for target in targets:
            if service and not target.subset and not target.is_secured:
                name, routes = (
                    name_service_port(target.host, target.port),
                    name_service_routes(target.host, target.port),
                )
                listener = build_resource(LISTENER_TYPE, name, translate_api_listener(name, routes))
                self._changes[LISTENER_TYPE].put(name, listener)
                found = self._find_routes(place, target)
                led |= {target} | find_targets(found)
                [port] = (each for each in service.ports if each.number == target.port)
                led |= {each.target for each in self._find_byte_destinations(service, port) if each.target}
                hosts = [VirtualHost("all", ("*",), found)]
                table = build_resource(ROUTE_TYPE, routes, self._translate(routes, hosts, Dialect.GRPC))
                self._changes[ROUTE_TYPE].put(routes, table)

        owners = self._list_virtual_services(place)
        sends_bytes = self._index.put_byte_routes(place, any(each.spec.tcp or each.spec.tls for each in owners))
        self._dirty.clusters |= self._index.put_led(place, led)
        self._index.put_reach(place, led if service and service.waypoint and self._is_routed(service) else set())
        if (waypoint := self._index.waypoint_of(place)) is not None:
            self._dirty.waypoints.add(waypoint)
            if sends_bytes or (service and service.is_entry):
                self._dirty.gateways.add(waypoint)

    def _build_sidecar_ports(self, place: Place) -> None:
        """Where sidecars take connections to a service; to a headless one they are none of its.

        They share the routes of gRPC's clients, which could not do what a patch may want: patched, there are two.
        """
        service = self._members.find(place)
        if service is None:
            return
        own = self._index.captures_of(place)
        for port in service.ports:
            target = Target(service.namespace, service.reference, port.number)
            name, routes = name_sidecar_port(target.host, target.port), name_service_routes(target.host, target.port)
            addresses = [each for each in service.addresses if (ip_network(each), port.number) in own]
            at = self._patched.at_sidecars(name, target.port)
            if addresses and self._patched.has_routes_of_sidecars:
                routes = name
                hosts = [VirtualHost("all", ("*",), self._find_routes(place, target))]
                self._patched.put_routes(at, self._translate(name, hosts, Dialect.ENVOY))
            else:
                self._patched.remove(ROUTE_TYPE, name)
            if not addresses:
                self._patched.remove(LISTENER_TYPE, name)
                continue
            destinations = self._find_byte_destinations(service, port)
            message = translate_service_port(name, addresses, port, destinations, routes)
            set_access_logs(message, self._sidecar_logging)
            readers = self._visibility.find_readers((service.namespace, service.hostname))
            self._patched.put_listener(at, message, readers)

    def _is_routed(self, service: services.Service) -> bool:
        """Whether its waypoint does more with connections than to let them through."""
        if not service.is_entry:
            return True
        has_rules = self._destinations.find_rules(service.place) != Rules()
        return "." in service.hostname and (has_rules or any(self._index.routes_of_service(service.place)))

    def _find_routes(self, place: Place, target: Target) -> tuple[Route, ...]:
        """The routes of a Service's port: HTTPRoutes that attach to it, else VirtualServices, else its endpoints.

        The two are not merged: what each would do with a request that the other means, nobody wrote. VirtualServices
        all of whose matches are for other ports or for Gateways count as none (Istio's rule).
        """
        if (attached := self._find_attached_routes(place, target)) is not None:
            return sort_routes(attached)
        owners = [owner for owner in self._list_virtual_services(place) if owner.spec.http]
        routes = tuple(
            route
            for owner in owners
            for rule in list_rules(owner, self._find_virtual_service)
            for route in virtual_services.build_routes(
                rule, target.port, self._destinations.build_finder(rule.namespace, target.port, target)
            )
        )
        return routes or (Route("default", RequestMatch(), Forward((Destination(target),), missing_status=503)),)

    def _list_virtual_services(self, place: Place) -> list[VirtualService]:
        """Those for a service, the oldest first."""
        keys = (key for key, _ in self._index.routes_of_service(place) if key[0] == VirtualService.KIND)
        found = (self._new.find(VirtualService, *key[1:]) for key in keys)
        return sorted(filter(None, found), key=lambda each: each.age_key)

    def _find_byte_destinations(self, service: services.Service, port: services.ServicePort) -> tuple[Destination, ...]:
        """Where connections to a port go that are no requests: by VirtualServices, else to who serves it."""
        target = Target(service.namespace, service.reference, port.number)
        for owner in self._list_virtual_services(service.place):
            find_target = self._destinations.build_finder(owner.namespace, target.port, target)
            speaks_tls = port.protocol is services.AppProtocol.TLS
            if found := find_byte_destinations(owner, service.hostname, port.number, speaks_tls, find_target):
                return found
        return (Destination(target),)

    def _find_attached_routes(self, place: Place, target: Target) -> list[Ranked] | None:
        """Of HTTPRoutes and GRPCRoutes of the Service's own namespace; None where none attaches."""
        attached: list[Ranked] | None = None
        for key, state in self._index.routes_of_service(place):
            route = self._find_route(key) if key[0] != VirtualService.KIND else None
            for reference in (route.spec.parent_refs or ()) if route and route.namespace == place[0] else ():
                is_meant = find_parent_service(reference, place[0]) == place
                if is_meant and reference.port in (None, target.port):
                    attached = [*(attached or ()), *state.routes]
                    break
        return attached

    def _build_cluster(self, target: Target) -> None:
        built = self._clusters.build_cluster(target)
        if built is None:
            self._patched.remove(CLUSTER_TYPE, target.cluster)
            return
        message, forms = built
        keys = (*self._list_sidecars(target), *self._index.readers_of(target))
        self._patched.put_cluster(target, message, keys, forms)

    def _list_sidecars(self, target: Target) -> Sequence[str]:
        """The names under which sidecars find a target's cluster; one over TLS only a patch gives them."""
        if target in self._patched.references_of_sidecars:
            return self._visibility.all_readers
        service = self._destinations.find_service(target)
        if target.is_secured or service is None:
            return ()
        using = sorted({service.place, *self._index.leading_to(target)})
        return self._visibility.find_readers(*((each[0], self._find_host(each)) for each in using))

    def _find_host(self, place: Place) -> str:
        service = self._members.find(place)
        return service.hostname if service else name_host(self._settings, *place)

    def _list_services(self) -> Iterator[Place]:
        """All services of both kinds."""
        yield from ((each.namespace, each.name) for each in self._new.objects(Service))
        yield from self._members.hosts.by_place


def _list_captures(service: services.Service) -> frozenset[Capture]:
    return frozenset((each, port.number) for port in service.ports for each in _list_ranges(service))


def _build_fixed(snapshot: Snapshot, settings: MeshSettings) -> Iterator[tuple[str, Resource]]:
    """What all sidecars have, whatever services there are, each with its type URL."""
    readers = Visibility(snapshot, settings).all_readers
    outbound = translate_outbound(OUTBOUND)
    set_access_logs(outbound, telemetry.read_logging(telemetry.find_for_all(snapshot, settings)))
    yield LISTENER_TYPE, build_resource(LISTENER_TYPE, OUTBOUND, outbound, keys=readers)
    yield CLUSTER_TYPE, build_resource(CLUSTER_TYPE, PASSTHROUGH, build_passthrough(), keys=readers)


def _list_ranges(service: services.Service) -> tuple[IPv4Network | IPv6Network, ...]:
    return (*(ip_network(each) for each in service.addresses), *service.ranges)


def _find_services(snapshot: Snapshot, namespace: str, pod: str, labels: Mapping[str, str]) -> Iterator[Place]:
    """The Services that a workload with `labels`, or the pod of that name, serves."""
    for service in snapshot.objects_in(Service, namespace):
        if services.selects(service, labels):
            yield namespace, service.name
        elif not service.spec.selector and pod:
            for part in snapshot.objects_in(EndpointSlice, namespace):
                if part.service == service.name and any(endpoint.pod == pod for _, endpoint in part.servers):
                    yield namespace, service.name


def _build_destinations(route: StreamRoute, find_target: FindTarget) -> tuple[Destination, ...]:
    """Where a route of connections leads."""
    backends = (backend for rule in route.rules for backend in rule.backend_refs)
    return tuple(Destination(find_target(route.namespace, each), each.weight) for each in backends)
