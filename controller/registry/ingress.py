"""What an ingress gateway serves, from Istio's Gateways and the VirtualServices bound to them: ports, hosts and routes.

All Gateways whose selector an ingress gateway's labels meet are carried out by it together, of whatever namespace they
are (Istio's merging): servers of one port share its virtual hosts, and those of the oldest Gateway go first. On one
host the routes of several VirtualServices follow each other, the oldest first; those that any request meets come last.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from controller.kinds.core import Service
from controller.kinds.istio_gateway import IstioGateway, Server
from controller.kinds.traffic import is_exported
from controller.kinds.virtual_service import VirtualService
from controller.registry import services
from controller.registry.attachment import covers, specificity
from controller.registry.http import ANY_PATH, RequestMatch, Route, VirtualHost
from controller.registry.names import MeshSettings, Place, name_host
from controller.registry.policies import matches
from controller.registry.proxies import Ingress
from controller.snapshot import Snapshot

FindBound = Callable[[Place], Iterable[VirtualService]]
"""The VirtualServices that name the Gateway of this namespace and name."""
BuildRoutes = Callable[[VirtualService, int, Place], Iterable[Route]]
"""The routes of a VirtualService for a server's port of a Gateway."""


def selects(gateway: IstioGateway, ingress: Ingress) -> bool:
    """Whether a Gateway is for an ingress gateway. One without a selector is for all."""
    return matches(gateway.spec.selector or {}, dict(ingress.labels))


def find_listen_ports(snapshot: Snapshot, ingress: Ingress, port: int) -> set[int]:
    """Where the proxies listen for a server's port (Istio's rule).

    That is the target port of a Service in front of them that has the port, else the port itself. A target port that is
    a name says nothing here: which number it is, only a pod knows.
    """
    labels = dict(ingress.labels)
    found = {
        each.target_port or each.port
        for service in snapshot.objects_in(Service, ingress.namespace)
        if services.selects(service, labels)
        for each in service.spec.ports or ()
        if each.port == port and each.protocol == "TCP"
    }
    return {each for each in found if isinstance(each, int)} or {port}


def list_bound_hosts(
    settings: MeshSettings, gateway: IstioGateway, server: Server, service: VirtualService
) -> tuple[str, ...]:
    """The hosts for which a VirtualService serves requests at a server: those that both have."""
    own = server.hosts_for(service.namespace, gateway.namespace)
    wanted = [
        host if host == "*" or "." in host else name_host(settings, service.namespace, host)
        for host in service.spec.hosts
    ]
    pairs = ((mine, theirs) for mine in own for theirs in wanted)
    common = (theirs if covers(mine, theirs) else mine if covers(theirs, mine) else "" for mine, theirs in pairs)
    return tuple(dict.fromkeys(host for host in common if host))


@dataclass(slots=True)
class _Host:
    """A virtual host in the making. The routes are a set in order."""

    routes: dict[Route, None] = field(default_factory=dict)
    requires_tls: bool = False


def build_ports(
    snapshot: Snapshot, settings: MeshSettings, ingress: Ingress, find_bound: FindBound, build_routes: BuildRoutes
) -> dict[int, tuple[VirtualHost, ...]]:
    """By port where the proxies listen, its virtual hosts, the most specific first."""
    ports: dict[int, dict[str, _Host]] = {}
    for gateway, server in _list_servers(snapshot, ingress):
        place, number = (gateway.namespace, gateway.name), server.port.number
        tables = [ports.setdefault(port, {}) for port in find_listen_ports(snapshot, ingress, number)]
        served: dict[str, list[Route]] = {host: [] for host in server.bare_hosts if server.redirects_to_https}
        for service in sorted(find_bound(place), key=lambda each: each.age_key):
            is_seen = is_exported(service.spec.export_to, service.namespace, ingress.namespace)
            hosts = list_bound_hosts(settings, gateway, server, service) if is_seen else ()
            routes = list(build_routes(service, number, place)) if hosts else []
            for host in hosts:
                served.setdefault(host, []).extend(routes)
        for table in tables:
            _add(table, served, server.redirects_to_https)
    return {port: tuple(_finish(hosts)) for port, hosts in ports.items()}


def _list_servers(snapshot: Snapshot, ingress: Ingress) -> Iterator[tuple[IstioGateway, Server]]:
    for gateway in sorted(snapshot.objects(IstioGateway), key=lambda each: each.age_key):
        if selects(gateway, ingress):
            yield from ((gateway, server) for server in gateway.spec.servers)


def _add(table: dict[str, _Host], served: Mapping[str, Sequence[Route]], requires_tls: bool) -> None:
    for host, routes in served.items():
        entry = table.setdefault(host, _Host())
        entry.routes |= dict.fromkeys(routes)
        entry.requires_tls |= requires_tls


def _finish(hosts: Mapping[str, _Host]) -> Iterator[VirtualHost]:
    for domain in sorted(hosts, key=lambda host: (specificity(host), host), reverse=True):
        found = hosts[domain]
        yield VirtualHost(domain, (domain,), tuple(sorted(found.routes, key=is_for_any)), found.requires_tls)


def is_for_any(route: Route) -> bool:
    """Whether any request meets its match."""
    return route.match == RequestMatch(ANY_PATH)
