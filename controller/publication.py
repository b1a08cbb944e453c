"""From a change of objects to the resources that it changes: what is touched is translated again, nothing else.

    object that changed          what depends on it
    Pod                          its workload
    Service                      the service; workloads of its namespace (whose `services` it may enter or leave)
    ServiceEntry                 its hosts, and others that lose or win a host or an address by it; their endpoints;
                                 workloads of its namespace, if it selects
    WorkloadEntry                its workload
    EndpointSlice                its endpoints, and the pods that it names
    Node                         workloads on that node (locality)
    Namespace                    services of that namespace (traffic distribution), its workloads (node-local), of both
                                 the waypoint; hosts of its ServiceEntries (waypoint)
    Gateway, GatewayClass        its pods; if it is a waypoint: the services and workloads that ask for it
    AuthorizationPolicy          itself; workloads of its namespace if it selects, all if it does so from the root
    PeerAuthentication           what it converts to; workloads of its namespace, all if it is in the root

Pure: `build_changes(old, new, keys, settings)` compares nothing and reads only the snapshots. Whether a resource that
was built again differs from what is served is decided where it is stored, by its bytes.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from controller.kinds.core import Namespace, Node, Pod, Service
from controller.kinds.discovery import EndpointSlice
from controller.kinds.gateway_api import GATEWAY_LABEL, Gateway, GatewayClass
from controller.kinds.meta import ObjectKey
from controller.kinds.networking import ServiceEntry, WorkloadEntry
from controller.kinds.security import AuthorizationPolicy, PeerAuthentication
from controller.registry import entries, policies, services, slices
from controller.registry.byte_policies import judge_for_ztunnel
from controller.registry.entries import EntryHosts
from controller.registry.members import Members
from controller.registry.names import (
    MeshSettings,
    name_entry,
    name_host,
    name_hosted,
    name_pod,
    name_policy,
    name_service,
)
from controller.registry.waypoints import Waypoints
from controller.registry.workloads import Workload
from controller.serve.resources import (
    ADDRESS_TYPE,
    AUTHORIZATION_TYPE,
    ChangeGatherer,
    Resource,
    ResourceChanges,
    build_resource,
)
from controller.snapshot import Snapshot
from controller.translate import addresses, authorizations

Publication = Mapping[str, ResourceChanges]
"""What to serve anew, by type URL, in the order in which a client should learn of it."""


@dataclass(slots=True)
class _Touched:
    """What must be translated again."""

    pods: set[tuple[str, str]] = field(default_factory=set)
    services: set[tuple[str, str]] = field(default_factory=set)
    hosts: set[tuple[str, str]] = field(default_factory=set)
    entries: set[tuple[str, str]] = field(default_factory=set)
    workload_entries: set[tuple[str, str]] = field(default_factory=set)
    slices: set[tuple[str, str]] = field(default_factory=set)
    policies: set[tuple[str, str]] = field(default_factory=set)
    peer_namespaces: set[str] = field(default_factory=set)


def build_changes(old: Snapshot, new: Snapshot, keys: Iterable[ObjectKey], settings: MeshSettings) -> Publication:
    """The resources that the change of the objects `keys` from `old` to `new` may have changed."""
    hosts = EntryHosts(new, settings)
    touched = _find_touched(old, new, keys, settings, hosts)
    builder = _Builder(new, settings, Members(new, settings, hosts))
    authorization, address = ChangeGatherer(), ChangeGatherer()
    for namespace, name in touched.policies:
        authorization.put(name_policy(namespace, name), builder.build_policy(namespace, name))
    _put_converted(authorization, old, new, touched.peer_namespaces, settings)
    for namespace, name in touched.services:
        address.put(name_service(settings, namespace, name), builder.build_service(namespace, name))
    for namespace, host in touched.hosts:
        address.put(name_hosted(namespace, host), builder.build_host(namespace, host))
    for namespace, name in touched.entries:
        for snapshot in (old, new):
            for gone in builder.endpoint_names(snapshot, namespace, name):
                address.put(gone, None)
        for resource in builder.build_endpoints(namespace, name):
            address.put(resource.name, resource)
    for namespace, name in touched.slices:
        for snapshot in (old, new):
            part = snapshot.find(EndpointSlice, namespace, name)
            for gone in slices.endpoint_names(part, settings) if part else ():
                address.put(gone, None)
        for resource in builder.build_slice(namespace, name):
            address.put(resource.name, resource)
    for namespace, name in touched.workload_entries:
        address.put(name_entry(settings, namespace, name), builder.build_entry(namespace, name))
    for namespace, name in touched.pods:
        address.put(name_pod(settings.cluster_id, namespace, name), builder.build_workload(namespace, name))
    return {AUTHORIZATION_TYPE: authorization.finish(), ADDRESS_TYPE: address.finish()}


class _Builder:
    """Builds resources from one snapshot."""

    def __init__(self, snapshot: Snapshot, settings: MeshSettings, members: Members) -> None:
        self._snapshot = snapshot
        self._settings = settings
        self._members = members

    def build_policy(self, namespace: str, name: str) -> Resource | None:
        """Nothing where it is attached to targets, which are no ztunnels, or audits, which these do not."""
        policy = self._snapshot.find(AuthorizationPolicy, namespace, name)
        if policy is None or policy.targets or policy.spec.action == "AUDIT":
            return None
        message = authorizations.translate_policy(judge_for_ztunnel(policy), self._settings)
        return build_resource(AUTHORIZATION_TYPE, name_policy(namespace, name), message)

    def build_service(self, namespace: str, name: str) -> Resource | None:
        """The Service's; without one, that of the entry that has its host."""
        service = self._members.find_service(namespace, name)
        if service is None:
            return self.build_host(namespace, name_host(self._settings, namespace, name))
        return _build_service_resource(service)

    def build_host(self, namespace: str, name: str) -> Resource | None:
        host = self._members.hosts.by_place.get((namespace, name))
        return _build_service_resource(self._members.build_host(host)) if host else None

    def build_endpoints(self, namespace: str, name: str) -> Iterator[Resource]:
        return map(self._build_workload_resource, self._members.find_entry_endpoints(namespace, name))

    def endpoint_names(self, snapshot: Snapshot, namespace: str, name: str) -> Iterator[str]:
        entry = snapshot.find(ServiceEntry, namespace, name)
        return entries.endpoint_names(entry, self._settings) if entry else iter(())

    def build_slice(self, namespace: str, name: str) -> Iterator[Resource]:
        return map(self._build_workload_resource, self._members.find_slice_endpoints(namespace, name))

    def build_entry(self, namespace: str, name: str) -> Resource | None:
        workload = self._members.find_entry(namespace, name)
        return self._build_workload_resource(workload) if workload else None

    def build_workload(self, namespace: str, name: str) -> Resource | None:
        workload = self._members.find_workload(namespace, name)
        return self._build_workload_resource(workload) if workload else None

    def _build_workload_resource(self, workload: Workload) -> Resource:
        message = addresses.translate_workload(workload, self._settings)
        aliases, keys = addresses.find_workload_aliases(workload), addresses.find_workload_keys(workload)
        return build_resource(ADDRESS_TYPE, workload.uid, message, aliases, keys)


def _build_service_resource(service: services.Service) -> Resource:
    keys = addresses.find_service_keys(service)
    return build_resource(ADDRESS_TYPE, service.resource_name, addresses.translate_service(service), keys)


def _find_touched(
    old: Snapshot, new: Snapshot, keys: Iterable[ObjectKey], settings: MeshSettings, hosts: EntryHosts
) -> _Touched:
    keys = list(keys)
    touched = _Touched()
    nodes: set[str] = set()
    whole_namespaces: set[str] = set()
    is_whole_mesh = False
    for key in keys:
        place = key.namespace
        match key.group_kind:
            case Pod.GROUP_KIND:
                touched.pods.add((place, key.name))
            case EndpointSlice.GROUP_KIND:
                touched.slices.add((place, key.name))
                parts = (snapshot.find(EndpointSlice, place, key.name) for snapshot in (old, new))
                pods = {endpoint.pod for part in parts if part for _, endpoint in part.servers}
                touched.pods |= {(place, pod) for pod in pods if pod}
            case WorkloadEntry.GROUP_KIND:
                touched.workload_entries.add((place, key.name))
            case Node.GROUP_KIND:
                nodes.add(key.name)
            case Service.GROUP_KIND:
                touched.services.add((place, key.name))
                whole_namespaces.add(place)
            case Namespace.GROUP_KIND:
                touched.services |= {(key.name, service.name) for service in new.objects_in(Service, key.name)}
                whole_namespaces.add(key.name)
            case AuthorizationPolicy.GROUP_KIND:
                touched.policies.add((place, key.name))
                if _has_selector(old, place, key.name) or _has_selector(new, place, key.name):
                    whole_namespaces.add(place)
                    is_whole_mesh |= place == settings.root_namespace
            case PeerAuthentication.GROUP_KIND:
                touched.peer_namespaces.add(place)
                whole_namespaces.add(place)
                is_whole_mesh |= place == settings.root_namespace
    whole_namespaces |= _touch_hosts(touched, keys, EntryHosts(old, settings), hosts)
    _touch_users(touched, keys, (old, new), settings, hosts)
    for namespace in whole_namespaces:
        touched.slices |= {(namespace, part.name) for part in new.objects_in(EndpointSlice, namespace)}
    if is_whole_mesh:
        touched.peer_namespaces |= {policy.namespace for policy in new.objects(PeerAuthentication)}
        touched.pods |= {(pod.namespace, pod.name) for pod in new.objects(Pod)}
        touched.workload_entries |= {(entry.namespace, entry.name) for entry in new.objects(WorkloadEntry)}
        return touched
    for namespace in whole_namespaces:
        touched.pods |= {(namespace, pod.name) for pod in new.objects_in(Pod, namespace)}
        touched.workload_entries |= {(namespace, entry.name) for entry in new.objects_in(WorkloadEntry, namespace)}
    if nodes:
        touched.pods |= {(pod.namespace, pod.name) for pod in new.objects(Pod) if pod.spec.node_name in nodes}
    return touched


def _touch_hosts(touched: _Touched, keys: Iterable[ObjectKey], before: EntryHosts, after: EntryHosts) -> set[str]:
    """What changes of hosts touch, which a Service may take too; returns the namespaces whose workloads they select."""
    changed = [key for key in keys if key.group_kind in (ServiceEntry.GROUP_KIND, Service.GROUP_KIND)]
    if not changed:
        return set()
    places = before.by_place.keys() | after.by_place.keys()
    touched.hosts |= {place for place in places if before.by_place.get(place) != after.by_place.get(place)}
    touched.entries |= {(key.namespace, key.name) for key in changed if key.group_kind == ServiceEntry.GROUP_KIND}
    selecting = set()
    for place in touched.hosts:
        for host in filter(None, (before.by_place.get(place), after.by_place.get(place))):
            touched.entries.add((host.entry.namespace, host.entry.name))
            if host.entry.selector:
                selecting.add(host.entry.namespace)
    return selecting


def _touch_users(
    touched: _Touched,
    keys: Iterable[ObjectKey],
    versions: tuple[Snapshot, Snapshot],
    settings: MeshSettings,
    hosts: EntryHosts,
) -> None:
    """What changes of waypoints and of Namespaces' wishes for them touch, besides what the latter touch anyway."""
    changed = {(key.namespace, key.name) for key in keys if key.group_kind == Gateway.GROUP_KIND}
    classes = {key.name for key in keys if key.group_kind == GatewayClass.GROUP_KIND}
    owners = {key.name for key in keys if key.group_kind == Namespace.GROUP_KIND}
    gateways: set[tuple[str, str]] = set()
    for snapshot in versions:
        waypoints = Waypoints(snapshot, settings)
        changed |= {
            (each.namespace, each.name)
            for each in (snapshot.objects(Gateway) if classes else ())
            if each.spec.gateway_class_name in classes
        }
        gateways |= {place for place in changed if waypoints.find_gateway(place)}
    for place in changed:  # what their Envoys enforce, ztunnels do not
        pods = versions[-1].objects_in(Pod, place[0])
        touched.pods |= {(pod.namespace, pod.name) for pod in pods if pod.labels.get(GATEWAY_LABEL) == place[1]}
    if owners or gateways:
        new = versions[-1]
        waypoints = Waypoints(new, settings)
        for place, host in hosts.by_place.items():
            if place[0] in owners or waypoints.find_wanted(place[0], host.entry.labels) in gateways:
                touched.hosts.add(place)
    if gateways:
        touched.services |= gateways
        users: tuple[tuple[type[Service | Pod | WorkloadEntry], set[tuple[str, str]]], ...] = (
            (Service, touched.services),
            (Pod, touched.pods),
            (WorkloadEntry, touched.workload_entries),
        )
        for model, places in users:
            for each in new.objects(model):
                labels = each.all_labels if isinstance(each, WorkloadEntry) else each.labels
                proxied = (each.namespace, labels.get(GATEWAY_LABEL, ""))
                if proxied in gateways or waypoints.find_wanted(each.namespace, labels) in gateways:
                    places.add((each.namespace, each.name))


def _has_selector(snapshot: Snapshot, namespace: str, name: str) -> bool:
    policy = snapshot.find(AuthorizationPolicy, namespace, name)
    return policy is not None and bool(policy.match_labels)


def _put_converted(
    changes: ChangeGatherer, old: Snapshot, new: Snapshot, namespaces: Iterable[str], settings: MeshSettings
) -> None:
    """What the PeerAuthentications of `namespaces` convert to. The static one exists as long as any of them does."""
    for namespace in namespaces:
        for policy in old.objects_in(PeerAuthentication, namespace):
            changes.put(name_policy(namespace, policies.CONVERTED_PREFIX + policy.name), None)
        for resource in _build_converted(new, namespace, settings):
            changes.put(resource.name, resource)
    name = name_policy(settings.root_namespace, policies.STATIC_STRICT_NAME)
    exists = new.count(PeerAuthentication) > 0
    if exists or old.count(PeerAuthentication) > 0:
        static = build_resource(AUTHORIZATION_TYPE, name, authorizations.build_static_strict(settings))
        changes.put(name, static if exists else None)


def _build_converted(snapshot: Snapshot, namespace: str, settings: MeshSettings) -> Iterator[Resource]:
    for policy in snapshot.objects_in(PeerAuthentication, namespace):
        base = policies.find_base_mode(snapshot, policy, settings)
        ports = policies.find_port_exceptions(policy, base)
        if ports:
            name = name_policy(namespace, policies.CONVERTED_PREFIX + policy.name)
            message = authorizations.translate_port_exceptions(policy, base, ports)
            yield build_resource(AUTHORIZATION_TYPE, name, message)
