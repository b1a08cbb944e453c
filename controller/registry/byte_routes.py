"""Where a VirtualService sends connections whose bytes are no requests: its `tls` rules, then its `tcp` rules.

Within the mesh the first of several for one host that has something for the port counts. A service is chosen by its
address already, so that a TLS rule is for the service whose host is one of its `sniHosts`. At a Gateway it is the
server name that a client gives: `tls` rules are for TLS that passes through, and `tcp` rules for all else.
"""

from collections.abc import Iterable, Iterator, Sequence

from controller.kinds import virtual_service as kinds
from controller.kinds.virtual_service import (
    BytesDestination,
    BytesMatch,
    TcpRoute,
    TlsMatch,
    TlsRoute,
    VirtualService,
)
from controller.registry.attachment import covers, find_narrower
from controller.registry.http import Destination
from controller.registry.names import Place
from controller.registry.virtual_services import FindTarget, is_meant


def list_byte_destinations(service: VirtualService) -> Iterator[tuple[tuple[str | int, ...], kinds.Destination]]:
    """All that its `tls` and `tcp` rules send connections to, each with its field."""
    given: tuple[tuple[str, Sequence[TlsRoute | TcpRoute]], ...] = (
        ("tls", service.spec.tls or ()),
        ("tcp", service.spec.tcp or ()),
    )
    for kind, rules in given:
        for number, rule in enumerate(rules):
            for index, each in enumerate(rule.route):
                yield ("spec", kind, number, "route", index, "destination"), each.destination


def find_byte_destinations(
    service: VirtualService, host: str, port: int, speaks_tls: bool, find_target: FindTarget
) -> tuple[Destination, ...]:
    """Where connections within the mesh to a port of a host go; empty where it does not say."""
    for rule, match in _list_tls(service, port) if speaks_tls else ():
        if any(covers(name, host) for name in match.sni_hosts):
            return tuple(_build_destinations(rule.route, find_target))
    return find_tcp_destinations(service, port, find_target)


def find_tcp_destinations(
    service: VirtualService, port: int, find_target: FindTarget, gateway: Place | None = None
) -> tuple[Destination, ...]:
    """Where connections to a port of a Gateway go, or where none is given of the mesh; empty where it does not say."""
    for rule in service.spec.tcp or ():
        if not rule.match or any(_is_met(match, port, service, gateway) for match in rule.match):
            return tuple(_build_destinations(rule.route, find_target))
    return ()


def find_named_destinations(
    service: VirtualService, hosts: Iterable[str], port: int, find_target: FindTarget, gateway: Place
) -> Iterator[tuple[str, tuple[Destination, ...]]]:
    """By server name, where connections to a port of a Gateway go whose TLS passes through; the first counts.

    `hosts` are those that the two share: of a name only what is within one of them is served.
    """
    given = list(hosts)
    for rule, match in _list_tls(service, port, gateway):
        destinations = tuple(_build_destinations(rule.route, find_target))
        for name in match.sni_hosts:
            for common in filter(None, (find_narrower(host, name) for host in given)):
                yield common, destinations


def _list_tls(service: VirtualService, port: int, gateway: Place | None = None) -> Iterator[tuple[TlsRoute, TlsMatch]]:
    for rule in service.spec.tls or ():
        yield from ((rule, match) for match in rule.match if _is_met(match, port, service, gateway))


def _is_met(match: BytesMatch, port: int, service: VirtualService, gateway: Place | None) -> bool:
    return match.port in (None, port) and is_meant(match.gateways, service.namespace, gateway)


def _build_destinations(routes: Sequence[BytesDestination], find_target: FindTarget) -> Iterator[Destination]:
    """A lone destination has all; of several one without a weight has nothing."""
    for each in routes:
        weight = each.weight if len(routes) > 1 else 1
        if weight:
            yield Destination(find_target(each.destination), weight)
