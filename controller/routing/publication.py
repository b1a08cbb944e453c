"""From a change of objects to the L7 resources that it changes: what is touched is built again, nothing else.

    object that changed                  what depends on it
    Gateway                              its ports, their routes, which clusters and secrets its proxies have
    GatewayClass, Namespace              the same, of all Gateways (whose they are, which namespaces may attach)
    *Route, VirtualService               the Gateways and Services that it attaches to, now and before
    BackendTLSPolicy, ConfigMap          the clusters and endpoints of its Services, and the routes that point at them
    Secret                               itself, and the Gateways that name it
    DestinationRule                      the clusters and endpoints of its Service, and the routes that point at it
    ReferenceGrant                       the routes and Gateways that point into its namespace from elsewhere
    Service                              its clusters, endpoints and routes, and the routes that point at it
    Pod, WorkloadEntry, EndpointSlice    the endpoints of the Services that it serves, now and before;
                                         the secrets of the Gateway whose proxy a pod is
    Node                                 the endpoints of the Services that its pods serve

Unlike the resources of the L4 mesh these depend on each other over several steps, so that what depends on what is kept
from one change to the next. `tests/unit/controller/test_routing.py` holds it against building everything anew.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import Message

from controller.kinds.backend_tls_policy import BackendTLSPolicy
from controller.kinds.config_maps import ConfigMap
from controller.kinds.core import Namespace, Node, Pod, Service
from controller.kinds.destination_rule import DestinationRule
from controller.kinds.discovery import EndpointSlice
from controller.kinds.gateway_api import GATEWAY_LABEL, BackendReference, Gateway, GatewayClass, ReferenceGrant
from controller.kinds.grpc_route import GRPCRoute
from controller.kinds.http_route import HTTPRoute
from controller.kinds.meta import ObjectKey
from controller.kinds.networking import WorkloadEntry
from controller.kinds.secrets import Secret
from controller.kinds.stream_routes import TCPRoute, TLSRoute
from controller.kinds.virtual_service import Destination as VirtualDestination
from controller.kinds.virtual_service import VirtualService
from controller.registry import grpc_routes, policies, services, virtual_services
from controller.registry.attachment import (
    ROUTE_KINDS,
    GatewayRoute,
    RequestRoute,
    StreamRoute,
    attach,
    find_gateway,
    find_parent_service,
    is_ours,
    resolve,
    served_listeners,
)
from controller.registry.backend_tls import BackendTls, find_backend_tls, list_targets, secure_chains
from controller.registry.certificates import find_nodes, find_secrets, list_references
from controller.registry.destinations import ClusterPolicy, Rules, find_rules
from controller.registry.entries import EntryHosts
from controller.registry.gateways import Attached, Chain, RequestChain, build_ports, find_chain_targets
from controller.registry.http import Destination, Forward, RequestMatch, Route, Target, VirtualHost
from controller.registry.http_routes import FindTarget, Ranked, build_routes, sort_routes
from controller.registry.members import Members
from controller.registry.names import (
    SIDECARS,
    MeshSettings,
    find_service_name,
    name_gateway,
    name_gateway_port,
    name_gateway_routes,
    name_proxy,
    name_secret,
    name_service_port,
    name_service_routes,
    name_sidecar_port,
)
from controller.routing.index import Place, ResourceName, RouteIndex, RouteKey, RouteState
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
from controller.translate.clusters import (
    PASSTHROUGH,
    ServingEndpoint,
    build_passthrough,
    translate_cluster,
    translate_endpoints,
)
from controller.translate.gateway_ports import translate_chains
from controller.translate.listeners import translate_api_listener, translate_outbound, translate_service_port
from controller.translate.routes import Dialect, translate_hosts
from controller.translate.secrets import translate_secret

_KINDS = {kind.__name__: kind for kind in ROUTE_KINDS}
OUTBOUND = "sidecar/outbound"
"""The resource name of where a sidecar's redirect rules lead."""


@dataclass(slots=True)
class _Dirty:
    """What must be built again."""

    routes: set[RouteKey] = field(default_factory=set)
    gateways: set[Place] = field(default_factory=set)
    services: set[Place] = field(default_factory=set)
    endpoints: set[Place] = field(default_factory=set)
    clusters: set[Target] = field(default_factory=set)
    secrets: set[Place] = field(default_factory=set)


class Routing:
    """The L7 resources of a mesh, and what they were made from. One owner."""

    def __init__(self, settings: MeshSettings) -> None:
        self._settings = settings
        self._index = RouteIndex()
        self._secrets = SecretIndex()

    def build(self, snapshot: Snapshot) -> Mapping[str, ResourceChanges]:
        """Everything, from nothing."""
        built = dict(self.update(Snapshot(), snapshot, snapshot.keys()))
        outbound, passthrough = translate_outbound(OUTBOUND), build_passthrough()
        for type_url, name, message in ((LISTENER_TYPE, OUTBOUND, outbound), (CLUSTER_TYPE, PASSTHROUGH, passthrough)):
            resource = build_resource(type_url, name, message, keys=(SIDECARS,))
            built[type_url] = ResourceChanges({**built[type_url].updated, name: resource}, built[type_url].removed)
        return built

    def update(self, old: Snapshot, new: Snapshot, keys: Iterable[ObjectKey]) -> Mapping[str, ResourceChanges]:
        """The resources that the change of the objects `keys` from `old` to `new` may have changed, by type URL."""
        return _Update((self._index, self._secrets), old, new, self._settings).run(list(keys))


class _Update:
    """One change."""

    def __init__(
        self, indexes: tuple[RouteIndex, SecretIndex], old: Snapshot, new: Snapshot, settings: MeshSettings
    ) -> None:
        self._index, self._secrets = indexes
        self._old = old
        self._new = new
        self._settings = settings
        self._members = Members(new, settings, EntryHosts(new, settings))
        self._changes = {type_url: ChangeGatherer() for type_url in ROUTING_TYPES}
        self._dirty = _Dirty()
        self._rules: dict[Place, Rules] = {}

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
        for place in sorted(self._dirty.secrets):
            self._build_secret(place)
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
            case (
                HTTPRoute.__name__
                | GRPCRoute.__name__
                | TLSRoute.__name__
                | TCPRoute.__name__
                | VirtualService.__name__
            ):
                self._dirty.routes.add((key.kind, *place))
            case ReferenceGrant.__name__:
                self._dirty.routes.update(self._index.routes_into(key.namespace))
                self._dirty.gateways.update(self._secrets.gateways_into(key.namespace))
            case Secret.__name__:
                self._dirty.secrets.add(place)
                self._dirty.gateways.update(self._secrets.gateways_naming(place))
            case DestinationRule.__name__:
                for snapshot in (self._old, self._new):
                    if (rule := snapshot.find(DestinationRule, *place)) is not None:
                        self._note_service(find_service_name(rule.spec.host, rule.namespace, self._settings))
            case BackendTLSPolicy.__name__:
                for snapshot in (self._old, self._new):
                    if (policy := snapshot.find(BackendTLSPolicy, *place)) is not None:
                        self._note_policy(policy)
            case ConfigMap.__name__:
                for policy in self._new.objects_in(BackendTLSPolicy, key.namespace):
                    if any(each.name == key.name for each in policy.spec.validation.ca_certificate_refs):
                        self._note_policy(policy)
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
                        if GATEWAY_LABEL in pod.labels:
                            self._dirty.gateways.add((key.namespace, pod.labels[GATEWAY_LABEL]))
            case WorkloadEntry.__name__:
                for snapshot in (self._old, self._new):
                    if (entry := snapshot.find(WorkloadEntry, *place)) is not None:
                        self._dirty.endpoints |= set(_find_services(snapshot, key.namespace, "", entry.all_labels))
            case Node.__name__:
                for pod in self._new.objects(Pod):
                    if pod.spec.node_name == key.name:
                        self._dirty.endpoints |= set(_find_services(self._new, pod.namespace, pod.name, pod.labels))

    def _note_policy(self, policy: BackendTLSPolicy) -> None:
        for _, target in list_targets(policy):
            self._note_service((policy.namespace, target.name))

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
        hosts = (find_service_name(host, namespace, self._settings) for host in service.spec.hosts)
        destinations = (each for _, each in virtual_services.list_destinations(service))
        named = (find_service_name(each.host, namespace, self._settings) for each in destinations)
        own = frozenset(each for each in hosts if each and each[0] == namespace)
        return RouteState((), frozenset(), own, frozenset(each for each in named if each))

    def _build_gateway(self, place: Place) -> None:
        gateway = self._new.find(Gateway, *place)
        ports: dict[int, tuple[Chain, ...]] = {}
        if gateway is not None and is_ours(self._new, gateway):
            built = build_ports(self._new, gateway, self._find_attached(gateway))
            ports = {port: self._secure(chains) for port, chains in built.items()}
            self._note_secrets(place, gateway)
        else:
            self._dirty.secrets |= self._secrets.put_gateway(place, (), (), ())
        made = {
            each: resource for port, chains in ports.items() for each, resource in self._build_port(place, port, chains)
        }
        targets = {target for chains in ports.values() for target in find_chain_targets(chains)}
        gone, changed = self._index.put_gateway(place, set(made), targets)
        self._dirty.clusters |= changed
        for type_url, name in gone:
            self._changes[type_url].put(name, None)
        for (type_url, name), resource in made.items():
            self._changes[type_url].put(name, resource)

    def _secure(self, chains: Sequence[Chain]) -> tuple[Chain, ...]:
        """Speak TLS to what has a policy for it."""
        return secure_chains(chains, {each for each in find_chain_targets(chains) if self._find_tls(each)})

    def _find_tls(self, target: Target) -> BackendTls | None:
        place = find_service_name(target.host, target.namespace, self._settings)
        if place is None or next(self._new.objects_in(BackendTLSPolicy, place[0]), None) is None:
            return None
        service = self._members.find_service(*place)
        port = next((each for each in service.ports if each.number == target.port), None) if service else None
        return find_backend_tls(self._new, *place, port.name) if port else None

    def _note_secrets(self, place: Place, gateway: Gateway) -> None:
        """Take over what a Gateway needs to end TLS, and who may have it."""
        mentioned = {secret for each in gateway.spec.listeners for _, secret in list_references(gateway, each)}
        used = {secret for each in served_listeners(gateway) for secret in find_secrets(self._new, gateway, each)}
        readers = [name_proxy(*place, node) for node in find_nodes(self._new, gateway)] if used else []
        self._dirty.secrets |= self._secrets.put_gateway(place, mentioned, used, readers)

    def _build_port(self, place: Place, port: int, chains: Sequence[Chain]) -> Iterator[tuple[ResourceName, Resource]]:
        """The listener of a Gateway's port, and the routes that it names."""
        name, scope = name_gateway_port(*place, port), (name_gateway(*place),)

        def name_routes(chain: RequestChain) -> str:
            return name_gateway_routes(*place, port, chain.listener) if chain.listener else name

        yield (
            (LISTENER_TYPE, name),
            build_resource(LISTENER_TYPE, name, translate_chains(name, port, chains, name_routes), keys=scope),
        )
        for chain in chains:
            if isinstance(chain, RequestChain) and chain.secrets != ():
                routes = name_routes(chain)
                table = self._translate(routes, chain.hosts, Dialect.ENVOY)
                yield (ROUTE_TYPE, routes), build_resource(ROUTE_TYPE, routes, table)

    def _build_secret(self, place: Place) -> None:
        secret, readers = self._new.find(Secret, *place), self._secrets.readers_of(place)
        name = name_secret(*place)
        if secret is None or not readers:
            self._changes[SECRET_TYPE].put(name, None)
            return
        resource = build_resource(SECRET_TYPE, name, translate_secret(name, secret), keys=readers)
        self._changes[SECRET_TYPE].put(name, resource)

    def _find_attached(self, gateway: Gateway) -> Iterator[Attached]:
        for key, state in self._index.routes_of_gateway((gateway.namespace, gateway.name)):
            route = self._find_route(key)
            hosts: dict[str, tuple[str, ...]] = {}
            for reference in (route.spec.parent_refs or ()) if route else ():
                if route and find_gateway(reference, route.namespace) == (gateway.namespace, gateway.name):
                    hosts.update(attach(self._new, route, reference, gateway).listeners)
            age = route.age_key if route else ()
            yield Attached(hosts, state.routes, age, state.destinations)

    def _translate(self, name: str, hosts: Sequence[VirtualHost], dialect: Dialect) -> Message:
        table: Message = translate_hosts(name, hosts, lambda target: self._find_policy(target).hashing, dialect)
        return table

    def _build_service(self, place: Place) -> None:
        service = self._members.find_service(*place)
        targets = set(self._list_targets(place, service)) if service else set()
        gone = self._index.put_service(place, targets)
        self._dirty.clusters |= gone | targets
        for target in gone:
            self._changes[ENDPOINT_TYPE].put(target.cluster, None)
            if not target.subset and not target.is_secured:
                self._changes[LISTENER_TYPE].put(name_service_port(target.host, target.port), None)
                self._changes[LISTENER_TYPE].put(name_sidecar_port(target.host, target.port), None)
                self._changes[ROUTE_TYPE].put(name_service_routes(target.host, target.port), None)
        for target in targets:
            if service and not target.subset and not target.is_secured:
                self._build_sidecar_port(service, target)
                name, routes = (
                    name_service_port(target.host, target.port),
                    name_service_routes(target.host, target.port),
                )
                listener = build_resource(LISTENER_TYPE, name, translate_api_listener(name, routes))
                self._changes[LISTENER_TYPE].put(name, listener)
                hosts = [VirtualHost("all", ("*",), self._find_routes(place, target))]
                table = build_resource(ROUTE_TYPE, routes, self._translate(routes, hosts, Dialect.GRPC))
                self._changes[ROUTE_TYPE].put(routes, table)

    def _build_sidecar_port(self, service: services.Service, target: Target) -> None:
        """Where sidecars take connections to a port; to a headless service they are none of its."""
        name, routes = name_sidecar_port(target.host, target.port), name_service_routes(target.host, target.port)
        if not service.addresses:
            self._changes[LISTENER_TYPE].put(name, None)
            return
        [port] = (each for each in service.ports if each.number == target.port)
        message = translate_service_port(name, service.addresses, port, target, routes)
        self._changes[LISTENER_TYPE].put(name, build_resource(LISTENER_TYPE, name, message, keys=(SIDECARS,)))

    def _list_targets(self, place: Place, service: services.Service) -> Iterator[Target]:
        for port in service.ports:
            is_secured = find_backend_tls(self._new, *place, port.name) is not None
            for subset in ("", *self._find_rules(place).subsets):
                yield Target(place[0], service.hostname, port.number, subset)
                if is_secured:
                    yield Target(place[0], service.hostname, port.number, subset, is_secured=True)

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
            self._changes[CLUSTER_TYPE].put(target.cluster, None)
            return
        tls = self._find_tls(target) if target.is_secured else None
        if target.is_secured and tls is None:
            self._changes[CLUSTER_TYPE].put(target.cluster, None)
            return
        message = translate_cluster(target, port.protocol, self._find_policy(target), tls)
        readers = self._index.readers_of(target)
        keys = readers if target.is_secured else (SIDECARS, *readers)
        cluster = build_resource(CLUSTER_TYPE, target.cluster, message, keys=keys)
        self._changes[CLUSTER_TYPE].put(target.cluster, cluster)


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
