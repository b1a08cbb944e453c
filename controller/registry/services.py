"""Services as the mesh sees them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network

from controller.kinds import core
from controller.registry.bindings import Binding
from controller.registry.names import MeshSettings, name_host, name_service


class AppProtocol(Enum):
    """What a port speaks, where its author said so."""

    UNKNOWN = "unknown"
    HTTP11 = "http"
    HTTP2 = "http2"
    GRPC = "grpc"
    TCP = "tcp"
    TLS = "tls"


class Discovery(Enum):
    """How it is known who serves: by the mesh, by all addresses of names, by one address of a name at a time, or by
    the client, who has connected to an address itself.
    """

    MESH = "mesh"
    NAMES = "names"
    ONE_NAME = "one_name"
    CLIENT = "client"


class Spreading(Enum):
    """Which endpoints are preferred: any, the nearest, the same node's first, or the same node's only."""

    ANYWHERE = "anywhere"
    PREFER_CLOSE = "prefer_close"
    PREFER_SAME_NODE = "prefer_same_node"
    SAME_NODE_ONLY = "same_node_only"


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One TCP port. `target` is a number, or the name of a container's port that each workload resolves for itself.

    A workload's port called `name` goes before it where a ServiceEntry is served, or a WorkloadEntry serves.
    """

    number: int
    target: int | str
    protocol: AppProtocol
    name: str = ""


@dataclass(frozen=True, slots=True)
class Service:
    """A service, ready to be translated. `addresses` is empty for a headless one.

    One of several with a host name is `canonical`: it is meant where none of the client's own namespace is. One that
    passes through leaves it to the client which address is connected to, of `addresses` and `ranges`. `subject_names`
    are what certificates of those outside of the mesh may be for that serve it. One that gates ingress is reached
    through its waypoint by gateways, too.
    """

    name: str
    namespace: str
    hostname: str
    resource_name: str
    addresses: tuple[core.IpAddress, ...]
    ports: tuple[ServicePort, ...]
    ip_families: tuple[str, ...]
    spreading: Spreading
    serves_unready: bool
    ranges: tuple[IPv4Network | IPv6Network, ...] = ()
    is_canonical: bool = True
    is_private: bool = False
    is_entry: bool = False
    passes_through: bool = False
    identities: tuple[str, ...] = ()
    subject_names: tuple[str, ...] = ()
    discovery: Discovery = Discovery.MESH
    waypoint: Binding | None = None
    gates_ingress: bool = False

    @property
    def place(self) -> tuple[str, str]:
        """Under which routes and destinations know it: its namespace, and its name or, of an entry's, its host."""
        return self.namespace, self.hostname if self.is_entry else self.name

    @property
    def reference(self) -> str:
        """What its clusters are named after: its host, with its namespace where the host is first of all another's."""
        return self.hostname if self.is_canonical else f"{self.namespace}/{self.hostname}"


# Kubernetes' and Istio's spellings; the first part of a port's name (before '-') counts when appProtocol is absent.
_PROTOCOLS = {
    "http": AppProtocol.HTTP11,
    "http2": AppProtocol.HTTP2,
    "kubernetes.io/h2c": AppProtocol.HTTP2,
    "grpc": AppProtocol.GRPC,
    "grpc-web": AppProtocol.HTTP11,
    "https": AppProtocol.TLS,
    "tls": AppProtocol.TLS,
    "tcp": AppProtocol.TCP,
    "mongo": AppProtocol.TCP,
    "mysql": AppProtocol.TCP,
    "redis": AppProtocol.TCP,
}
_SPREADING = {
    "preferclose": Spreading.PREFER_CLOSE,
    "prefersamezone": Spreading.PREFER_CLOSE,
    "prefersamenode": Spreading.PREFER_SAME_NODE,
}
SPREADING_ANNOTATION = "networking.istio.io/traffic-distribution"


def is_served(service: core.Service) -> bool:
    """Whether the mesh has anything to do with it: an ExternalName is only a DNS alias."""
    return service.spec.type != "ExternalName"


def build_service(service: core.Service, namespace: core.Namespace | None, settings: MeshSettings) -> Service:
    """See a Kubernetes Service as the mesh does;

    `namespace` is its Namespace object, whose annotations are defaults.
    """
    spec = service.spec
    return Service(
        name=service.name,
        namespace=service.namespace,
        hostname=name_host(settings, service.namespace, service.name),
        resource_name=name_service(settings, service.namespace, service.name),
        addresses=service.addresses,
        ports=tuple(_build_ports(service)),
        ip_families=tuple(spec.ip_families or ()),
        spreading=_find_spreading(service, namespace),
        serves_unready=bool(spec.publish_not_ready_addresses),
    )


def selects(service: core.Service, labels: Mapping[str, str]) -> bool:
    """Whether a Service's selector picks a pod with `labels`. A Service without selector picks none."""
    selector = service.spec.selector
    return bool(selector) and all(labels.get(key) == value for key, value in (selector or {}).items())


def _build_ports(service: core.Service) -> Iterator[ServicePort]:
    for port in service.spec.ports or ():
        if port.protocol == "TCP":
            yield ServicePort(port.port, port.target_port or port.port, _find_protocol(port), port.name or "")


def find_protocol(name: str) -> AppProtocol:
    """The protocol of this name, whatever its case."""
    return _PROTOCOLS.get(name.lower(), AppProtocol.UNKNOWN)


def _find_protocol(port: core.ServicePort) -> AppProtocol:
    if port.app_protocol:
        return find_protocol(port.app_protocol)
    name = (port.name or "").lower()
    return _PROTOCOLS.get(name) or _PROTOCOLS.get(name.split("-", 1)[0], AppProtocol.UNKNOWN)


def _find_spreading(service: core.Service, namespace: core.Namespace | None) -> Spreading:
    """internalTrafficPolicy wins, then the Service's field, its annotation, its namespace's (facts, section 4)."""
    if service.spec.internal_traffic_policy == "Local":
        return Spreading.SAME_NODE_ONLY
    wishes = (
        service.spec.traffic_distribution,
        service.annotations.get(SPREADING_ANNOTATION),
        namespace.annotations.get(SPREADING_ANNOTATION) if namespace else None,
    )
    wish = next((wish for wish in wishes if wish), "")
    return _SPREADING.get(wish.lower(), Spreading.ANYWHERE)
