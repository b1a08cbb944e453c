"""What a change, or one step of building it, leaves to be built."""

from dataclasses import dataclass, field, fields

from controller.registry.http import Target
from controller.registry.names import Place
from controller.registry.proxies import Ingress
from controller.routing.index import RouteKey


@dataclass(slots=True)
class Dirty:
    """What must be built again."""

    routes: set[RouteKey] = field(default_factory=set)
    gateways: set[Place] = field(default_factory=set)
    istio_gateways: set[Place] = field(default_factory=set)
    ingresses: set[Ingress] = field(default_factory=set)
    services: set[Place] = field(default_factory=set)
    endpoints: set[Place] = field(default_factory=set)
    clusters: set[Target] = field(default_factory=set)
    waypoints: set[Place] = field(default_factory=set)
    sidecars: set[Place] = field(default_factory=set)
    secrets: set[Place] = field(default_factory=set)

    def add(self, other: "Dirty") -> None:
        """Take over what another step touches."""
        for each in fields(self):
            getattr(self, each.name).update(getattr(other, each.name))
