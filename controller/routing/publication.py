"""From a change of objects to the L7 resources that it changes: what is touched is built again, nothing else.

    object that changed                  what depends on it
    Gateway                              its ports, their routes, which clusters and secrets its proxies have; if it is
                                         a waypoint, the Services that ask for it
    Istio's Gateway                      the same, of the ingress gateways that it selects, now and before
    GatewayClass, Namespace              the same, of all Gateways (whose they are, which namespaces may attach)
    *Route, VirtualService               the Gateways and Services that it attaches to, now and before, and those of
                                         the VirtualServices that delegate to it
    AuthorizationPolicy,                 the gateways of both kinds that it is attached to or selects, now and before
    RequestAuthentication
    KeySet                               the Gateways of the RequestAuthentications that take their keys from there
    BackendTLSPolicy, ConfigMap          the clusters and endpoints of its Services, and the routes that point at them
    any of these three, and services,    whoever has policies with action CUSTOM: whom these ask may be another
    the mesh's settings
    Secret                               itself, and the Gateways and ingress gateways that name it
    DestinationRule                      the clusters and endpoints of its Service, and the routes that point at it
    ReferenceGrant                       the routes and Gateways that point into its namespace from elsewhere
    Service                              its clusters, endpoints and routes, routes that point at it, its waypoint, and
                                         where the ingress gateways listen that it stands before
    ServiceEntry                         the same of each of its hosts, and of those that it takes from others
    Pod, WorkloadEntry, EndpointSlice    the endpoints of the Services that it serves, now and before;
                                         the secrets of the Gateway or ingress gateway whose proxy a pod is
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

`notes` follows the table. The rooms beside it each build one sort of resource, and give what else must be built for
that; `_Building` alone knows in which order.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from controller.kinds.envoy_filter import EnvoyFilter
from controller.kinds.gateway_api import Gateway, GatewayClass
from controller.kinds.meta import ObjectKey
from controller.kinds.sidecar import Sidecar
from controller.kinds.telemetry import Telemetry
from controller.registry.http import Target
from controller.registry.names import MeshSettings, Place
from controller.registry.proxies import Ingress
from controller.routing.clusters import Clusters
from controller.routing.dirty import Dirty
from controller.routing.gateways import GatewayPorts
from controller.routing.index import RouteIndex
from controller.routing.notes import Notes
from controller.routing.patched import PatchedResources
from controller.routing.patching import PatchRecord
from controller.routing.routes import RouteReader
from controller.routing.secrets import SecretIndex, Secrets
from controller.routing.service_routes import ServiceRoutes
from controller.routing.services import Services
from controller.routing.sidecars import SidecarPorts, build_fixed
from controller.routing.update import Update, begin
from controller.routing.waypoints import WaypointListeners
from controller.serve.resources import (
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    ROUTING_TYPES,
    SECRET_TYPE,
    ChangeGatherer,
    ResourceChanges,
)
from controller.snapshot import Snapshot

_ADDING_KINDS = {each.GROUP_KIND for each in (EnvoyFilter, Gateway, GatewayClass, Sidecar)}
"""On what it depends which resources EnvoyFilters add, and for whom; beside it, on which ingress gateways there are."""
_FIXED_KINDS = {each.GROUP_KIND for each in (Sidecar, Telemetry)}
"""On what it depends what all sidecars have."""


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
        for type_url, resource in build_fixed(snapshot, self._settings):
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

    def _begin(self, old: Snapshot, new: Snapshot) -> "_Building":
        return _Building(self._kept, begin(old, new, self._settings, self._kept.ingresses))


class _Building:
    """Builds what one change touches. One use."""

    def __init__(self, kept: _Kept, update: Update) -> None:
        new, settings, index = update.new, update.settings, kept.routes
        self._update = update
        self._index = index
        self._changes = {type_url: ChangeGatherer() for type_url in ROUTING_TYPES}
        self._patched = PatchedResources(self._changes, kept.patches, new, settings)
        self._notes = Notes(update, index, kept.secrets, self._patched)
        self._route_reader = RouteReader(update)
        routes = ServiceRoutes(update, index)
        self._sidecars = SidecarPorts(update, index, routes, self._patched)
        self._services = Services(update, index, routes, self._sidecars, self._changes)
        self._gateways = GatewayPorts(update, index, self._patched)
        self._waypoints = WaypointListeners(update, index, routes, self._changes)
        self._clusters = Clusters(new, settings, index, update.members, update.destinations, update.ingresses)
        self._secrets = Secrets(new, kept.secrets, self._changes[SECRET_TYPE])

    def run(self, keys: list[ObjectKey]) -> Mapping[str, ResourceChanges]:
        """The resources that the change of the objects `keys` may have changed."""
        dirty = self._notes.note(keys)
        for route in sorted(dirty.routes):
            after = self._route_reader.read_route(route)
            before = self._index.put_route(route, after)
            for state in filter(None, (before, after)):
                dirty.gateways |= state.gateways
                dirty.services |= state.services
                dirty.istio_gateways |= state.istio_gateways
        dirty.ingresses.update(self._notes.find_selected(dirty.istio_gateways))
        changed = {key.group_kind for key in keys}
        if changed & _FIXED_KINDS:
            for type_url, resource in build_fixed(self._update.new, self._update.settings):
                self._changes[type_url].put(resource.name, resource)
        return self._build(dirty, adds=bool(changed & _ADDING_KINDS))

    def run_for(self, opened: Ingress) -> Mapping[str, ResourceChanges]:
        """The resources of an ingress gateway that was opened or closed."""
        return self._build(Dirty(ingresses={opened}), adds=True)

    def _build(self, dirty: Dirty, adds: bool) -> Mapping[str, ResourceChanges]:
        """Each step may touch what comes after it, never what came before."""
        for place in sorted(dirty.services):
            dirty.add(self._services.build(place))
        for place in sorted(dirty.sidecars):
            self._sidecars.build(place)
        for place in sorted(dirty.gateways):
            dirty.clusters |= self._gateways.build_gateway(place)
            dirty.secrets |= self._secrets.note_gateway(place)
            dirty.clusters |= self._waypoints.build(place)
            dirty.waypoints.add(place)
        for each in sorted(dirty.ingresses):
            dirty.clusters |= self._gateways.build_ingress(each)
            dirty.secrets |= self._secrets.note_ingress(each, is_open=each in self._update.ingresses)
        for place in sorted(dirty.waypoints):
            dirty.clusters |= self._index.settle_waypoint(place)
        if dirty.gateways or dirty.ingresses:  # there may be others that go through waypoints
            dirty.endpoints |= self._index.gated
        for place in sorted(dirty.services | dirty.endpoints):
            dirty.clusters |= self._build_endpoints(place)
        for target in sorted(dirty.clusters):
            self._build_cluster(target)
        for place in sorted(dirty.secrets):
            self._secrets.build(place)
        if adds:
            self._patched.put_added(sorted(self._update.ingresses))
        return {type_url: changes.finish() for type_url, changes in self._changes.items()}

    def _build_endpoints(self, place: Place) -> set[Target]:
        """Gives the targets whose clusters say themselves who serves them."""
        built = dict(self._clusters.build_endpoints(place))
        for target, resource in built.items():
            self._changes[ENDPOINT_TYPE].put(target.cluster, resource)
        return {target for target, resource in built.items() if resource is None}

    def _build_cluster(self, target: Target) -> None:
        built = self._clusters.build_cluster(target)
        if built is None:
            self._patched.remove(CLUSTER_TYPE, target.cluster)
            return
        message, forms = built
        keys = (*self._sidecars.list_readers(target), *self._index.readers_of(target))
        self._patched.put_cluster(target, message, keys, forms)
