"""Waypoints: the listener where they take what is bound to them, and the cluster by which they let it through."""

from collections.abc import Iterator, Mapping, Sequence

from controller.kinds.core import Service
from controller.kinds.gateway_api import Gateway
from controller.registry import request_policies, services, telemetry
from controller.registry.attachment import is_ours
from controller.registry.gateway_proxies import describe_gateway
from controller.registry.http import Target
from controller.registry.names import Place, name_direct, name_gateway, name_service_routes, name_waypoint
from controller.registry.request_policies import RequestPolicies
from controller.routing.authorizers import find_authorizers, list_targets
from controller.routing.index import Capture, RouteIndex
from controller.routing.service_routes import ServiceRoutes
from controller.routing.services import list_captures, list_ranges
from controller.routing.update import Update
from controller.serve.resources import CLUSTER_TYPE, LISTENER_TYPE, ChangeGatherer, build_resource
from controller.translate.access_logs import add_audit_logs, set_access_logs
from controller.translate.waypoints import Others, WaypointPort, build_direct, translate_waypoint


class WaypointListeners:
    """Builds them. Takes over in the index which services a waypoint serves."""

    def __init__(
        self, update: Update, index: RouteIndex, routes: ServiceRoutes, changes: Mapping[str, ChangeGatherer]
    ) -> None:
        self._update = update
        self._new = update.new
        self._settings = update.settings
        self._members = update.members
        self._waypoints = update.waypoints
        self._index = index
        self._routes = routes
        self._changes = changes

    def build(self, place: Place) -> set[Target]:
        """Build what a Gateway has as a waypoint; nothing, where it is none of ours.

        Gives whom its policies ask newly or no more.
        """
        gateway = self._waypoints.find_gateway(place)
        name, direct = name_waypoint(*place), name_direct(*place)
        if gateway is None or not is_ours(self._new, gateway):
            self._index.put_waypoint(place, set())
            self._changes[LISTENER_TYPE].put(name, None)
            self._changes[CLUSTER_TYPE].put(direct, None)
            return self._index.put_authorizers(place, set())
        bound = sorted(self._list_bound(place), key=lambda each: (each.is_entry, each.place))
        self._index.put_waypoint(place, {each.place for each in bound})
        served = list(self._list_waypoint_ports(gateway, bound, direct))
        others = Others(direct, self._find_policies(gateway)) if self._waypoints.serves_workloads(gateway) else None
        message = translate_waypoint(name, served, others)
        given = telemetry.find_for_proxies(self._new, self._settings, describe_gateway(gateway))
        set_access_logs(message, telemetry.read_logging(given))
        held = [*(each.policies for each in served), *([others.policies] if others else [])]
        if any(each.has_audits for each in held):
            add_audit_logs(message)
        scope = (name_gateway(*place),)
        self._changes[LISTENER_TYPE].put(name, build_resource(LISTENER_TYPE, name, message, keys=scope))
        self._changes[CLUSTER_TYPE].put(direct, build_resource(CLUSTER_TYPE, direct, build_direct(direct), keys=scope))
        return self._index.put_authorizers(place, {target for each in held for target in list_targets(each)})

    def _list_bound(self, gateway: Place) -> Iterator[services.Service]:
        """The services of both kinds that are reached through a waypoint."""
        users = self._waypoints.find_users({gateway})
        found = [self._members.find_service(each.namespace, each.name) for each in users]
        hosts = self._members.hosts.by_place.values()
        wanted = [
            each for each in hosts if self._waypoints.find_wanted(each.entry.namespace, each.entry.labels) == gateway
        ]
        for service in (*found, *(self._members.build_host(each) for each in wanted)):
            binding = service.waypoint if service else None
            if service and binding and binding.is_accepted and (service.addresses or service.ranges):
                yield service

    def _list_waypoint_ports(
        self, gateway: Gateway, bound: Sequence[services.Service], direct: str
    ) -> Iterator[WaypointPort]:
        """What a waypoint takes for its services.

        To a ServiceEntry's host without routes its ztunnel knows the way; so where several hosts have an address and a
        port in common, and only their client knows which of them it meant.
        """
        claims: dict[Capture, list[services.Service]] = {}
        for service in bound:
            for capture in list_captures(service):
                claims.setdefault(capture, []).append(service)
        for service in bound:
            source = None if service.is_entry else self._new.find(Service, service.namespace, service.name)
            policies = self._find_policies(gateway, source)
            for port in service.ports:
                target = Target(service.namespace, service.reference, port.number)
                claimed = {each: claims[each, port.number] for each in list_ranges(service)}
                first = [each for each, claimants in claimed.items() if claimants[0] is service]
                routed = [each for each in first if self._routes.is_routed(service) and len(claimed[each]) == 1]
                if not service.is_entry:
                    routed = first
                others = [each for each in first if each not in routed]
                name, common = f"{target.host}:{target.port}", (port.number, port.protocol)
                if routed:
                    routes = name_service_routes(target.host, target.port)
                    destinations = self._routes.find_byte_destinations(service, port)
                    yield WaypointPort(name, routed, *common, target.cluster, policies, routes, destinations)
                if others:
                    yield WaypointPort(f"{name}/direct" if routed else name, others, *common, direct, policies)

    def _find_policies(self, gateway: Gateway, service: Service | None = None) -> RequestPolicies:
        found = request_policies.find_policies(self._new, self._settings, gateway, service)
        return find_authorizers(self._update, found)
