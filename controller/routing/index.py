"""What hangs on what among routes, Gateways, Services and clusters.

It is kept from one change to the next, so that a change is followed without looking at all there is.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from controller.registry.http import Target
from controller.registry.http_routes import Ranked
from controller.registry.names import name_gateway

Place = tuple[str, str]
"""Namespace and name of an object whose kind is known."""
RouteKey = tuple[str, str, str]
"""Kind, namespace and name of an HTTPRoute, a GRPCRoute or a VirtualService."""


@dataclass(frozen=True, slots=True)
class RouteState:
    """What is known of a route: what it hangs on, and what its routes point at.

    Those of a VirtualService depend on the port, and are not kept.
    """

    routes: tuple[Ranked, ...]
    gateways: frozenset[Place]
    services: frozenset[Place]
    backends: frozenset[Place]


class RouteIndex:
    """The index. One owner."""

    def __init__(self) -> None:
        self._routes: dict[RouteKey, RouteState] = {}
        self._by_gateway: dict[Place, set[RouteKey]] = {}
        self._by_service: dict[Place, set[RouteKey]] = {}
        self._by_backend: dict[Place, set[RouteKey]] = {}
        self._gateway_ports: dict[Place, set[int]] = {}
        self._gateway_targets: dict[Place, set[Target]] = {}
        self._readers: dict[Target, set[Place]] = {}
        self._service_targets: dict[Place, set[Target]] = {}
        self._led: dict[Place, set[Target]] = {}
        self._leading: dict[Target, set[Place]] = {}

    def routes_to(self, place: Place) -> Iterable[RouteKey]:
        """The routes that point at a Service, there or not."""
        return self._by_backend.get(place, ())

    def routes_into(self, namespace: str) -> Iterator[RouteKey]:
        """The routes that point at Services of a namespace from another one."""
        for (place, _), routes in self._by_backend.items():
            yield from (route for route in routes if place == namespace != route[1])

    def routes_of_gateway(self, place: Place) -> Iterator[tuple[RouteKey, RouteState]]:
        """The routes that name a Gateway."""
        return ((key, self._routes[key]) for key in sorted(self._by_gateway.get(place, ())))

    def routes_of_service(self, place: Place) -> Iterator[tuple[RouteKey, RouteState]]:
        """The routes that name a Service as what they are for."""
        return ((key, self._routes[key]) for key in sorted(self._by_service.get(place, ())))

    def put_route(self, key: RouteKey, state: RouteState | None) -> RouteState | None:
        """Take over what is known of a route; gives what was known before."""
        before = self._routes.pop(key, None)
        if before is not None:
            for index, places in self._list_indexes(before):
                for place in places:
                    index[place].discard(key)
                    if not index[place]:
                        del index[place]
        if state is not None:
            self._routes[key] = state
            for index, places in self._list_indexes(state):
                for place in places:
                    index.setdefault(place, set()).add(key)
        return before

    def _list_indexes(self, state: RouteState) -> Iterator[tuple[dict[Place, set[RouteKey]], frozenset[Place]]]:
        yield self._by_gateway, state.gateways
        yield self._by_service, state.services
        yield self._by_backend, state.backends

    def put_gateway(self, place: Place, ports: set[int], targets: set[Target]) -> tuple[set[int], set[Target]]:
        """Take over which ports a Gateway has and where it sends requests.

        Gives the ports that it has no more, and the targets that it has newly or no more.
        """
        old_ports, old_targets = self._gateway_ports.pop(place, set()), self._gateway_targets.pop(place, set())
        if ports:
            self._gateway_ports[place], self._gateway_targets[place] = ports, targets
        for target in old_targets - targets:
            self._readers[target].discard(place)
            if not self._readers[target]:
                del self._readers[target]
        for target in targets - old_targets:
            self._readers.setdefault(target, set()).add(place)
        return old_ports - ports, old_targets ^ targets

    def readers_of(self, target: Target) -> tuple[str, ...]:
        """The names under which the Gateways find a target's cluster that send to it."""
        return tuple(name_gateway(*place) for place in sorted(self._readers.get(target, ())))

    def put_led(self, place: Place, targets: set[Target]) -> set[Target]:
        """Take over where the routes of a Service lead; gives the targets that are new to it or no more its."""
        before = self._led.pop(place, set())
        if targets:
            self._led[place] = targets
        for target in before - targets:
            self._leading[target].discard(place)
            if not self._leading[target]:
                del self._leading[target]
        for target in targets - before:
            self._leading.setdefault(target, set()).add(place)
        return before ^ targets

    def led_from(self, place: Place) -> set[Target]:
        """Where the routes of a Service lead."""
        return self._led.get(place, set())

    def leading_to(self, target: Target) -> Iterable[Place]:
        """The Services whose routes lead to a target."""
        return self._leading.get(target, ())

    def all_targets(self) -> set[Target]:
        """The ports and subsets of all Services."""
        return {target for targets in self._service_targets.values() for target in targets}

    def put_service(self, place: Place, targets: set[Target]) -> set[Target]:
        """Take over the ports and subsets that a Service has; gives those that it has no more."""
        before = self._service_targets.pop(place, set())
        if targets:
            self._service_targets[place] = targets
        return before - targets
