"""Where a VirtualService sends connections whose bytes are no requests: its `tls` rules, then its `tcp` rules.

Of several for one host the first that has something for the port counts. A service is chosen by its address already, so
that a TLS rule is for the service whose host is one of its `sniHosts`.
"""

from collections.abc import Iterator, Sequence

from controller.kinds import virtual_service as kinds
from controller.kinds.virtual_service import BytesDestination, TcpRoute, TlsRoute, VirtualService
from controller.registry.attachment import covers
from controller.registry.http import Destination
from controller.registry.virtual_services import FindTarget


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
    """Where connections to a port of a host go; empty where it does not say."""
    for tls in (service.spec.tls or ()) if speaks_tls else ():
        for match in tls.match:
            if match.port in (None, port) and any(covers(name, host) for name in match.sni_hosts):
                return tuple(_build_destinations(tls.route, find_target))
    for tcp in service.spec.tcp or ():
        if not tcp.match or any(match.port in (None, port) for match in tcp.match):
            return tuple(_build_destinations(tcp.route, find_target))
    return ()


def _build_destinations(routes: Sequence[BytesDestination], find_target: FindTarget) -> Iterator[Destination]:
    """A lone destination has all; of several one without a weight has nothing."""
    for each in routes:
        weight = each.weight if len(routes) > 1 else 1
        if weight:
            yield Destination(find_target(each.destination), weight)
