"""What a change of objects touches: read from the objects before and after, and from what hangs on what.

The table in `publication` says the same in words. Nothing is built here, and nothing kept.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial

from controller.kinds.backend_tls_policy import BackendTLSPolicy
from controller.kinds.config_maps import ConfigMap
from controller.kinds.core import Namespace, Node, Pod, Service
from controller.kinds.destination_rule import DestinationRule
from controller.kinds.discovery import EndpointSlice
from controller.kinds.envoy_filter import EnvoyFilter
from controller.kinds.gateway_api import GATEWAY_LABEL, Gateway, GatewayClass, ReferenceGrant
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
from controller.kinds.telemetry import Telemetry
from controller.kinds.virtual_service import VirtualService
from controller.registry import ingress, policies, request_policies, services, telemetry
from controller.registry.attachment import covers
from controller.registry.backend_tls import list_targets
from controller.registry.entries import EntryHosts
from controller.registry.envoy_filters import Side, is_for, is_for_all, selects
from controller.registry.gateway_proxies import GatewayProxies, describe_gateway, describe_ingress
from controller.registry.names import Place, find_full_host, find_service_name, name_host
from controller.registry.proxies import Ingress
from controller.registry.sidecars import Visibility
from controller.registry.waypoints import Waypoints
from controller.routing.clusters import list_localities
from controller.routing.dirty import Dirty
from controller.routing.index import RouteIndex
from controller.routing.patched import PatchedResources
from controller.routing.secrets import SecretIndex
from controller.routing.update import Update
from controller.snapshot import Snapshot

_AUTHORIZER_KINDS = {each.GROUP_KIND for each in (Service, ServiceEntry, ConfigMap, BackendTLSPolicy)}
"""On what it depends whom policies with action CUSTOM ask."""


class Notes:
    """Notes what one change touches. One use."""

    def __init__(self, update: Update, index: RouteIndex, secrets: SecretIndex, patched: PatchedResources) -> None:
        self._update = update
        self._old = update.old
        self._new = update.new
        self._settings = update.settings
        self._ingresses = update.ingresses
        self._members = update.members
        self._visibility = update.visibility
        self._index = index
        self._secrets = secrets
        self._patched = patched
        self._dirty = Dirty()

    def note(self, keys: Collection[ObjectKey]) -> Dirty:
        """What the objects `keys` touch at once. What their routes hang on comes when those are read."""
        for key in keys:
            self._note(key)
        self._note_nodes({key.name for key in keys if key.group_kind == Node.GROUP_KIND})
        if any(key.group_kind in (Service.GROUP_KIND, ServiceEntry.GROUP_KIND) for key in keys):
            self._note_hosts()
        if any(key.group_kind in _AUTHORIZER_KINDS for key in keys):
            for policy in self._new.objects(AuthorizationPolicy):
                if policy.spec.provider:
                    self._note_policy(policy)
        return self._dirty

    def find_selected(self, gateways: Iterable[Place]) -> Iterator[Ingress]:
        """The ingress gateways that Istio's Gateways at `gateways` select, or did."""
        for place in gateways:
            for snapshot in (self._old, self._new):
                if (gateway := snapshot.find(IstioGateway, *place)) is not None:
                    yield from (each for each in self._ingresses if ingress.selects(gateway, each))

    def _note(self, key: ObjectKey) -> None:
        """One case for each row of the table."""
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
                for holder in self._secrets.holders_naming(place):
                    if isinstance(holder, Ingress):
                        self._dirty.ingresses.add(holder)
                    else:
                        self._dirty.gateways.add(holder)
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
                        self._dirty.ingresses.update(self._find_proved_by(pod))
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
                self._dirty.services.update(self._update.list_services())
            if any(each.apply_to == "CLUSTER" for each in changing):
                self._dirty.clusters |= self._index.all_targets()

    def _note_sidecar(self, namespace: str) -> None:
        self._dirty.clusters |= self._patched.references_of_sidecars
        before = Visibility(self._old, self._settings)
        for place in self._update.list_services():
            host = self._update.find_host(place)
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
                self._dirty.services.update(self._update.list_services())

    def _note_proxies(self, is_chosen: Callable[[GatewayProxies], bool]) -> None:
        gateways = (each for each in self._new.objects(Gateway) if is_chosen(describe_gateway(each)))
        self._dirty.gateways |= {(each.namespace, each.name) for each in gateways}
        self._dirty.ingresses |= {each for each in self._ingresses if is_chosen(describe_ingress(each))}

    def _note_service(self, place: Place | None) -> None:
        if place is not None:
            self._dirty.services.add(place)
            self._dirty.routes.update(self._index.routes_to(place))

    def _note_policy(self, policy: request_policies.Policy | None) -> None:
        if policy is None:
            return
        gateways = request_policies.find_gateways(self._new, self._settings, policy)
        self._dirty.gateways |= {(each.namespace, each.name) for each in gateways}
        self._note_proxies(partial(request_policies.selects, self._settings, policy))
        for service in request_policies.find_services(self._new, policy):
            self._note_wanted(self._new, service.namespace, service.labels)

    def _find_proved_by(self, pod: Pod) -> Iterator[Ingress]:
        """The ingress gateways one of whose proxies a pod may be."""
        for each in self._ingresses:
            if each.namespace == pod.namespace and policies.matches(dict(each.labels), pod.labels):
                yield each

    def _find_behind(self, place: Place) -> Iterator[Ingress]:
        """The ingress gateways that a Service stands before, or did."""
        for snapshot in (self._old, self._new):
            if (service := snapshot.find(Service, *place)) is not None:
                for each in self._ingresses:
                    if each.namespace == place[0] and services.selects(service, dict(each.labels)):
                        yield each


def _find_services(snapshot: Snapshot, namespace: str, pod: str, labels: Mapping[str, str]) -> Iterator[Place]:
    """The Services that a workload with `labels`, or the pod of that name, serves."""
    for service in snapshot.objects_in(Service, namespace):
        if services.selects(service, labels):
            yield namespace, service.name
        elif not service.spec.selector and pod:
            for part in snapshot.objects_in(EndpointSlice, namespace):
                if part.service == service.name and any(endpoint.pod == pod for _, endpoint in part.servers):
                    yield namespace, service.name
