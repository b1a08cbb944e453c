"""Cluster IPs: which addresses a service gets, and the Service object with them filled in."""

from dataclasses import dataclass, replace

from ambit.lab import addresses
from ambit.lab.addresses import Address, NumberPool
from ambit.lab.control import Json
from ambit.lab.manifests import Manifest
from ambit.lab.status import ServicePortStatus, ServiceStatus
from controller.kinds import core
from mesh.kit.errors import RefusedError


@dataclass(frozen=True, slots=True)
class Service:
    """A service of the lab. `numbers` are those taken from the pool, to be given back with it."""

    value: core.Service
    manifest: Manifest
    addresses: tuple[Address, ...]
    numbers: tuple[int, ...]

    def status(self, endpoints: int) -> ServiceStatus:
        """The service as `ambit lab status` shows it."""
        return ServiceStatus(
            namespace=self.value.namespace,
            name=self.value.name,
            addresses=[str(address) for address in self.addresses],
            ports=[
                ServicePortStatus(port.name or "", port.port, port.protocol, port.target_port or port.port)
                for port in self.value.spec.ports or ()
            ],
            endpoints=endpoints,
        )

    def document(self) -> dict[str, Json]:
        """The Service object as Kubernetes would show it."""
        written = self.manifest.document.get("spec")
        spec: dict[str, Json] = {**written} if isinstance(written, dict) else {}
        if self.addresses:
            ips: list[Json] = [str(address) for address in self.addresses]
            spec |= {
                "clusterIP": ips[0],
                "clusterIPs": ips,
                "ipFamilies": [f"IPv{address.version}" for address in self.addresses],
            }
        elif is_headless(self.value):
            spec |= {"clusterIP": "None", "clusterIPs": ["None"]}
        return {**self.manifest.document, "spec": spec}

    def updated(self, value: core.Service, manifest: Manifest) -> "Service":
        """The same service with other contents; it keeps its addresses."""
        return replace(self, value=value, manifest=manifest)

    def environment(self) -> dict[str, str]:
        """The variables that Kubernetes gives to pods of the service's namespace (service links)."""
        ports = self.value.spec.ports or ()
        if not self.addresses or not ports:
            return {}
        prefix = _variable_name(self.value.name)
        named = {f"{prefix}_SERVICE_PORT_{_variable_name(port.name)}": str(port.port) for port in ports if port.name}
        return {f"{prefix}_SERVICE_HOST": str(self.addresses[0]), f"{prefix}_SERVICE_PORT": str(ports[0].port), **named}


def is_headless(service: core.Service) -> bool:
    """Whether a service asks to have no cluster IP."""
    return service.spec.cluster_ip == "None" or "None" in (service.spec.cluster_ips or ())


def allocate(value: core.Service, manifest: Manifest, pool: NumberPool) -> Service:
    """Give a service its cluster IPs: those it asks for, else one of each family with the same number.

    Raises RefusedError when an address is taken or outside the lab's ranges.
    """
    if is_headless(value) or value.spec.type == "ExternalName":
        return Service(value, manifest, (), ())
    if value.addresses:
        numbers = tuple(dict.fromkeys(addresses.service_number(address) for address in value.addresses))
        for index, number in enumerate(numbers):
            try:
                pool.reserve(number)
            except RefusedError:
                pool.give_back(numbers[:index])
                raise
        return Service(value, manifest, value.addresses, numbers)
    number = pool.take()
    return Service(value, manifest, _in_families(value, manifest, addresses.service_addresses(number)), (number,))


def pool_of_services() -> NumberPool:
    """A fresh pool of service numbers."""
    return NumberPool(addresses.FIRST_SERVICE, addresses.MAX_SERVICES, "service addresses")


def _in_families(value: core.Service, manifest: Manifest, both: tuple[Address, ...]) -> tuple[Address, ...]:
    """Both addresses, unless the service asks for a single family (ipFamilyPolicy, ipFamilies)."""
    families = list(value.spec.ip_families or ())
    ordered = tuple(sorted(both, key=lambda address: families[:1] == ["IPv6"] and address.version == 4))
    spec = manifest.document.get("spec")
    policy = spec.get("ipFamilyPolicy") if isinstance(spec, dict) else None
    if policy == "SingleStack" or (len(families) == 1 and policy is None):
        return ordered[:1]
    return ordered


def _variable_name(name: str) -> str:
    return name.upper().replace("-", "_").replace(".", "_")
