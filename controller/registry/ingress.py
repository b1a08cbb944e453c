"""What an ingress gateway serves, from Istio's Gateways and the VirtualServices bound to them: ports, hosts and routes.

All Gateways whose selector an ingress gateway's labels meet are carried out by it together, of whatever namespace they
are (Istio's merging): servers of one port share its virtual hosts, and those of the oldest Gateway go first. On one
host the routes of several VirtualServices follow each other, the oldest first; those that any request meets come last.

Plaintext requests, TLS and bytes do not share a port: the oldest server of it says what it has, and those of another
sort do not serve there. Within TLS a name is its oldest server's (`ingress_ports`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from controller.kinds.core import Service
from controller.kinds.istio_gateway import IstioGateway, Server
from controller.kinds.traffic import is_exported
from controller.kinds.virtual_service import VirtualService
from controller.registry import services
from controller.registry.attachment import find_narrower, specificity
from controller.registry.http import ANY_PATH, RequestMatch, Route, VirtualHost
from controller.registry.names import MeshSettings, Place, name_host
from controller.registry.policies import matches
from controller.registry.proxies import Ingress
from controller.registry.virtual_services import FindTarget
from controller.snapshot import Snapshot

FindBound = Callable[[Place], Iterable[VirtualService]]
"""The VirtualServices that name the Gateway of this namespace and name."""


@dataclass(frozen=True, slots=True)
class BoundRoutes:
    """What VirtualServices say, of one snapshot.

    `find_bound` gives those that name a Gateway, `build_routes` the routes of one for a server's port of a Gateway, and
    `build_finder` where destinations that a namespace names lead, for a port.
    """

    find_bound: FindBound
    build_routes: Callable[[VirtualService, int, Place], Iterable[Route]]
    build_finder: Callable[[str, int], FindTarget]


@dataclass(frozen=True, slots=True)
class BoundServer:
    """A server of a Gateway, and the VirtualServices that share hosts with it, each with these: the oldest first."""

    gateway: IstioGateway
    server: Server
    services: tuple[tuple[VirtualService, tuple[str, ...]], ...]

    @property
    def place(self) -> Place:
        """The Gateway's."""
        return self.gateway.namespace, self.gateway.name

    @property
    def port(self) -> int:
        """The server's own, which rules name; proxies may listen elsewhere."""
        return self.server.port.number


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
    common = (find_narrower(mine, theirs) for mine in own for theirs in wanted)
    return tuple(dict.fromkeys(host for host in common if host))


@dataclass(slots=True)
class _Host:
    """A virtual host in the making. The routes are a set in order."""

    routes: dict[Route, None] = field(default_factory=dict)
    requires_tls: bool = False


def find_servers(
    snapshot: Snapshot, settings: MeshSettings, ingress: Ingress, find_bound: FindBound
) -> dict[int, list[BoundServer]]:
    """By port where the proxies listen, its servers, those of the oldest Gateway first."""
    ports: dict[int, list[BoundServer]] = {}
    for gateway in list_selected(snapshot, ingress):
        given = sorted(find_bound((gateway.namespace, gateway.name)), key=lambda each: each.age_key)
        seen = [each for each in given if is_exported(each.spec.export_to, each.namespace, ingress.namespace)]
        for server in gateway.spec.servers:
            hosts = ((each, list_bound_hosts(settings, gateway, server, each)) for each in seen)
            bound = BoundServer(gateway, server, tuple((each, shared) for each, shared in hosts if shared))
            for port in find_listen_ports(snapshot, ingress, server.port.number):
                ports.setdefault(port, []).append(bound)
    return {port: [each for each in found if each.server.sort is found[0].server.sort] for port, found in ports.items()}


def list_selected(snapshot: Snapshot, ingress: Ingress) -> Iterator[IstioGateway]:
    """The Gateways that an ingress gateway carries out, the oldest first."""
    for gateway in sorted(snapshot.objects(IstioGateway), key=lambda each: each.age_key):
        if selects(gateway, ingress):
            yield gateway


def build_hosts(servers: Iterable[BoundServer], bound: BoundRoutes) -> tuple[VirtualHost, ...]:
    """The virtual hosts of servers that take requests, the most specific first."""
    table: dict[str, _Host] = {}
    for each in servers:
        redirects = each.server.redirects_to_https
        served: dict[str, list[Route]] = {host: [] for host in each.server.bare_hosts if redirects}
        for service, hosts in each.services:
            routes = list(bound.build_routes(service, each.port, each.place))
            for host in hosts:
                served.setdefault(host, []).extend(routes)
        _add(table, served, redirects)
    return tuple(_finish(table))


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
