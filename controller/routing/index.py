"""What hangs on what among routes, Gateways, Services and clusters.

It is kept from one change to the next, so that a change is followed without looking at all there is.
"""

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from controller.registry.http import Destination, Target
from controller.registry.http_routes import Ranked
from controller.registry.names import Place, name_gateway
from controller.routing.relation import Relation

ResourceName = tuple[str, str]
"""Type URL and name of a resource."""
RouteKey = tuple[str, str, str]
"""Kind, namespace and name of a route of Gateway API, or of a VirtualService."""

_Part = tuple[str, str]
"""The name of who reads a cluster, and for what: its own ports, the services of a waypoint, or policies of these."""
_PORTS, _SERVICES, _AUTHORIZERS = "ports", "services", "authorizers"
Capture = tuple[IPv4Network | IPv6Network, int]
"""The addresses and the port of connections to a service."""


@dataclass(frozen=True, slots=True)
class RouteState:
    """What is known of a route: what it hangs on, what its routes point at, and to whom it leaves some.

    Those of a VirtualService depend on the port, and are not kept. `gateways` are Gateway API's; `destinations` are
    where a route of connections leads.
    """

    routes: tuple[Ranked, ...]
    gateways: frozenset[Place]
    services: frozenset[Place]
    backends: frozenset[Place]
    destinations: tuple[Destination, ...] = ()
    istio_gateways: frozenset[Place] = frozenset()
    delegates: frozenset[Place] = frozenset()


class RouteIndex:
    """The index. One owner."""

    def __init__(self) -> None:
        self._routes: dict[RouteKey, RouteState] = {}
        self._gateways: Relation[RouteKey, Place] = Relation()
        self._services: Relation[RouteKey, Place] = Relation()
        self._backends: Relation[RouteKey, Place] = Relation()
        self._istio_gateways: Relation[RouteKey, Place] = Relation()
        self._delegates: Relation[RouteKey, Place] = Relation()
        self._reader_resources: dict[str, set[ResourceName]] = {}
        self._reader_targets: Relation[_Part, Target] = Relation()
        self._service_targets: dict[Place, set[Target]] = {}
        self._reach: dict[Place, set[Target]] = {}
        self._led: Relation[Place, Target] = Relation()
        self._bound: dict[Place, set[Place]] = {}
        self._waypoints: dict[Place, Place] = {}
        self._captures: dict[Place, frozenset[Capture]] = {}
        self._captors: dict[Capture, dict[Place, bool]] = {}
        self._byte_routed: set[Place] = set()
        self.placed: set[Place] = set()
        """The services of which clients get other endpoints where they stand elsewhere."""
        self.gated: set[Place] = set()
        """Those that gateways reach through waypoints, and other clients not."""

    def routes_to(self, place: Place) -> Iterable[RouteKey]:
        """The routes that point at a Service, there or not."""
        return self._backends.lefts_of(place)

    def routes_delegating_to(self, place: Place) -> Iterable[RouteKey]:
        """The VirtualServices that leave routes to another, there or not."""
        return self._delegates.lefts_of(place)

    def routes_into(self, namespace: str) -> Iterator[RouteKey]:
        """The routes that point at Services of a namespace from another one."""
        for backend in self._backends.rights():
            if backend[0] == namespace:
                yield from (route for route in self._backends.lefts_of(backend) if route[1] != namespace)

    def routes_of_gateway(self, place: Place) -> Iterator[tuple[RouteKey, RouteState]]:
        """The routes that name a Gateway."""
        return ((key, self._routes[key]) for key in sorted(self._gateways.lefts_of(place)))

    def routes_of_istio_gateway(self, place: Place) -> Iterator[RouteKey]:
        """The VirtualServices that are bound to an Istio Gateway."""
        yield from sorted(self._istio_gateways.lefts_of(place))

    def routes_of_service(self, place: Place) -> Iterator[tuple[RouteKey, RouteState]]:
        """The routes that name a Service as what they are for."""
        return ((key, self._routes[key]) for key in sorted(self._services.lefts_of(place)))

    def put_route(self, key: RouteKey, state: RouteState | None) -> RouteState | None:
        """Take over what is known of a route; gives what was known before."""
        before = self._routes.pop(key, None)
        if state is not None:
            self._routes[key] = state
        nothing: frozenset[Place] = frozenset()
        self._gateways.put(key, state.gateways if state else nothing)
        self._services.put(key, state.services if state else nothing)
        self._backends.put(key, state.backends if state else nothing)
        self._istio_gateways.put(key, state.istio_gateways if state else nothing)
        self._delegates.put(key, state.delegates if state else nothing)
        return before

    def put_reader(
        self, reader: str, resources: set[ResourceName], targets: set[Target]
    ) -> tuple[set[ResourceName], set[Target]]:
        """Take over which listeners and routes the proxies of a name have, and where they send requests.

        Gives the resources that they have no more, and the targets that they have newly or no more.
        """
        old = self._reader_resources.pop(reader, set())
        if resources:
            self._reader_resources[reader] = resources
        return old - resources, self._reader_targets.put((reader, _PORTS), targets)

    def put_waypoint(self, place: Place, services: set[Place]) -> None:
        """Take over which Services a waypoint serves. One that was another's until now is this one's."""
        for service in self._bound.pop(place, set()):
            if self._waypoints.get(service) == place:
                del self._waypoints[service]
        if services:
            self._bound[place] = services
            self._waypoints.update(dict.fromkeys(services, place))

    def waypoint_of(self, service: Place) -> Place | None:
        """The waypoint that serves a Service."""
        return self._waypoints.get(service)

    def settle_waypoint(self, place: Place) -> set[Target]:
        """Work out where a waypoint sends requests: wherever its Services' routes lead.

        Gives the targets that it has newly or no more.
        """
        reach = (self._reach.get(service, set()) for service in self._bound.get(place, ()))
        return self._reader_targets.put((name_gateway(*place), _SERVICES), set().union(*reach))

    def put_authorizers(self, place: Place, targets: set[Target]) -> set[Target]:
        """Take over whom the policies of a waypoint ask; gives the targets that are new to it or no more its."""
        return self._reader_targets.put((name_gateway(*place), _AUTHORIZERS), targets)

    def readers_of(self, target: Target) -> tuple[str, ...]:
        """The names under which the proxies of gateways find a target's cluster that send to it."""
        return tuple(sorted({reader for reader, _ in self._reader_targets.lefts_of(target)}))

    def waypoints_to(self, target: Target) -> tuple[str, ...]:
        """The same of those that are waypoints."""
        return tuple(sorted(reader for reader, part in self._reader_targets.lefts_of(target) if part == _SERVICES))

    def put_reach(self, place: Place, targets: set[Target]) -> None:
        """Take over where the routes of a Service lead that is reached through a waypoint."""
        self._reach.pop(place, None)
        if targets:
            self._reach[place] = targets

    def put_led(self, place: Place, targets: set[Target]) -> set[Target]:
        """Take over where requests to a Service lead; gives the targets that are new to it or no more its."""
        return self._led.put(place, targets)

    def led_from(self, place: Place) -> Set[Target]:
        """Where requests to a Service lead."""
        return self._led.rights_of(place)

    def leading_to(self, target: Target) -> Iterable[Place]:
        """The Services from which requests lead to a target."""
        return self._led.lefts_of(target)

    def all_targets(self) -> set[Target]:
        """The ports and subsets of all Services."""
        return {target for targets in self._service_targets.values() for target in targets}

    def put_captures(self, place: Place, captures: frozenset[Capture], is_entry: bool) -> set[Place]:
        """Take over which connections are a service's; gives the others that have some of those which changed."""
        before = self._captures.pop(place, frozenset())
        for capture in before:
            del self._captors[capture][place]
        others = {other for each in before ^ captures for other in self._captors.get(each, ())}
        for capture in captures:
            self._captors.setdefault(capture, {})[place] = is_entry
        if captures:
            self._captures[place] = captures
        for capture in before - captures:
            if not self._captors[capture]:
                del self._captors[capture]
        return others

    def captures_of(self, place: Place) -> frozenset[Capture]:
        """Those that are a service's alone. What several have is a Kubernetes Service's, else nobody's."""
        return frozenset(each for each in self._captures.get(place, ()) if self._find_owner(each) == place)

    def _find_owner(self, capture: Capture) -> Place | None:
        captors = self._captors[capture]
        owners = list(captors) if len(captors) == 1 else [place for place, is_entry in captors.items() if not is_entry]
        return owners[0] if len(owners) == 1 else None

    def put_byte_routes(self, place: Place, has_some: bool) -> bool:
        """Take over whether VirtualServices say where a service's bytes go; gives whether they do, or did before."""
        had_some = place in self._byte_routed
        (self._byte_routed.add if has_some else self._byte_routed.discard)(place)
        return has_some or had_some

    def put_service(self, place: Place, targets: set[Target]) -> set[Target]:
        """Take over the ports and subsets that a Service has; gives those that it has no more."""
        before = self._service_targets.pop(place, set())
        if targets:
            self._service_targets[place] = targets
        return before - targets
