"""What becomes of connections to an ingress gateway: of plaintext requests, of TLS by server name, and of bytes.

On a port of TLS a name belongs to the most specific of the servers that have it, and to the oldest of several that have
the same. A request that came by the name of one server, for a host of another, is misdirected (421, RFC 9110, section
15.5.20): it may be that the other one asks for certificates of clients. What no rule is for is closed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from controller.kinds.istio_gateway import ServerSort
from controller.registry.attachment import covers, specificity
from controller.registry.byte_routes import find_named_destinations, find_tcp_destinations
from controller.registry.gateways import ALL_NAMES, ANY_HOST, Chain, RequestChain, StreamChain, build_misdirected
from controller.registry.http import Destination, VirtualHost
from controller.registry.ingress import BoundRoutes, BoundServer, build_hosts, find_servers
from controller.registry.ingress_certificates import ServerCredentials, resolve_credentials
from controller.registry.names import MeshSettings
from controller.registry.proxies import Ingress
from controller.registry.server_tls import build_terms
from controller.snapshot import Snapshot


def build_ports(
    snapshot: Snapshot, settings: MeshSettings, ingress: Ingress, bound: BoundRoutes
) -> dict[int, tuple[Chain, ...]]:
    """By port where the proxies listen, what is done with its connections."""
    ports: dict[int, tuple[Chain, ...]] = {}
    for port, servers in find_servers(snapshot, settings, ingress, bound.find_bound).items():
        match servers[0].server.sort:
            case ServerSort.REQUESTS:
                ports[port] = (RequestChain("", ALL_NAMES, build_hosts(servers, bound)),)
            case ServerSort.BYTES:
                ports[port] = (StreamChain(ALL_NAMES, False, _find_first(servers, bound)),)
            case ServerSort.TLS:
                ports[port] = tuple(_build_chains(snapshot, ingress, servers, bound))
    return ports


def _find_first(servers: Iterable[BoundServer], bound: BoundRoutes) -> tuple[Destination, ...]:
    """Where connections without a name go: by the first rule of the oldest VirtualService that has one."""
    for each in servers:
        for service, _ in each.services:
            find_target = bound.build_finder(service.namespace, each.port)
            if found := find_tcp_destinations(service, each.port, find_target, each.place):
                return found
    return ()


def _build_chains(
    snapshot: Snapshot, ingress: Ingress, servers: Sequence[BoundServer], bound: BoundRoutes
) -> Iterator[Chain]:
    owners = _find_owners(servers)
    for index, each in enumerate(servers):
        names = tuple(name for name, owner in owners.items() if owner == index)
        if not names or each.server.tls is None:
            continue
        held = ServerCredentials()
        if not each.server.passes_through:
            held = resolve_credentials(snapshot, ingress.namespace, each.server.tls)
        terms = build_terms(each.server.tls, held.authority)
        if each.server.serves_requests:
            listener = "/".join((*each.place, each.server.port.name))
            hosts = _build_own_hosts(each, index, names, owners, bound)
            for part in _split_any(names):
                yield RequestChain(listener, part, hosts, held.secrets, terms)
            continue
        secrets = None if each.server.passes_through else held.secrets
        for name, destinations in _find_streams(each, index, names, owners, bound):
            yield StreamChain((name,), True, destinations, secrets, terms)


def _find_owners(servers: Sequence[BoundServer]) -> dict[str, int]:
    """By name, the number of its server."""
    owners: dict[str, int] = {}
    for index, each in enumerate(servers):
        for name in each.server.bare_hosts:
            owners.setdefault(name, index)
    return owners


def _find_owner(owners: Mapping[str, int], host: str) -> int | None:
    """Whose connections are those for a host."""
    matching = [name for name in owners if covers(name, host)]
    return owners[max(matching, key=specificity)] if matching else None


def _split_any(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Any name is no name to Envoy, and stands alone."""
    named = tuple(name for name in names if name != ANY_HOST)
    yield from (each for each in (named, tuple(name for name in names if name == ANY_HOST)) if each)


def _build_own_hosts(
    server: BoundServer, index: int, names: Iterable[str], owners: Mapping[str, int], bound: BoundRoutes
) -> tuple[VirtualHost, ...]:
    hosts = [each for each in build_hosts([server], bound) if _find_owner(owners, each.name) == index]
    taken = {each.name for each in hosts}
    bare = [VirtualHost(name, (name,), ()) for name in names if name not in taken]
    others = (name for name, owner in owners.items() if owner != index)
    return (*hosts, *bare, *build_misdirected(others, [*hosts, *bare]))


def _find_streams(
    server: BoundServer, index: int, names: Iterable[str], owners: Mapping[str, int], bound: BoundRoutes
) -> Iterator[tuple[str, tuple[Destination, ...]]]:
    """By name, where its connections go: of several rules for one name the oldest VirtualService's first counts."""
    found: dict[str, tuple[Destination, ...]] = {}
    for service, hosts in server.services:
        find_target = bound.build_finder(service.namespace, server.port)
        if server.server.passes_through:
            given = find_named_destinations(service, hosts, server.port, find_target, server.place)
        else:
            tcp = find_tcp_destinations(service, server.port, find_target, server.place)
            given = ((host, tcp) for host in hosts if tcp)
        for name, destinations in given:
            if _find_owner(owners, name) == index:
                found.setdefault(name, destinations)
    for name in names:
        found.setdefault(name, ())
    for name in sorted(found, key=specificity, reverse=True):
        yield name, found[name]
