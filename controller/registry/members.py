"""Who serves what, of one snapshot: workloads with the services that they are part of, and services with theirs.

What is asked for twice is worked out once: services are seen once per namespace, not once per pod.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from controller.kinds.core import Namespace, Node, Pod, Service
from controller.kinds.discovery import EndpointSlice
from controller.kinds.networking import ServiceEntry, WorkloadEntry
from controller.registry import entries, policies, services, slices, workloads
from controller.registry.bindings import Traffic
from controller.registry.entries import EntryHosts, Host
from controller.registry.gateway_proxies import runs_gateway
from controller.registry.names import MeshSettings, find_full_host, find_service_name
from controller.registry.waypoints import Waypoints
from controller.registry.workloads import Endpoint, Workload
from controller.snapshot import Snapshot


class Members:
    """The workloads and services of a snapshot, as the mesh sees them."""

    def __init__(self, snapshot: Snapshot, settings: MeshSettings, hosts: EntryHosts) -> None:
        self._snapshot = snapshot
        self._settings = settings
        self._waypoints = Waypoints(snapshot, settings)
        self.hosts = hosts
        self._services: dict[str, dict[str, tuple[Service, services.Service]]] = {}
        self._selecting: dict[str, dict[tuple[str, str], list[tuple[Service, services.Service]]]] = {}
        self._pods: dict[str, dict[tuple[str, str], list[Pod]]] = {}
        self._slices: dict[str, dict[str, dict[str, Endpoint]]] = {}
        self._entry_services: dict[str, list[tuple[ServiceEntry, services.Service]]] = {}

    def find_service(self, namespace: str, name: str) -> services.Service | None:
        """A Kubernetes Service."""
        found = self._find_services(namespace).get(name)
        return found[1] if found else None

    def find(self, place: tuple[str, str]) -> services.Service | None:
        """A Kubernetes Service, or, where the name is a whole host, that of a ServiceEntry."""
        found = self.find_service(*place)
        if found is not None or "." not in place[1]:
            return found
        host = self.hosts.by_place.get(place)
        return self.build_host(host) if host else None

    def find_meant(self, host: str, namespace: str) -> services.Service | None:
        """Whom an object of `namespace` means by `host`: a Service, else a host of a ServiceEntry."""
        place = find_service_name(host, namespace, self._settings)
        if place and (service := self.find_service(*place)) is not None:
            return service
        found = self.hosts.find(find_full_host(host, namespace, self._settings), namespace)
        return self.build_host(found) if found else None

    def find_workload(self, namespace: str, name: str) -> Workload | None:
        """A pod that the mesh must know."""
        pod = self._snapshot.find(Pod, namespace, name)
        if pod is None or not workloads.is_published(pod):
            return None
        node = self._snapshot.find(Node, "", pod.spec.node_name or "")
        selecting = self._find_selecting(namespace, pod.labels)
        has_envoy = runs_gateway(self._snapshot, pod)
        names = policies.find_policy_names(
            self._snapshot, namespace, pod.labels, self._settings, runs_gateway=has_envoy
        )
        owner = self._snapshot.find(Namespace, "", namespace)
        workload = replace(
            workloads.build_workload(pod, node, owner, selecting, names, self._settings),
            waypoint=self._waypoints.find_binding(namespace, name, pod.labels, Traffic.WORKLOAD),
            application_tunnel=self._waypoints.find_application_tunnel(pod),
        )
        if by_slices := self._find_slices(namespace).get(name):
            workload = replace(workload, endpoints=(*workload.endpoints, *by_slices.values()))
        return workload

    def find_entry(self, namespace: str, name: str) -> Workload | None:
        """A WorkloadEntry."""
        entry = self._snapshot.find(WorkloadEntry, namespace, name)
        if entry is None:
            return None
        labels = entry.all_labels
        names = policies.find_policy_names(self._snapshot, namespace, labels, self._settings)
        built = entries.build_entry(entry, self._find_selecting(namespace, labels), names, self._settings)
        return replace(built, waypoint=self._waypoints.find_binding(namespace, name, labels, Traffic.WORKLOAD))

    def find_entry_endpoints(self, namespace: str, name: str) -> Iterator[Workload]:
        """The endpoints that a ServiceEntry has itself."""
        entry = self._snapshot.find(ServiceEntry, namespace, name)
        if entry is not None:
            hosts = [entries.build_host_service(host) for host in self.hosts.hosts_of(entry)]
            yield from entries.build_endpoints(entry, hosts, self._settings)

    def find_slice_endpoints(self, namespace: str, name: str) -> Iterator[Workload]:
        """The endpoints of an EndpointSlice that are no pods."""
        part = self._snapshot.find(EndpointSlice, namespace, name)
        service = self.find_service(namespace, part.service) if part is not None else None
        if part is not None and service is not None:
            yield from slices.build_endpoints(part, service, self._settings)

    def find_serving(self, namespace: str, name: str) -> Iterator[Workload]:
        """All that serve a Kubernetes Service: pods, WorkloadEntries and what slices name.

        Or a host of a ServiceEntry, where `name` is one: what the entry names, or selects.
        """
        source, _ = self._find_services(namespace).get(name, (None, None))
        if source is None:
            if "." in name and (host := self.hosts.by_place.get((namespace, name))) is not None:
                yield from self._find_serving_entry(host.entry)
            return
        for pod in self._find_pods(source):
            if (workload := self.find_workload(namespace, pod)) is not None:
                yield workload
        for entry in self._snapshot.objects_in(WorkloadEntry, namespace):
            if services.selects(source, entry.all_labels) and (found := self.find_entry(namespace, entry.name)):
                yield found
        for part in self._snapshot.objects_in(EndpointSlice, namespace):
            if part.service == name:
                yield from self.find_slice_endpoints(namespace, part.name)

    def _find_serving_entry(self, entry: ServiceEntry) -> Iterator[Workload]:
        if not entry.selector:
            yield from self.find_entry_endpoints(entry.namespace, entry.name)
            return
        for pod in self._snapshot.objects_in(Pod, entry.namespace):
            if policies.matches(entry.selector, pod.labels):
                workload = self.find_workload(entry.namespace, pod.name)
                if workload is not None:
                    yield workload
        for machine in self._snapshot.objects_in(WorkloadEntry, entry.namespace):
            if policies.matches(entry.selector, machine.all_labels):
                found = self.find_entry(entry.namespace, machine.name)
                if found is not None:
                    yield found

    def _find_pods(self, service: Service) -> Iterator[str]:
        """The names of the pods that a Service selects, or that slices name where it selects none."""
        if not service.spec.selector:
            slices_of = self._find_slices(service.namespace)
            yield from (pod for pod, served in slices_of.items() if service.name in served)
            return
        if service.namespace not in self._pods:
            found: dict[tuple[str, str], list[Pod]] = {}
            for pod in self._snapshot.objects_in(Pod, service.namespace):
                for item in pod.labels.items():
                    found.setdefault(item, []).append(pod)
            self._pods[service.namespace] = found
        by_label = self._pods[service.namespace]
        fewest = min((by_label.get(item, []) for item in service.spec.selector.items()), key=len)
        yield from (pod.name for pod in fewest if services.selects(service, pod.labels))

    def _find_selecting(self, namespace: str, labels: Mapping[str, str]) -> list[services.Service]:
        """The services, of both kinds, that select a workload with `labels`."""
        if namespace not in self._selecting:
            # By one label of each selector: a pod asks those that have one of its own, not all.
            by_label: dict[tuple[str, str], list[tuple[Service, services.Service]]] = {}
            for known in self._find_services(namespace).values():
                for item in sorted((known[0].spec.selector or {}).items())[:1]:
                    by_label.setdefault(item, []).append(known)
            self._selecting[namespace] = by_label
        candidates = (each for item in labels.items() for each in self._selecting[namespace].get(item, ()))
        selecting = [service for source, service in candidates if services.selects(source, labels)]
        if namespace not in self._entry_services:
            # To know who has a host takes a look at all entries: not for every pod of a mesh that has some somewhere.
            is_selecting = any(entry.selector for entry in self._snapshot.objects_in(ServiceEntry, namespace))
            self._entry_services[namespace] = [
                (host.entry, entries.build_host_service(host))
                for host in (self.hosts.by_namespace.get(namespace, ()) if is_selecting else ())
                if host.entry.selector
            ]
        hosts = self._entry_services[namespace]
        return selecting + [service for entry, service in hosts if policies.matches(entry.selector, labels)]

    def _find_slices(self, namespace: str) -> dict[str, dict[str, Endpoint]]:
        """By pod and Service, its part in Services without a selector. Each family has a slice, which say the same."""
        if namespace not in self._slices:
            found: dict[str, dict[str, Endpoint]] = {}
            for part in sorted(self._snapshot.objects_in(EndpointSlice, namespace), key=lambda part: part.name):
                source, service = self._find_services(namespace).get(part.service, (None, None))
                if source is not None and service is not None and not source.spec.selector:
                    for _, endpoint in part.servers:
                        if endpoint.pod:
                            served = found.setdefault(endpoint.pod, {})
                            served.setdefault(service.name, slices.serve(part, service))
            self._slices[namespace] = found
        return self._slices[namespace]

    def build_host(self, host: Host) -> services.Service:
        """A host of a ServiceEntry."""
        return self._bind(entries.build_host_service(host), host.entry.labels)

    def _bind(self, service: services.Service, labels: Mapping[str, str]) -> services.Service:
        binding = self._waypoints.find_binding(service.namespace, service.name, labels, Traffic.SERVICE)
        gates = binding is not None and self._waypoints.gates_ingress(service.namespace, labels)
        return replace(service, waypoint=binding, gates_ingress=gates) if binding else service

    def _find_services(self, namespace: str) -> dict[str, tuple[Service, services.Service]]:
        if namespace not in self._services:
            owner = self._snapshot.find(Namespace, "", namespace)
            self._services[namespace] = {
                service.name: (
                    service,
                    self._bind(services.build_service(service, owner, self._settings), service.labels),
                )
                for service in self._snapshot.objects_in(Service, namespace)
                if services.is_served(service)
            }
        return self._services[namespace]
