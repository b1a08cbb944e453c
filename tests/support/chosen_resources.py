"""Resources of a chosen mesh, from as little as says what matters."""

from collections.abc import Mapping
from ipaddress import ip_address

from mesh import ports as mesh_ports
from mesh.wire import workload_pb2 as pb
from mesh.wire.authorization_pb2 import Authorization


def service(
    name: str, vip: str = "", ports: Mapping[int, int] | None = None, namespace: str = "test", network: str = ""
) -> pb.Service:
    """A service at `vip`, with `ports` from its own to the pods' (0: named)."""
    addresses = [pb.NetworkAddress(network=network, address=ip_address(vip).packed)] if vip else []
    return pb.Service(
        name=name,
        namespace=namespace,
        hostname=f"{name}.{namespace}.svc.cluster.local",
        addresses=addresses,
        ports=[pb.Port(service_port=own, target_port=target) for own, target in (ports or {}).items()],
    )


def endpoint_of(workload: pb.Workload, service: pb.Service, ports: Mapping[int, int] | None = None) -> pb.Workload:
    """The workload as an endpoint of the service as well; returns it."""
    pairs = ports or {port.service_port: port.target_port for port in service.ports}
    mapped = [pb.Port(service_port=own, target_port=target) for own, target in pairs.items()]
    workload.services[f"{service.namespace}/{service.hostname}"].ports.extend(mapped)
    return workload


def gateway_by_name(service: pb.Service, port: int = mesh_ports.HBONE_PORT) -> pb.GatewayAddress:
    """A waypoint or network gateway, named by its service."""
    name = pb.NamespacedHostname(namespace=service.namespace, hostname=service.hostname)
    return pb.GatewayAddress(hostname=name, hbone_mtls_port=port)


def gateway_by_address(address: str, port: int = mesh_ports.HBONE_PORT, network: str = "") -> pb.GatewayAddress:
    """A waypoint or network gateway, named by an address: a service's or a workload's."""
    found = pb.NetworkAddress(network=network, address=ip_address(address).packed)
    return pb.GatewayAddress(address=found, hbone_mtls_port=port)


def name_resource(resource: pb.Workload | pb.Service | Authorization) -> str:
    """The name under which a resource is served."""
    match resource:
        case pb.Workload():
            return resource.uid
        case pb.Service():
            return f"{resource.namespace}/{resource.hostname}"
        case _:
            return f"{resource.namespace}/{resource.name}"
