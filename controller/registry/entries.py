"""ServiceEntries and WorkloadEntries as the mesh sees them: services and workloads beside Kubernetes' own.

A host may be named by several objects. In one namespace a Service goes before ServiceEntries, and of these the oldest
counts; over all namespaces one is canonical, by the same rule (facts of the control plane, section 4).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network, ip_address

from controller.kinds.core import IpAddress, Service
from controller.kinds.hosts import is_ip
from controller.kinds.networking import ServiceEntry, ServiceEntryPort, WorkloadEntry, WorkloadEntrySpec
from controller.registry import services, workloads
from controller.registry.names import MeshSettings, name_entry, name_entry_endpoint, name_host, name_hosted
from controller.registry.services import Discovery, ServicePort, Spreading
from controller.registry.workload_groups import GROUP_ANNOTATION
from controller.registry.workloads import Endpoint, EndpointPort, Locality, Workload
from controller.snapshot import Snapshot

# Istio's, which nobody routes: class E, and the benchmarking range of RFC 5180.
_POOLS = (IPv4Network("240.240.0.0/16"), IPv6Network("2001:2::/48"))
_DISCOVERY = {"DNS": Discovery.NAMES, "DNS_ROUND_ROBIN": Discovery.ONE_NAME, "NONE": Discovery.CLIENT}
# Of both pools the same number is taken. The first and last of a /16 are its network's and its broadcast's.
_NUMBERS = (1 << 16) - 2


@dataclass(frozen=True, slots=True)
class Host:
    """A host of a ServiceEntry that serves it."""

    entry: ServiceEntry
    name: str
    addresses: tuple[IpAddress, ...]
    is_canonical: bool


class EntryHosts:
    """Which ServiceEntry serves which host, of one snapshot. Worked out when first asked for."""

    def __init__(self, snapshot: Snapshot, settings: MeshSettings) -> None:
        self._snapshot = snapshot
        self._settings = settings

    @cached_property
    def by_place(self) -> Mapping[tuple[str, str], Host]:
        """By namespace and host."""
        owners = self._owners
        allocated = _allocate(owners)
        canonical = self._canonical
        return {
            (namespace, host): Host(entry, host, allocated.get((namespace, host), ()), canonical.get(host) == namespace)
            for (namespace, host), entry in owners.items()
        }

    @cached_property
    def by_namespace(self) -> Mapping[str, Sequence[Host]]:
        """By namespace, in the order of age."""
        found: dict[str, list[Host]] = {}
        for (namespace, _), host in self.by_place.items():
            found.setdefault(namespace, []).append(host)
        return found

    def find(self, host: str, namespace: str) -> Host | None:
        """Whom an object of `namespace` means by a whole host name: its own namespace's entry, else the canonical one.

        A host without a dot is none that others could name: that is a Service's.
        """
        if "." not in host:
            return None
        return self.by_place.get((namespace, host)) or self.by_place.get((self._canonical.get(host, ""), host))

    def hosts_of(self, entry: ServiceEntry) -> list[Host]:
        """Those that the entry serves; it may have lost others."""
        found = (self.by_place.get((entry.namespace, host)) for host in entry.hosts)
        return [host for host in found if host is not None and host.entry.key == entry.key]

    @cached_property
    def _owners(self) -> dict[tuple[str, str], ServiceEntry]:
        owners: dict[tuple[str, str], ServiceEntry] = {}
        for entry in sorted(self._snapshot.objects(ServiceEntry), key=lambda entry: entry.age_key):
            for host in entry.hosts:
                if self._find_service(host) != entry.namespace:
                    owners.setdefault((entry.namespace, host), entry)
        return owners

    @cached_property
    def _canonical(self) -> dict[str, str]:
        """By host, the namespace whose entry is canonical, if no Service is."""
        canonical: dict[str, str] = {}
        for (namespace, host), entry in self._owners.items():
            if not entry.is_private and self._find_service(host) is None:
                canonical.setdefault(host, namespace)
        return canonical

    def _find_service(self, host: str) -> str | None:
        """The namespace of the Kubernetes Service of this name, if there is one."""
        suffix = f".svc.{self._settings.domain_suffix}"
        name, _, namespace = host.removesuffix(suffix).partition(".")
        if not host.endswith(suffix) or name_host(self._settings, namespace, name) != host:
            return None
        service = self._snapshot.find(Service, namespace, name)
        return namespace if service is not None and services.is_served(service) else None


def _allocate(owners: Mapping[tuple[str, str], ServiceEntry]) -> dict[tuple[str, str], tuple[IpAddress, ...]]:
    """An address of each family for each host that wants some: what its status says, else by a hash of its name.

    The same for every replica and after every restart. Where two hashes meet, the younger entry moves on.
    """
    allocated: dict[tuple[str, str], tuple[IpAddress, ...]] = {}
    wanting = {place: entry for place, entry in owners.items() if entry.wants_addresses}
    taken: set[int] = set()
    for (namespace, host), entry in wanting.items():
        if given := entry.allocated(host):
            allocated[namespace, host] = given
            taken |= {int(ip) - int(pool[0]) for ip in given for pool in _POOLS if ip in pool}
    for place in wanting:
        if place not in allocated and len(taken) < _NUMBERS:
            number = int.from_bytes(sha256("/".join(place).encode()).digest()[:8]) % _NUMBERS + 1
            while number in taken:
                number = number % _NUMBERS + 1
            taken.add(number)
            allocated[place] = tuple(pool[number] for pool in _POOLS)
    return allocated


def build_host_service(host: Host) -> services.Service:
    """See a host of a ServiceEntry as the mesh does."""
    entry, spec = host.entry, host.entry.spec
    blocks = spec.addresses or ()
    passes_through = spec.resolution == "NONE"
    return services.Service(
        name=entry.name,
        namespace=entry.namespace,
        hostname=host.name,
        resource_name=name_hosted(entry.namespace, host.name),
        addresses=(*(block[0] for block in blocks if block.num_addresses == 1), *host.addresses),
        ranges=tuple(block for block in blocks if block.num_addresses > 1),
        ports=tuple(_build_port(port) for port in spec.ports or ()),
        ip_families=(),
        spreading=Spreading.ANYWHERE,
        serves_unready=passes_through,
        is_canonical=host.is_canonical,
        is_private=entry.is_private,
        is_entry=True,
        passes_through=passes_through,
        identities=tuple(each for each in spec.subject_alt_names or () if each.startswith("spiffe://")),
        subject_names=tuple(spec.subject_alt_names or ()),
        discovery=_DISCOVERY.get(spec.resolution, Discovery.MESH),
    )


def build_endpoints(entry: ServiceEntry, hosts: Sequence[services.Service], settings: MeshSettings) -> list[Workload]:
    """The workloads that serve an entry's hosts without being objects themselves.

    With a resolution by DNS and no endpoints, each host is its own.
    """
    spec = entry.spec
    if spec.endpoints:
        given = [(each, hosts) for each in spec.endpoints] if hosts else []
    elif spec.resolution in ("DNS", "DNS_ROUND_ROBIN") and not entry.selector:
        given = [(WorkloadEntrySpec(address=each.hostname), [each]) for each in hosts]
    else:
        given = []
    return [_build_endpoint(entry, each, served, settings) for each, served in given]


def endpoint_names(entry: ServiceEntry, settings: MeshSettings) -> Iterator[str]:
    """The resource names of all the workloads that `build_endpoints` may build for any hosts of the entry."""
    addresses = [each.address or "" for each in entry.spec.endpoints or ()] or entry.hosts
    return (name_entry_endpoint(settings, entry.namespace, entry.name, address) for address in addresses)


def build_entry(
    entry: WorkloadEntry, selecting: Iterable[services.Service], policies: Sequence[str], settings: MeshSettings
) -> Workload:
    """See a WorkloadEntry as the mesh does. `selecting` are the services that select it."""
    labels = entry.all_labels
    name = entry.annotations.get(GROUP_ANNOTATION) or labels.get("service.istio.io/workload-name", entry.name)
    uid = name_entry(settings, entry.namespace, entry.name)
    built = _build(_Names(uid, entry.namespace, entry.name, name), entry.spec, labels, selecting)
    return replace(built, policies=tuple(policies))


def _build_endpoint(
    entry: ServiceEntry, spec: WorkloadEntrySpec, hosts: Sequence[services.Service], settings: MeshSettings
) -> Workload:
    uid = name_entry_endpoint(settings, entry.namespace, entry.name, spec.address or "")
    return _build(_Names(uid, entry.namespace, entry.name, entry.name), spec, spec.labels or {}, hosts)


@dataclass(frozen=True, slots=True)
class _Names:
    uid: str
    namespace: str
    name: str
    workload: str


def _build(
    names: _Names, spec: WorkloadEntrySpec, labels: Mapping[str, str], selecting: Iterable[services.Service]
) -> Workload:
    address = spec.address or ""
    canonical_name, revision = workloads.find_canonical(labels, names.workload)
    takes_tunnels = workloads.terminates_tunnels(labels)
    return Workload(
        uid=names.uid,
        name=names.name,
        namespace=names.namespace,
        addresses=(ip_address(address),) if is_ip(address) else (),
        hostname="" if is_ip(address) else address,
        service_account=spec.service_account or "",
        node="",
        is_host_network=False,
        is_healthy=True,
        speaks_hbone=takes_tunnels,
        has_native_tunnel=takes_tunnels,
        demands_tunnel=False,
        workload_name=names.workload,
        canonical_name=canonical_name,
        canonical_revision=revision,
        locality=_parse_locality(spec.locality or ""),
        endpoints=tuple(Endpoint(service, tuple(_resolve_ports(spec, service))) for service in selecting),
        policies=(),
        weight=spec.weight or 0,
        labels=labels,
    )


def _resolve_ports(spec: WorkloadEntrySpec, service: services.Service) -> Iterator[EndpointPort]:
    """A Service's target that names no port of the entry drops that port for this entry only."""
    own = spec.ports or {}
    for port in service.ports:
        target = own.get(port.name) if isinstance(port.target, int) else own.get(port.target)
        if target is None and isinstance(port.target, int):
            target = port.target
        if target is not None:
            yield EndpointPort(port.number, target, port.protocol)


def _build_port(port: ServiceEntryPort) -> ServicePort:
    protocol = services.find_protocol(port.protocol)
    return ServicePort(port.number, port.target_port or port.number, protocol, port.name)


def _parse_locality(text: str) -> Locality:
    region, zone, subzone, *_ = [*text.split("/"), "", "", ""]
    return Locality(region, zone, subzone)
