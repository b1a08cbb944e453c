"""Servers of Istio's Gateways that serve nobody: what they lack, and what takes their port or their names from them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from controller.analysis.findings import Finding
from controller.analysis.given import Given
from controller.kinds.istio_gateway import IstioGateway, Server, ServerSort
from controller.kinds.secrets import Secret
from controller.kinds.server_tls import ServerTls
from controller.kinds.virtual_service import VirtualService
from controller.registry.certificates import list_named_nodes
from controller.registry.ingress import list_bound_hosts, list_selected
from controller.registry.ingress_certificates import resolve_credentials
from controller.registry.policies import matches
from controller.registry.proxies import build_ingress
from controller.registry.virtual_services import find_gateways


def check_server_certificates(given: Given) -> Iterator[Finding]:
    """Servers without what they end TLS with, and those whose certificates no proxy may have."""
    for gateway in given.snapshot.objects(IstioGateway):
        places = _find_namespaces(given, gateway)
        for index, server in enumerate(gateway.spec.servers):
            if server.tls is None or server.sort is not ServerSort.TLS or server.passes_through:
                continue
            path = ("spec", "servers", index, "tls")
            for message in _list_problems(given, server.tls, places):
                yield Finding("certificate-missing", gateway.key, path, message)
            if given.knows_all_pods() and gateway.spec.selector and not places:
                message = "no pod that is given has the selector's labels: no proxy gets its certificates"
                yield Finding("certificate-without-proxy", gateway.key, path, message)


def _find_namespaces(given: Given, gateway: IstioGateway) -> set[str]:
    """Where its proxies are, as far as they are known."""
    selector = gateway.spec.selector
    named = {gateway.namespace} if any(list_named_nodes(gateway)) else set[str]()
    if not selector:
        return named
    return named | {place for place, pods in given.pods.items() if any(matches(selector, pod.labels) for pod in pods)}


def _list_problems(given: Given, tls: ServerTls, places: Iterable[str]) -> Iterator[str]:
    """Where nobody knows where the proxies are, a Secret counts as there wherever it is."""
    known = sorted(places)
    if known:
        yield from filter(None, (resolve_credentials(given.snapshot, each, tls).problem for each in known))
        return
    there = {secret.name for secret in given.snapshot.objects(Secret)}
    for name in tls.credentials:
        if name not in there:
            yield f"there is no valid Secret {name} in any namespace; it stands beside the proxies"


def check_servers(given: Given) -> Iterator[Finding]:
    """Servers that older ones leave nothing to, and those for which no rule is."""
    for gateway in given.snapshot.objects(IstioGateway):
        older = _list_beside(given, gateway)
        for index, server in enumerate(gateway.spec.servers):
            path = ("spec", "servers", index)
            if reason := _find_conflict(older, gateway, server):
                yield Finding("server-not-served", gateway.key, path, reason)
            elif kind := _find_missing_rules(given, gateway, server):
                message = f"no VirtualService that has its hosts has {kind} rules, which are what it serves"
                yield Finding("server-without-rules", gateway.key, path, message)


def _list_beside(given: Given, gateway: IstioGateway) -> Mapping[int, Sequence[tuple[IstioGateway, Server]]]:
    """By port, the servers of all Gateways that whoever carries out this one does carry out: the oldest first."""
    found: dict[int, list[tuple[IstioGateway, Server]]] = {}
    ingress = build_ingress(given.settings.root_namespace, gateway.spec.selector or {})
    for each in list_selected(given.snapshot, ingress):
        for server in each.spec.servers:
            found.setdefault(server.port.number, []).append((each, server))
    return found


def _find_conflict(
    beside: Mapping[int, Sequence[tuple[IstioGateway, Server]]], gateway: IstioGateway, server: Server
) -> str:
    number = server.port.number
    first, leading = beside[number][0]
    if leading.sort is not server.sort:
        return f"port {number} is for {leading.sort.value}, says the older server {_name(first, leading)}"
    if server.sort is not ServerSort.TLS:
        return ""
    owners: dict[str, tuple[IstioGateway, Server]] = {}
    for other, each in beside[number]:
        for host in each.bare_hosts:
            owners.setdefault(host, (other, each))
    taken = [owners[host] for host in server.bare_hosts]
    if any(owner is server for _, owner in taken):
        return ""
    return f"all of its hosts are those of older servers at port {number}: {_name(*taken[0])}"


def _name(gateway: IstioGateway, server: Server) -> str:
    return f"{server.port.name} of {gateway.key}"


def _find_missing_rules(given: Given, gateway: IstioGateway, server: Server) -> str:
    """The rules that it would serve, where VirtualServices are for its hosts, and none of them has such."""
    if server.redirects_to_https:
        return ""
    kind = "http" if server.serves_requests else "tls" if server.passes_through else "tcp"
    place = (gateway.namespace, gateway.name)
    bound = [
        service
        for service in given.snapshot.objects(VirtualService)
        if place in find_gateways(service) and list_bound_hosts(given.settings, gateway, server, service)
    ]
    return kind if bound and not any(getattr(each.spec, kind) for each in bound) else ""
