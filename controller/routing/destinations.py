"""Where requests may go in one snapshot: services of both kinds, their ports and subsets, and what is said of them."""

from collections.abc import Iterator

from controller.kinds.backend_tls_policy import BackendTLSPolicy
from controller.kinds.virtual_service import Destination
from controller.registry.backend_tls import BackendTls, find_backend_tls
from controller.registry.destinations import ClusterPolicy, Hashing, Rules, find_rules
from controller.registry.http import Target
from controller.registry.members import Members
from controller.registry.names import MeshSettings, Place, find_service_name
from controller.registry.services import Discovery, Service, ServicePort
from controller.registry.virtual_services import FindTarget
from controller.snapshot import Snapshot


class Destinations:
    """The destinations of a snapshot. What is asked for twice is worked out once."""

    def __init__(self, snapshot: Snapshot, settings: MeshSettings, members: Members) -> None:
        self._snapshot = snapshot
        self._settings = settings
        self._members = members
        self._rules: dict[Place, Rules] = {}

    def list_targets(self, service: Service) -> Iterator[Target]:
        """The ports of a service, each with its subsets, and once more where Gateways speak TLS to it."""
        subsets = () if service.discovery is Discovery.CLIENT else self.find_rules(service.place).subsets
        for port in service.ports:
            is_secured = self._find_backend_tls(service, port) is not None
            for subset in ("", *subsets):
                yield Target(service.namespace, service.reference, port.number, subset)
                if is_secured:
                    yield Target(service.namespace, service.reference, port.number, subset, is_secured=True)

    def find_service(self, target: Target) -> Service | None:
        """The service that a target is a port of."""
        _, _, host = target.host.rpartition("/")
        place = find_service_name(host, target.namespace, self._settings)
        if place and place[0] == target.namespace and (found := self._members.find_service(*place)) is not None:
            return found
        return self._members.find((target.namespace, host))

    def find_rules(self, place: Place) -> Rules:
        """What DestinationRules say of a service."""
        if place not in self._rules:
            self._rules[place] = find_rules(self._snapshot, self._settings, *place)
        return self._rules[place]

    def find_policy(self, target: Target) -> ClusterPolicy:
        """What they say of a target."""
        service = self.find_service(target)
        return self.find_rules(service.place).policy_of(target.subset, target.port) if service else ClusterPolicy()

    def find_hashing(self, target: Target) -> Hashing | None:
        """By which part of a request they choose who serves it."""
        return self.find_policy(target).hashing

    def find_backend_tls(self, target: Target) -> BackendTls | None:
        """How Gateways speak TLS to a port, if they do."""
        service = self.find_service(target)
        port = next((each for each in service.ports if each.number == target.port), None) if service else None
        return self._find_backend_tls(service, port) if service and port else None

    def _find_backend_tls(self, service: Service, port: ServicePort) -> BackendTls | None:
        if service.is_entry or next(self._snapshot.objects_in(BackendTLSPolicy, service.namespace), None) is None:
            return None
        return find_backend_tls(self._snapshot, *service.place, port.name)

    def build_finder(self, namespace: str, port: int, of: Target | None = None) -> FindTarget:
        """Where the destinations of a VirtualService of `namespace` lead, for what came to `port`: that of `of`, or
        a Gateway's."""

        def find_target(destination: Destination) -> Target | None:
            service = self._members.find_meant(destination.host, namespace)
            if service is None:
                return None
            ports = [each.number for each in service.ports]
            wanted = destination.port.number if destination.port else ports[0] if len(ports) == 1 else port
            target = Target(service.namespace, service.reference, wanted, destination.subset or "")
            if service.discovery is Discovery.CLIENT and (of is None or service != self.find_service(of)):
                return None  # where it is, only the clients know that connect to it
            return target if target in set(self.list_targets(service)) else None

        return find_target
