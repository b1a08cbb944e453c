"""From a change of objects to the resources that it changes: what is touched is translated again, nothing else.

    object that changed          what depends on it
    Pod                          its workload
    Service                      the service; workloads of its namespace (whose `services` it may enter or leave)
    Node                         workloads on that node (locality)
    Namespace                    services of that namespace (traffic distribution), its workloads (node-local)
    AuthorizationPolicy          itself; workloads of its namespace if it selects, all if it does so from the root
    PeerAuthentication           what it converts to; workloads of its namespace, all if it is in the root

Pure: `build_changes(old, new, keys, settings)` compares nothing and reads only the snapshots. Whether a resource that
was built again differs from what is served is decided where it is stored, by its bytes.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from controller.kinds.core import Namespace, Node, Pod, Service
from controller.kinds.meta import ObjectKey
from controller.kinds.security import AuthorizationPolicy, PeerAuthentication
from controller.registry import policies, services, workloads
from controller.registry.names import MeshSettings, name_pod, name_policy, name_service
from controller.serve.resources import (
    ADDRESS_TYPE,
    AUTHORIZATION_TYPE,
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
    policies: set[tuple[str, str]] = field(default_factory=set)
    peer_namespaces: set[str] = field(default_factory=set)


def build_changes(old: Snapshot, new: Snapshot, keys: Iterable[ObjectKey], settings: MeshSettings) -> Publication:
    """The resources that the change of the objects `keys` from `old` to `new` may have changed."""
    touched = _find_touched(old, new, keys, settings)
    builder = _Builder(new, settings)
    authorization, address = _Changes(), _Changes()
    for namespace, name in touched.policies:
        authorization.put(name_policy(namespace, name), builder.build_policy(namespace, name))
    _put_converted(authorization, old, new, touched.peer_namespaces, settings)
    for namespace, name in touched.services:
        address.put(name_service(settings, namespace, name), builder.build_service(namespace, name))
    for namespace, name in touched.pods:
        address.put(name_pod(settings.cluster_id, namespace, name), builder.build_workload(namespace, name))
    return {AUTHORIZATION_TYPE: authorization.finish(), ADDRESS_TYPE: address.finish()}


class _Changes:
    """Gathers the changes of one type."""

    def __init__(self) -> None:
        self._updated: dict[str, Resource] = {}
        self._removed: set[str] = set()

    def put(self, name: str, resource: Resource | None) -> None:
        if resource is None:
            self._removed.add(name)
        else:
            self._updated[name] = resource

    def finish(self) -> ResourceChanges:
        return ResourceChanges(self._updated, frozenset(self._removed - self._updated.keys()))


class _Builder:
    """Builds resources from one snapshot. Services are seen once per namespace, not once per pod."""

    def __init__(self, snapshot: Snapshot, settings: MeshSettings) -> None:
        self._snapshot = snapshot
        self._settings = settings
        self._services: dict[str, dict[str, tuple[Service, services.Service]]] = {}

    def build_policy(self, namespace: str, name: str) -> Resource | None:
        policy = self._snapshot.find(AuthorizationPolicy, namespace, name)
        if policy is None:
            return None
        message = authorizations.translate_policy(policy, self._settings)
        return build_resource(AUTHORIZATION_TYPE, name_policy(namespace, name), message)

    def build_service(self, namespace: str, name: str) -> Resource | None:
        if name not in self._find_services(namespace):
            return None
        _, service = self._find_services(namespace)[name]
        keys = addresses.find_service_keys(service)
        return build_resource(ADDRESS_TYPE, service.resource_name, addresses.translate_service(service), keys)

    def build_workload(self, namespace: str, name: str) -> Resource | None:
        pod = self._snapshot.find(Pod, namespace, name)
        if pod is None or not workloads.is_published(pod):
            return None
        node = self._snapshot.find(Node, "", pod.spec.node_name or "")
        known = self._find_services(namespace).values()
        selecting = [service for source, service in known if services.selects(source, pod.labels)]
        names = policies.find_policy_names(self._snapshot, namespace, pod.labels, self._settings)
        owner = self._snapshot.find(Namespace, "", namespace)
        workload = workloads.build_workload(pod, node, owner, selecting, names, self._settings)
        message = addresses.translate_workload(workload, self._settings)
        aliases, keys = addresses.find_workload_aliases(workload), addresses.find_workload_keys(workload)
        return build_resource(ADDRESS_TYPE, workload.uid, message, aliases, keys)

    def _find_services(self, namespace: str) -> dict[str, tuple[Service, services.Service]]:
        if namespace not in self._services:
            owner = self._snapshot.find(Namespace, "", namespace)
            self._services[namespace] = {
                service.name: (service, services.build_service(service, owner, self._settings))
                for service in self._snapshot.objects_in(Service, namespace)
                if services.is_served(service)
            }
        return self._services[namespace]


def _find_touched(old: Snapshot, new: Snapshot, keys: Iterable[ObjectKey], settings: MeshSettings) -> _Touched:
    touched = _Touched()
    nodes: set[str] = set()
    whole_namespaces: set[str] = set()
    is_whole_mesh = False
    for key in keys:
        place = key.namespace
        match key.kind:
            case Pod.__name__:
                touched.pods.add((place, key.name))
            case Node.__name__:
                nodes.add(key.name)
            case Service.__name__:
                touched.services.add((place, key.name))
                whole_namespaces.add(place)
            case Namespace.__name__:
                touched.services |= {(key.name, service.name) for service in new.objects_in(Service, key.name)}
                whole_namespaces.add(key.name)
            case AuthorizationPolicy.__name__:
                touched.policies.add((place, key.name))
                if _has_selector(old, place, key.name) or _has_selector(new, place, key.name):
                    whole_namespaces.add(place)
                    is_whole_mesh |= place == settings.root_namespace
            case PeerAuthentication.__name__:
                touched.peer_namespaces.add(place)
                whole_namespaces.add(place)
                is_whole_mesh |= place == settings.root_namespace
    if is_whole_mesh:
        touched.peer_namespaces |= {policy.namespace for policy in new.objects(PeerAuthentication)}
        touched.pods |= {(pod.namespace, pod.name) for pod in new.objects(Pod)}
        return touched
    for namespace in whole_namespaces:
        touched.pods |= {(namespace, pod.name) for pod in new.objects_in(Pod, namespace)}
    if nodes:
        touched.pods |= {(pod.namespace, pod.name) for pod in new.objects(Pod) if pod.spec.node_name in nodes}
    return touched


def _has_selector(snapshot: Snapshot, namespace: str, name: str) -> bool:
    policy = snapshot.find(AuthorizationPolicy, namespace, name)
    return policy is not None and bool(policy.match_labels)


def _put_converted(
    changes: _Changes, old: Snapshot, new: Snapshot, namespaces: Iterable[str], settings: MeshSettings
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
