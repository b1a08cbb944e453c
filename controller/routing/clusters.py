"""The clusters of destinations and who serves them, as resources, with a form for each place where that matters."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment

from controller.kinds.core import Node
from controller.registry import policies
from controller.registry.gateway_proxies import list_ingress_readers
from controller.registry.http import Target
from controller.registry.localities import ServingEndpoint, arrange, find_preference, list_standpoints
from controller.registry.members import Members
from controller.registry.names import MeshSettings, Place
from controller.registry.proxies import Ingress
from controller.registry.services import Discovery, Service
from controller.registry.workloads import Locality, Workload, find_locality
from controller.routing.destinations import Destinations
from controller.routing.index import RouteIndex
from controller.serve.resources import ENDPOINT_TYPE, Resource, build_resource
from controller.snapshot import Snapshot
from controller.translate.clusters import (
    address_mesh,
    pass_through,
    resolve_names,
    translate_cluster,
    translate_endpoints,
)


class Clusters:
    """Builds them for one snapshot. Notes in the index which services depend on where clients stand."""

    def __init__(
        self,
        snapshot: Snapshot,
        settings: MeshSettings,
        index: RouteIndex,
        members: Members,
        destinations: Destinations,
        ingresses: Iterable[Ingress] = (),
    ) -> None:
        """`ingresses` are the ingress gateways that are open."""
        self._snapshot = snapshot
        self._settings = settings
        self._index = index
        self._members = members
        self._destinations = destinations
        self._ingresses = ingresses

    def build_endpoints(self, place: Place) -> Iterator[tuple[Target, Resource | None]]:
        """Who serves each target of a service; None where its cluster says that itself."""
        self._index.placed.discard(place)
        self._index.gated.discard(place)
        service = self._members.find(place)
        if service and service.gates_ingress:
            self._index.gated.add(place)
        serving = list(self._find_serving(service)) if service and service.discovery is Discovery.MESH else []
        for target in self._destinations.list_targets(service) if service else ():
            if service is None or service.discovery is not Discovery.MESH:
                yield target, None
                continue
            message, forms = self._build_assignments(service, target, list(self._list(service, target, serving)))
            forms |= self._gate(service, target)
            yield target, build_resource(ENDPOINT_TYPE, target.cluster, message, forms=forms)

    def build_cluster(self, target: Target) -> tuple[Cluster, dict[str, Cluster]] | None:
        """A target's cluster, and its forms by the keys of those who have other ones; None without such a target."""
        service = self._destinations.find_service(target)
        if service is None or target not in set(self._destinations.list_targets(service)):
            return None
        [port] = (each for each in service.ports if each.number == target.port)
        policy = self._destinations.find_policy(target)
        tls = self._destinations.find_backend_tls(target) if target.is_secured else None
        message = translate_cluster(target, port.protocol, policy, service.subject_names, tls)
        forms: dict[str, Cluster] = {}
        match service.discovery:
            case Discovery.NAMES | Discovery.ONE_NAME:
                forms = self._resolve(message, service, target)
            case Discovery.CLIENT:
                pass_through(message)
            case Discovery.MESH:
                pass
        return message, forms

    def _resolve(self, cluster: Cluster, service: Service, target: Target) -> dict[str, Cluster]:
        """Let a cluster resolve names; gives its forms."""
        is_one = service.discovery is Discovery.ONE_NAME
        endpoints = list(self._list(service, target, self._find_serving(service)))
        assignment, assignments = self._build_assignments(service, target, endpoints)
        resolve_names(cluster, assignment, is_one)
        forms = {}
        for key, each in assignments.items():
            forms[key] = _copy(cluster)
            resolve_names(forms[key], each, is_one)
        if service.addresses and {each.address for each in endpoints} == {service.hostname}:
            # To the ztunnel before a waypoint the host is the mesh's, with its own ports.
            for key in self._index.waypoints_to(target):
                forms[key] = _copy(cluster)
                address_mesh(forms[key], service.addresses[0], target.port)
        if service.gates_ingress and service.addresses:
            for key in self._gated_readers:
                forms[key] = _copy(cluster)
                address_mesh(forms[key], service.addresses[0], target.port)
        return forms

    def _gate(self, service: Service, target: Target) -> dict[str, ClusterLoadAssignment]:
        """What gateways get that are to go through a service's waypoint: its address, of which their ztunnel knows."""
        if not service.gates_ingress or not service.addresses:
            return {}
        address = ServingEndpoint(service.addresses[0], target.port, Locality(), is_healthy=True)
        return dict.fromkeys(self._gated_readers, translate_endpoints(target, arrange([address])))

    @cached_property
    def _gated_readers(self) -> tuple[str, ...]:
        return tuple(list_ingress_readers(self._snapshot, self._ingresses))

    def _build_assignments(
        self, service: Service, target: Target, endpoints: Sequence[ServingEndpoint]
    ) -> tuple[ClusterLoadAssignment, dict[str, ClusterLoadAssignment]]:
        """Who serves a target, for clients of whom nobody knows where they stand, and by the keys of others."""
        rules = self._destinations.find_rules(service.place)
        detects = rules.policy_of(target.subset, target.port).outliers is not None
        setting = rules.locality_of(target.subset, target.port)
        by_default = self._settings.prefers_near
        preference = find_preference(setting, service.spreading, detects=detects, by_default=by_default)
        common = translate_endpoints(target, arrange(endpoints, preference))
        if preference is None:
            return common, {}
        self._index.placed.add(service.place)
        standpoints = list_standpoints(preference, self._localities, endpoints)
        forms = {
            key: translate_endpoints(target, arrange(endpoints, preference, each)) for key, each in standpoints.items()
        }
        return common, {key: form for key, form in forms.items() if form != common}

    @cached_property
    def _localities(self) -> frozenset[Locality]:
        return list_localities(self._snapshot)

    def _find_serving(self, service: Service) -> Iterator[Workload]:
        for each in self._members.find_serving(*service.place):
            if each.is_healthy or service.serves_unready:
                yield each

    def _list(self, service: Service, target: Target, serving: Iterable[Workload]) -> Iterator[ServingEndpoint]:
        labels = self._destinations.find_rules(service.place).labels_of(target.subset) or {}
        for each in serving:
            # Names are for those who resolve them.
            names = (each.hostname,) if each.hostname and service.discovery is not Discovery.MESH else ()
            address = next(iter((*each.addresses, *names)), None)
            if address is None or not policies.matches(labels, each.labels):
                continue
            common = (each.locality, each.is_healthy, each.weight, each.node, each.labels)
            for endpoint in each.endpoints:
                for port in endpoint.ports if endpoint.service.resource_name == service.resource_name else ():
                    if port.service_port == target.port:
                        yield ServingEndpoint(address, port.target_port, *common)


def list_localities(snapshot: Snapshot) -> frozenset[Locality]:
    """Where clients may stand."""
    found = (find_locality(node) for node in snapshot.objects(Node))
    return frozenset(each for each in found if each.region)


def _copy(cluster: Cluster) -> Cluster:
    copied = Cluster()
    copied.CopyFrom(cluster)
    return copied
