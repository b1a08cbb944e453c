"""How the mesh names things: resource names, host names and the settings that they depend on.

Names are Istio ambient's (facts of the control plane, sections 2 and 3), so that stock ztunnels and ours agree.
"""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from controller.kinds.core import IpAddress
from controller.registry.proxies import Ingress
from mesh.identity import DEFAULT_TRUST_DOMAIN

Place = tuple[str, str]
"""Namespace and name of an object whose kind is known."""

DEFAULT_CLUSTER_ID = "Kubernetes"
DEFAULT_ROOT_NAMESPACE = "istio-system"
DEFAULT_DOMAIN_SUFFIX = "cluster.local"


@dataclass(frozen=True, slots=True)
class MeshSettings:
    """What is the same for the whole mesh.

    `cluster_id` begins the names of workloads; `root_namespace` is where policies for the whole mesh stand;
    `trust_domain` begins every identity; `domain_suffix` ends every service's host name. `prefers_near` says whether
    requests stay near where outliers are detected and no DestinationRule says otherwise.
    """

    cluster_id: str = DEFAULT_CLUSTER_ID
    trust_domain: str = DEFAULT_TRUST_DOMAIN
    root_namespace: str = DEFAULT_ROOT_NAMESPACE
    domain_suffix: str = DEFAULT_DOMAIN_SUFFIX
    prefers_near: bool = True


def name_pod(cluster_id: str, namespace: str, name: str) -> str:
    """A pod's resource name, which is its workload's uid."""
    return f"{cluster_id}//Pod/{namespace}/{name}"


def name_host(settings: MeshSettings, namespace: str, name: str) -> str:
    """A service's fully qualified host name."""
    return f"{name}.{namespace}.svc.{settings.domain_suffix}"


def find_service_name(host: str, namespace: str, settings: MeshSettings) -> tuple[str, str] | None:
    """The namespace and name of the Kubernetes Service that an object of `namespace` means by `host`.

    A name without dots is one of the same namespace (Istio's rule). None where it can be none.
    """
    if "*" in host:
        return None
    if "." not in host:
        return namespace, host
    name, _, rest = host.partition(".")
    place, _, suffix = rest.partition(".")
    return (place, name) if suffix in ("svc", f"svc.{settings.domain_suffix}") else None


def find_full_host(host: str, namespace: str, settings: MeshSettings) -> str:
    """The whole host name that an object of `namespace` means by `host`: a Service's, or any other as it is."""
    place = find_service_name(host, namespace, settings)
    return name_host(settings, *place) if place else host


def name_service(settings: MeshSettings, namespace: str, name: str) -> str:
    """A Service's resource name."""
    return name_hosted(namespace, name_host(settings, namespace, name))


def name_hosted(namespace: str, host: str) -> str:
    """The resource name of whatever has a host name: `namespace/hostname`."""
    return f"{namespace}/{host}"


def name_entry(settings: MeshSettings, namespace: str, name: str) -> str:
    """The resource name, and uid, of a WorkloadEntry."""
    return f"{settings.cluster_id}/networking.istio.io/WorkloadEntry/{namespace}/{name}"


def name_entry_endpoint(settings: MeshSettings, namespace: str, name: str, address: str) -> str:
    """The resource name, and uid, of an endpoint of a ServiceEntry."""
    return f"{settings.cluster_id}/networking.istio.io/ServiceEntry/{namespace}/{name}/{address}"


def name_slice_endpoint(settings: MeshSettings, namespace: str, name: str, address: IpAddress) -> str:
    """The resource name, and uid, of an endpoint of an EndpointSlice."""
    return f"{settings.cluster_id}/discovery.k8s.io/EndpointSlice/{namespace}/{name}/{address}"


def name_policy(namespace: str, name: str) -> str:
    """A policy's resource name."""
    return f"{namespace}/{name}"


def name_address(network: str, address: IpAddress | IPv4Network | IPv6Network) -> str:
    """The name under which an address or range can be asked for: `network/ip`, `network/ip/length`.

    The default network's name is empty.
    """
    return f"{network}/{address}"


def name_node(node: str) -> str:
    """The name under which all workloads of a node are found. It is ours, and no client can ask for it by accident."""
    return f"node:{node}"


def name_gateway(namespace: str, name: str) -> str:
    """The name under which all that the proxies of a Gateway need is found. No client asks for it by accident."""
    return f"gateway:{namespace}/{name}"


def name_gateway_port(namespace: str, name: str, port: int) -> str:
    """The resource name of a Gateway's port, and of its routes."""
    return f"gateway/{namespace}/{name}/{port}"


def name_waypoint(namespace: str, name: str) -> str:
    """The resource name of where a waypoint takes connections."""
    return f"waypoint/{namespace}/{name}"


def name_direct(namespace: str, name: str) -> str:
    """The resource name of a waypoint's way to wherever a connection was addressed to."""
    return f"waypoint/{namespace}/{name}/direct"


def name_ingress(ingress: Ingress) -> str:
    """The name under which all that the proxies of an ingress gateway need is found."""
    return f"ingress:{ingress}"


def name_ingress_port(ingress: Ingress, port: int) -> str:
    """The resource name of an ingress gateway's port, and of its routes."""
    return f"ingress/{ingress}/{port}"


def name_gateway_routes(namespace: str, name: str, port: int, listener: str) -> str:
    """The resource name of the routes of a listener that has a port's connections for some hosts only."""
    return f"{name_gateway_port(namespace, name, port)}/{listener}"


def name_proxy(namespace: str, name: str, node: str) -> str:
    """The name under which the proxies of a Gateway on a node find what only they may have."""
    return f"proxy:{namespace}/{name}@{node}"


def name_ingress_proxy(ingress: Ingress, node: str) -> str:
    """The same for the proxies of an ingress gateway."""
    return f"ingress-proxy:{ingress}@{node}"


def name_secret(namespace: str, name: str) -> str:
    """The resource name of a certificate with its key."""
    return f"secret/{namespace}/{name}"


def name_authority(namespace: str, name: str) -> str:
    """The resource name of the authorities of a Secret, by which clients are verified."""
    return f"authority/{namespace}/{name}"


def name_ingress_routes(ingress: Ingress, port: int, server: str) -> str:
    """The resource name of the routes of a server that has a port's connections for some hosts only."""
    return f"{name_ingress_port(ingress, port)}/{server}"


SIDECARS = "sidecars"
"""The name under which all that a sidecar needs is found, where nobody says what its namespace is told of."""


def name_sidecars(namespace: str) -> str:
    """The name under which all that the sidecars of a namespace need is found, where a Sidecar says what that is."""
    return f"sidecars:{namespace}"


def name_sidecar_port(host: str, port: int) -> str:
    """The resource name of where a sidecar takes connections to a service's port."""
    return f"sidecar/{host}/{port}"


def name_service_port(host: str, port: int) -> str:
    """What gRPC's clients dial, and the resource name of what it leads to."""
    return f"{host}:{port}"


def name_service_routes(host: str, port: int) -> str:
    """The resource name of the routes of a service's port."""
    return f"service/{host}/{port}"
