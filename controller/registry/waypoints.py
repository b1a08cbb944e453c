"""Which waypoint a service or a workload is reached through: labels that ask for one, and the Gateway that they mean.

Labels and reasons are Istio's (facts of the control plane, section 5). Where what is asked for cannot be had, Istio
goes round the waypoint, and so round every policy that it enforces; here the connection is refused
(docs/decisions/0013).
"""

from collections.abc import Collection, Iterator, Mapping
from ipaddress import ip_address

from controller.kinds.core import Namespace, Pod, Service
from controller.kinds.gateway_api import (
    FOR_LABEL,
    GATEWAY_LABEL,
    HBONE,
    INBOUND_BINDING_ANNOTATION,
    Gateway,
    GatewayClass,
    Listener,
)
from controller.kinds.hosts import is_ip
from controller.registry.attachment import admits, is_ours
from controller.registry.bindings import ApplicationTunnel, Binding, BindingReason, Traffic, WaypointAddress
from controller.registry.names import MeshSettings, Place, find_service_name, name_host
from controller.snapshot import Snapshot
from mesh import ports

USE_LABEL = "istio.io/use-waypoint"
USE_NAMESPACE_LABEL = "istio.io/use-waypoint-namespace"
NO_WAYPOINT = "none"
INGRESS_LABEL = "istio.io/ingress-use-waypoint"


class Waypoints:
    """The waypoints of one snapshot."""

    def __init__(self, snapshot: Snapshot, settings: MeshSettings) -> None:
        self._snapshot = snapshot
        self._settings = settings

    def find_binding(self, namespace: str, name: str, labels: Mapping[str, str], traffic: Traffic) -> Binding | None:
        """That of a service or a workload of `namespace` with `labels`.

        Waypoints have none themselves: a service called as its Gateway, or a pod that carries the Gateway's name.
        """
        own = name if traffic is Traffic.SERVICE else labels.get(GATEWAY_LABEL, "")
        wish = self._find_wish(namespace, labels)
        if wish is None or (own and self.find_gateway((namespace, own)) is not None):
            return None
        place, is_inherited = wish
        gateway = self.find_gateway(place)
        if gateway is None:
            message = f"there is no Gateway {place[0]}/{place[1]} with a listener of protocol {HBONE}"
            return self._refuse(place, BindingReason.NOT_READY, message)
        served = self._find_served(gateway)
        if traffic not in served:
            if is_inherited:
                return None
            message = (
                f"Gateway {place[0]}/{place[1]} is not a waypoint for a {traffic.value}: see its label {FOR_LABEL}"
            )
            return self._refuse(place, BindingReason.UNSUPPORTED, message)
        if not self._allows(gateway, namespace):
            message = f"allowedRoutes of Gateway {place[0]}/{place[1]} do not admit namespace {namespace}"
            return self._refuse(place, BindingReason.DENIED, message)
        return Binding(place, self._find_address(gateway), BindingReason.ACCEPTED)

    def find_gateway(self, place: Place) -> Gateway | None:
        """The Gateway of that place, if it is a waypoint."""
        gateway = self._snapshot.find(Gateway, *place)
        return gateway if gateway is not None and find_listener(gateway) is not None else None

    def find_wanted(self, namespace: str, labels: Mapping[str, str]) -> Place | None:
        """The Gateway, there or not, that what is in `namespace` with `labels` asks for."""
        wish = self._find_wish(namespace, labels)
        return wish[0] if wish else None

    def gates_ingress(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether gateways are to send to the waypoint, too, of what is in `namespace` with `labels`."""
        owner = self._snapshot.find(Namespace, "", namespace)
        own = labels.get(INGRESS_LABEL) or (owner.labels.get(INGRESS_LABEL) if owner else None) or ""
        return own.lower() == "true"

    def find_users(self, gateways: Collection[Place]) -> Iterator[Service]:
        """The Services that ask for one of these Gateways, whether they may have it or not."""
        for service in self._snapshot.objects(Service):
            if self.find_wanted(service.namespace, service.labels) in gateways:
                yield service

    def find_application_tunnel(self, pod: Pod) -> ApplicationTunnel | None:
        """Where the ztunnel before a waypoint's pod hands on what comes through its tunnels.

        A proxy that is configured by us wants a PROXY header; of others their Gateway or its class says so.
        """
        name = pod.labels.get(GATEWAY_LABEL)
        gateway = self.find_gateway((pod.namespace, name)) if name else None
        if gateway is None:
            return None
        owner = self._snapshot.find(GatewayClass, "", gateway.spec.gateway_class_name)
        for source in filter(None, (gateway, owner)):
            if text := source.annotations.get(INBOUND_BINDING_ANNOTATION):
                kind, _, port = text.partition("/")
                return ApplicationTunnel(int(port or ports.WAYPOINT_PORT), has_header=kind == "PROXY")
        return ApplicationTunnel(ports.WAYPOINT_PORT) if is_ours(self._snapshot, gateway) else None

    def _find_wish(self, namespace: str, labels: Mapping[str, str]) -> tuple[Place, bool] | None:
        """The Gateway that is asked for, and whether by the Namespace. An object's own label goes first."""
        owner = self._snapshot.find(Namespace, "", namespace)
        for given, is_inherited in ((labels, False), (owner.labels if owner else {}, True)):
            if name := given.get(USE_LABEL):
                place = (given.get(USE_NAMESPACE_LABEL) or namespace, name)
                return None if name == NO_WAYPOINT else (place, is_inherited)
        return None

    def _find_served(self, gateway: Gateway) -> frozenset[Traffic]:
        owner = self._snapshot.find(GatewayClass, "", gateway.spec.gateway_class_name)
        value = gateway.labels.get(FOR_LABEL) or (owner.labels.get(FOR_LABEL) if owner else None) or "service"
        return frozenset(each for each in Traffic if value in (each.value, "all"))

    def serves_workloads(self, gateway: Gateway) -> bool:
        """Whether connections to pods' own addresses may come to it."""
        return Traffic.WORKLOAD in self._find_served(gateway)

    def _allows(self, gateway: Gateway, namespace: str) -> bool:
        listener = find_listener(gateway)
        return listener is not None and admits(
            self._snapshot, listener.allowed_routes.namespaces, gateway.namespace, namespace
        )

    def _find_address(self, gateway: Gateway) -> WaypointAddress:
        """What the Gateway's `addresses` say, else the Service of its name."""
        for given in gateway.spec.addresses or ():
            if given.value and is_ip(given.value):
                return WaypointAddress(gateway.namespace, "", ip_address(given.value))
            if given.value:
                place = find_service_name(given.value, gateway.namespace, self._settings)
                return WaypointAddress(place[0] if place else gateway.namespace, given.value)
        return self._name_address((gateway.namespace, gateway.name))

    def _name_address(self, place: Place) -> WaypointAddress:
        return WaypointAddress(place[0], name_host(self._settings, *place))

    def _refuse(self, place: Place, reason: BindingReason, message: str) -> Binding:
        """Nobody has this name, as no Service can: ztunnel refuses what it should send there."""
        nobody = WaypointAddress(place[0], f"refused.{name_host(self._settings, *place)}")
        return Binding(place, nobody, reason, message)


def find_listener(gateway: Gateway) -> Listener | None:
    """The one that makes a Gateway a waypoint."""
    return next((each for each in gateway.spec.listeners if each.protocol == HBONE), None)
