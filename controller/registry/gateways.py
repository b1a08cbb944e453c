"""What a Gateway serves: for each of its ports the virtual hosts, from the routes that attach to its listeners.

A host belongs to the most specific listener of its port (Gateway API's listener isolation): routes of another listener
do not see its requests.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from controller.kinds.gateway_api import Gateway, Listener
from controller.registry.attachment import covers, served_listeners, specificity
from controller.registry.http import Redirect, Route, VirtualHost
from controller.registry.http_routes import Ranked, sort_routes

_WELL_KNOWN_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Attached:
    """The routes of one object that attach to a Gateway: for each listener the hosts."""

    hosts: Mapping[str, tuple[str, ...]]
    routes: Sequence[Ranked]


def build_ports(gateway: Gateway, attached: Iterable[Attached]) -> dict[int, tuple[VirtualHost, ...]]:
    """By port, its virtual hosts, the most specific first."""
    ports: dict[int, list[Listener]] = {}
    for listener in served_listeners(gateway):
        ports.setdefault(listener.port, []).append(listener)
    given = list(attached)
    return {port: _build_hosts(port, listeners, given) for port, listeners in ports.items()}


def _build_hosts(port: int, listeners: Sequence[Listener], attached: Sequence[Attached]) -> tuple[VirtualHost, ...]:
    routes: dict[str, list[tuple[str, Ranked]]] = {}
    domains: dict[str, set[str]] = {}
    for listener in listeners:
        domains.setdefault(listener.name, set()).add(listener.hostname or "*")
        for each in attached:
            for host in each.hosts.get(listener.name, ()):
                domains[listener.name].add(host)
                routes.setdefault(listener.name, []).extend((host, ranked) for ranked in each.routes)
    owners: dict[str, str] = {}
    for listener in listeners:
        for domain in domains[listener.name]:
            if _find_owner(listeners, domain) == listener.name:
                owners[domain] = listener.name
    return tuple(
        VirtualHost(domain, (domain,), _settle(port, domain, _select(domain, routes.get(owners[domain], ()))))
        for domain in sorted(owners, key=specificity, reverse=True)
    )


def _find_owner(listeners: Sequence[Listener], domain: str) -> str:
    """The listener to which requests for `domain` belong."""
    hosts = {listener.name: listener.hostname or "*" for listener in listeners}
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


def _settle(port: int, domain: str, routes: Iterable[Route]) -> tuple[Route, ...]:
    return tuple(
        replace(route, action=_settle_redirect(route.action, port, domain))
        if isinstance(route.action, Redirect)
        else route
        for route in routes
    )


def _settle_redirect(redirect: Redirect, port: int, domain: str) -> Redirect:
    """Name the host and the port where they are known (facts of L7, 3.5): a port that goes without saying is left out.

    Where only the request knows the host, it knows whether a port stands behind it, too.
    """
    scheme = redirect.scheme or "http"
    known = redirect.host or ("" if domain.startswith("*") else domain)
    wanted = redirect.port or (_WELL_KNOWN_PORTS[redirect.scheme] if redirect.scheme else port)
    keeps_place = not (redirect.scheme or redirect.port or redirect.host)
    needs_no_port = wanted == _WELL_KNOWN_PORTS[scheme] and (bool(known) or port in _WELL_KNOWN_PORTS.values())
    if keeps_place or needs_no_port:
        return replace(redirect, host=redirect.host if keeps_place else known, port=0)
    return replace(redirect, host=known, port=wanted)
