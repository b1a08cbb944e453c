"""BackendTLSPolicies as the mesh sees them: which ports of Services proxies of Gateways speak TLS to, and with whom.

The policies of the Service's own namespace count. One for a port goes before one for all; of two alike the oldest
counts. What has no valid authority is spoken TLS to as well, and nobody is believed there: its requests fail (Gateway
API).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from controller.kinds.backend_tls_policy import AuthorityReference, BackendTLSPolicy, PolicyTarget
from controller.kinds.config_maps import ConfigMap
from controller.registry.attachment import Reason
from controller.registry.gateways import Chain, RequestChain
from controller.registry.http import Destination, Forward, Mirror, Route, Target
from controller.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class BackendTls:
    """How TLS is spoken. Without `authorities`, in PEM, nobody is believed, unless those of the system are."""

    server_name: str
    authorities: str
    hosts: tuple[str, ...]
    uris: tuple[str, ...] = ()
    trusts_system: bool = False


def list_targets(policy: BackendTLSPolicy) -> Iterator[tuple[int, PolicyTarget]]:
    """The Services that a policy is for, by number; other targets are nobody's."""
    for number, target in enumerate(policy.spec.target_refs):
        if (target.group or "core", target.kind) == ("core", "Service"):
            yield number, target


def find_policies(snapshot: Snapshot, namespace: str, service: str, port_name: str) -> list[BackendTLSPolicy]:
    """Those for a port of a Service, the one that counts first."""
    found = [
        (target.section_name is None, *policy.age_key, policy)
        for policy in snapshot.objects_in(BackendTLSPolicy, namespace)
        for _, target in list_targets(policy)
        if target.name == service and target.section_name in (None, port_name)
    ]
    ranked = sorted(found, key=lambda each: each[:-1])
    return list({each[-1].name: each[-1] for each in ranked}.values())


def resolve_authority(
    snapshot: Snapshot, policy: BackendTLSPolicy, reference: AuthorityReference
) -> tuple[Reason, str, str]:
    """Whether an authority is there, why not, and its certificates."""
    place = f"{policy.namespace}/{reference.name}"
    if (reference.group or "core", reference.kind) != ("core", "ConfigMap"):
        return Reason.INVALID_KIND, f"authority {reference.name} is a {reference.kind}, and no ConfigMap", ""
    found = snapshot.find(ConfigMap, policy.namespace, reference.name)
    if found is None:
        return Reason.INVALID_AUTHORITY, f"there is no valid ConfigMap {place}", ""
    if not found.authorities:
        return Reason.INVALID_AUTHORITY, f"ConfigMap {place} has no ca.crt", ""
    return Reason.RESOLVED, "", found.authorities


def find_backend_tls(snapshot: Snapshot, namespace: str, service: str, port_name: str) -> BackendTls | None:
    """The TLS that a port of a Service is spoken to with; None where that is plaintext."""
    for policy in find_policies(snapshot, namespace, service, port_name)[:1]:
        validation = policy.spec.validation
        found = (resolve_authority(snapshot, policy, each)[2] for each in validation.ca_certificate_refs)
        names = validation.subject_alt_names or ()
        return BackendTls(
            server_name=validation.hostname,
            authorities="\n".join(each.strip() for each in found if each),
            hosts=tuple(each.value for each in names if each.type == "Hostname") if names else (validation.hostname,),
            uris=tuple(each.value for each in names if each.type == "URI"),
            trusts_system=validation.well_known is not None,
        )
    return None


def secure_chains(chains: Iterable[Chain], secured: Iterable[Target]) -> tuple[Chain, ...]:
    """The same, with these targets spoken to over TLS; connections that pass through have theirs."""
    return tuple(_secure_chain(chain, frozenset(secured)) for chain in chains)


def _secure_chain(chain: Chain, secured: frozenset[Target]) -> Chain:
    if isinstance(chain, RequestChain):
        hosts = (
            replace(host, routes=tuple(_secure_route(route, secured) for route in host.routes)) for host in chain.hosts
        )
        return replace(chain, hosts=tuple(hosts))
    if chain.passes_through:
        return chain
    return replace(chain, destinations=tuple(_secure_destination(each, secured) for each in chain.destinations))


def _secure_route(route: Route, secured: frozenset[Target]) -> Route:
    action = route.action
    if not isinstance(action, Forward):
        return route
    destinations = tuple(_secure_destination(each, secured) for each in action.destinations)
    mirrors = tuple(Mirror(_secure(each.target, secured), each.share) for each in action.mirrors)
    return replace(route, action=replace(action, destinations=destinations, mirrors=mirrors))


def _secure_destination(destination: Destination, secured: frozenset[Target]) -> Destination:
    return replace(destination, target=_secure(destination.target, secured)) if destination.target else destination


def _secure(target: Target, secured: frozenset[Target]) -> Target:
    return replace(target, is_secured=True) if target in secured else target
