"""What a Gateway serves: for each of its ports what is done with connections, from the routes that attach there.

A host belongs to the most specific listener of its port (Gateway API's listener isolation): routes of another listener
do not see its requests. On a port of HTTPS that is so for the name that a client gives as it connects (SNI); a request
on such a connection for the host of another listener is misdirected (421, RFC 9110, section 15.5.20).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from controller.kinds.gateway_api import Gateway, Listener
from controller.registry.attachment import covers, served_listeners, specificity
from controller.registry.certificates import ends_tls, find_secrets
from controller.registry.http import (
    Destination,
    Redirect,
    Reply,
    RequestMatch,
    Route,
    Target,
    VirtualHost,
    find_targets,
)
from controller.registry.http_routes import Ranked, sort_routes
from controller.registry.names import Place
from controller.registry.server_tls import DEFAULT_TERMS, TlsTerms
from controller.snapshot import Snapshot

_WELL_KNOWN_PORTS = {"http": 80, "https": 443}
ANY_HOST = "*"
ALL_NAMES = (ANY_HOST,)


@dataclass(frozen=True, slots=True)
class Attached:
    """The routes of one object that attach to a Gateway: for each listener the hosts.

    Of an object that is for connections, `destinations` are where these go, and `age_key` says which of two counts.
    """

    hosts: Mapping[str, tuple[str, ...]]
    routes: Sequence[Ranked] = ()
    age_key: tuple[str, ...] = ()
    destinations: tuple[Destination, ...] = ()


@dataclass(frozen=True, slots=True)
class RequestChain:
    """Connections of a port that carry requests: all, or those whose client names a server that `names` stand for.

    TLS ends with the certificates of `secrets`: with none of them no client is served. None is plaintext.
    """

    listener: str
    names: tuple[str, ...]
    hosts: tuple[VirtualHost, ...]
    secrets: tuple[Place, ...] | None = None
    terms: TlsTerms = DEFAULT_TERMS


@dataclass(frozen=True, slots=True)
class StreamChain:
    """Connections of a port whose bytes go on: all, or those that name such a server.

    Without destinations they end at once. `secrets` are as above; None passes TLS through, if it is any.
    """

    names: tuple[str, ...]
    names_server: bool
    destinations: tuple[Destination, ...] = ()
    secrets: tuple[Place, ...] | None = None
    terms: TlsTerms = DEFAULT_TERMS

    @property
    def passes_through(self) -> bool:
        """Whether TLS is left to the backends."""
        return self.names_server and self.secrets is None


Chain = RequestChain | StreamChain


def build_ports(snapshot: Snapshot, gateway: Gateway, attached: Iterable[Attached]) -> dict[int, tuple[Chain, ...]]:
    """By port, what is done with its connections."""
    ports: dict[int, list[Listener]] = {}
    for listener in served_listeners(gateway):
        ports.setdefault(listener.port, []).append(listener)
    given = list(attached)
    return {
        port: tuple(_build_chains(snapshot, gateway, listeners, given)) for port, listeners in sorted(ports.items())
    }


def find_chain_targets(chains: Iterable[Chain]) -> set[Target]:
    """All that these send requests and connections to."""
    found: set[Target] = set()
    for chain in chains:
        if isinstance(chain, RequestChain):
            found.update(target for host in chain.hosts for target in find_targets(host.routes))
        else:
            found.update(each.target for each in chain.destinations if each.target)
    return found


def _build_chains(
    snapshot: Snapshot, gateway: Gateway, listeners: Sequence[Listener], attached: Sequence[Attached]
) -> Iterator[Chain]:
    if listeners[0].protocol == "HTTP":
        yield RequestChain("", ALL_NAMES, _build_hosts(listeners, listeners, attached))
        return
    for listener in listeners:
        secrets = find_secrets(snapshot, gateway, listener) if ends_tls(listener) else None
        if listener.protocol == "HTTPS":
            hosts = _build_hosts(listeners, [listener], attached)
            misdirected = _build_misdirected(listeners, listener, hosts)
            yield RequestChain(listener.name, (listener.hostname or ANY_HOST,), (*hosts, *misdirected), secrets)
        else:
            for host, destinations in _find_streams(listeners, listener, attached):
                yield StreamChain((host,), listener.protocol == "TLS", destinations, secrets)


def _build_misdirected(
    listeners: Sequence[Listener], listener: Listener, own: Sequence[VirtualHost]
) -> Iterator[VirtualHost]:
    """Hosts of the port's other listeners, as far as this one would answer for them or they are none of its own."""
    return build_misdirected((each.hostname or ANY_HOST for each in listeners if each.name != listener.name), own)


def build_misdirected(others: Iterable[str], own: Sequence[VirtualHost]) -> Iterator[VirtualHost]:
    """The answer to requests for hosts that others have of the same port, which came by this one's name."""
    others = set(others) - {domain for host in own for domain in host.domains}
    if others:
        domains = tuple(sorted(others, key=specificity, reverse=True))
        yield VirtualHost("misdirected", domains, (Route("misdirected", RequestMatch(), Reply(421)),))


def _find_streams(
    listeners: Sequence[Listener], listener: Listener, attached: Sequence[Attached]
) -> Iterator[tuple[str, tuple[Destination, ...]]]:
    """Of several routes for one host the oldest counts; what no route is for ends at once."""
    found: dict[str, tuple[Destination, ...]] = {}
    for each in sorted(attached, key=lambda each: each.age_key):
        for host in each.hosts.get(listener.name, ()):
            if _find_owner(listeners, host) == listener.name:
                found.setdefault(host, each.destinations)
    found.setdefault(listener.hostname or ANY_HOST, ())
    for host in sorted(found, key=specificity, reverse=True):
        yield host, found[host]


def _build_hosts(
    port: Sequence[Listener], listeners: Sequence[Listener], attached: Sequence[Attached]
) -> tuple[VirtualHost, ...]:
    """The virtual hosts of some of a port's listeners, the most specific first."""
    routes: dict[str, list[tuple[str, Ranked]]] = {}
    domains: dict[str, set[str]] = {}
    for listener in listeners:
        domains.setdefault(listener.name, set()).add(listener.hostname or ANY_HOST)
        for each in attached:
            for host in each.hosts.get(listener.name, ()):
                domains[listener.name].add(host)
                routes.setdefault(listener.name, []).extend((host, ranked) for ranked in each.routes)
    owners: dict[str, str] = {}
    for listener in listeners:
        for domain in domains[listener.name]:
            if _find_owner(port, domain) == listener.name:
                owners[domain] = listener.name
    place = (listeners[0].protocol.lower(), listeners[0].port)
    return tuple(
        VirtualHost(domain, (domain,), _settle(place, domain, _select(domain, routes.get(owners[domain], ()))))
        for domain in sorted(owners, key=specificity, reverse=True)
    )


def _find_owner(listeners: Sequence[Listener], domain: str) -> str:
    """The listener to which requests for `domain` belong."""
    hosts = {listener.name: listener.hostname or ANY_HOST for listener in listeners}
    matching = [name for name, host in hosts.items() if covers(host, domain)]
    return max(matching, key=lambda name: specificity(hosts[name]), default="")


def _select(domain: str, routes: Iterable[tuple[str, Ranked]]) -> tuple[Route, ...]:
    """The routes for requests of `domain`: those of more specific hosts first, then by their own rank."""
    by_host: dict[str, list[Ranked]] = {}
    for host, ranked in routes:
        if covers(host, domain):
            by_host.setdefault(host, []).append(ranked)
    return tuple(
        route for host in sorted(by_host, key=specificity, reverse=True) for route in sort_routes(by_host[host])
    )


def _settle(place: tuple[str, int], domain: str, routes: Iterable[Route]) -> tuple[Route, ...]:
    return tuple(
        replace(route, action=_settle_redirect(route.action, place, domain))
        if isinstance(route.action, Redirect)
        else route
        for route in routes
    )


def _settle_redirect(redirect: Redirect, place: tuple[str, int], domain: str) -> Redirect:
    """Name the host and the port where they are known (facts of L7, 3.5): a port that goes without saying is left out.

    `place` is the scheme and the port of the listener. Where only the request knows the host, it knows whether a port
    stands behind it, too.
    """
    own_scheme, port = place
    scheme = redirect.scheme or own_scheme
    known = redirect.host or ("" if domain.startswith("*") else domain)
    wanted = redirect.port or (_WELL_KNOWN_PORTS[redirect.scheme] if redirect.scheme else port)
    keeps_place = not (redirect.scheme or redirect.port or redirect.host)
    needs_no_port = wanted == _WELL_KNOWN_PORTS[scheme] and (bool(known) or port in _WELL_KNOWN_PORTS.values())
    if keeps_place or needs_no_port:
        return replace(redirect, host=redirect.host if keeps_place else known, port=0)
    return replace(redirect, host=known, port=wanted)
