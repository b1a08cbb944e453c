"""One change as all who build something see it: the objects before and after, and what is read from those after."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from controller.kinds.core import Service
from controller.kinds.virtual_service import VirtualService
from controller.registry.attachment import ROUTE_KINDS, GatewayRoute
from controller.registry.entries import EntryHosts
from controller.registry.members import Members
from controller.registry.names import MeshSettings, Place, name_host
from controller.registry.proxies import Ingress
from controller.registry.sidecars import Visibility
from controller.registry.waypoints import Waypoints
from controller.routing.destinations import Destinations
from controller.routing.index import RouteKey
from controller.snapshot import Snapshot

_KINDS = {kind.KIND: kind for kind in ROUTE_KINDS}


@dataclass(frozen=True, slots=True)
class Update:
    """What all builders of one change read. None of it changes meanwhile; `ingresses` are the ingress gateways that are
    open.
    """

    old: Snapshot
    new: Snapshot
    settings: MeshSettings
    ingresses: frozenset[Ingress]
    members: Members
    destinations: Destinations
    waypoints: Waypoints
    visibility: Visibility

    def find_route(self, key: RouteKey) -> GatewayRoute | None:
        """A route of Gateway API, as it is now."""
        kind = _KINDS[key[0]]
        return self.new.find(kind, *key[1:])

    def find_virtual_service(self, namespace: str, name: str) -> VirtualService | None:
        """A VirtualService, as it is now."""
        return self.new.find(VirtualService, namespace, name)

    def list_services(self) -> Iterator[Place]:
        """All services, of both kinds."""
        yield from ((each.namespace, each.name) for each in self.new.objects(Service))
        yield from self.members.hosts.by_place

    def find_host(self, place: Place) -> str:
        """The whole name of a service, there or not."""
        service = self.members.find(place)
        return service.hostname if service else name_host(self.settings, *place)


def begin(old: Snapshot, new: Snapshot, settings: MeshSettings, ingresses: Iterable[Ingress]) -> Update:
    """Begin the change from `old` to `new`."""
    members = Members(new, settings, EntryHosts(new, settings))
    return Update(
        old,
        new,
        settings,
        frozenset(ingresses),
        members,
        Destinations(new, settings, members),
        Waypoints(new, settings),
        Visibility(new, settings),
    )
