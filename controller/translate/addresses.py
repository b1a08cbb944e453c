"""Workloads and services as istio.workload.Address (facts of the control plane, section 2)."""

from ipaddress import IPv4Network, IPv6Network

from google.protobuf.wrappers_pb2 import BoolValue

from controller.registry.bindings import Binding
from controller.registry.names import MeshSettings, name_address, name_node
from controller.registry.services import AppProtocol, Service, ServicePort, Spreading
from controller.registry.workloads import Workload
from mesh import ports
from mesh.identity import DEFAULT_TRUST_DOMAIN
from mesh.wire import workload_pb2 as pb

# Ours: a google.protobuf.BoolValue, whether the workload's connections may go without a tunnel on its node. Stock
# ztunnels ignore extensions.
NODE_LOCAL_EXTENSION = "ambit.dev/node-local"
# Every address is on the default network, which has no name.
NETWORK = ""

_PROTOCOLS = {
    AppProtocol.UNKNOWN: pb.UNKNOWN,
    AppProtocol.HTTP11: pb.HTTP11,
    AppProtocol.HTTP2: pb.HTTP2,
    AppProtocol.GRPC: pb.GRPC,
    AppProtocol.TCP: pb.TCP,
    AppProtocol.TLS: pb.TLS,
}
_FAMILIES = {("IPv4",): pb.IPV4_ONLY, ("IPv6",): pb.IPV6_ONLY, (): pb.AUTOMATIC}
_Lb = pb.LoadBalancing
_CLOSE = (_Lb.NETWORK, _Lb.REGION, _Lb.ZONE)
_SPREADING = {
    Spreading.PREFER_CLOSE: (_CLOSE, _Lb.FAILOVER),
    Spreading.PREFER_SAME_NODE: ((*_CLOSE, _Lb.SUBZONE, _Lb.NODE), _Lb.FAILOVER),
    Spreading.SAME_NODE_ONLY: ((_Lb.NODE,), _Lb.STRICT),
}


def translate_workload(workload: Workload, settings: MeshSettings) -> pb.Address:
    """The Address resource of a workload. Its services are the endpoints' half of load balancing."""
    is_default_domain = settings.trust_domain == DEFAULT_TRUST_DOMAIN
    message = pb.Workload(
        uid=workload.uid,
        name=workload.name,
        namespace=workload.namespace,
        addresses=[address.packed for address in workload.addresses],
        network=NETWORK,
        tunnel_protocol=pb.HBONE if workload.speaks_hbone else pb.NONE,
        trust_domain="" if is_default_domain else settings.trust_domain,
        service_account=workload.service_account,
        node=workload.node,
        canonical_name=workload.canonical_name,
        canonical_revision=workload.canonical_revision,
        workload_type=pb.POD,
        workload_name=workload.workload_name,
        native_tunnel=workload.has_native_tunnel,
        authorization_policies=workload.policies,
        status=pb.HEALTHY if workload.is_healthy else pb.UNHEALTHY,
        cluster_id=settings.cluster_id,
        network_mode=pb.HOST_NETWORK if workload.is_host_network else pb.STANDARD,
        hostname=workload.hostname,
    )
    if workload.weight:
        message.capacity.value = workload.weight
    place = workload.locality
    if place.region or place.zone or place.subzone:
        message.locality.CopyFrom(pb.Locality(region=place.region, zone=place.zone, subzone=place.subzone))
    if workload.demands_tunnel:
        message.extensions.add(name=NODE_LOCAL_EXTENSION).config.Pack(BoolValue(value=False))
    if workload.waypoint:
        message.waypoint.CopyFrom(_translate_waypoint(workload.waypoint))
    if tunnel := workload.application_tunnel:
        protocol = pb.ApplicationTunnel.PROXY if tunnel.has_header else pb.ApplicationTunnel.NONE
        message.application_tunnel.CopyFrom(pb.ApplicationTunnel(protocol=protocol, port=tunnel.port))
    for endpoint in workload.endpoints:
        served = message.services[endpoint.service.resource_name].ports
        served.extend(
            pb.Port(
                service_port=port.service_port, target_port=port.target_port, app_protocol=_PROTOCOLS[port.protocol]
            )
            for port in endpoint.ports
        )
    return pb.Address(workload=message)


def translate_service(service: Service) -> pb.Address:
    """The Address resource of a service."""
    message = pb.Service(
        name=service.name,
        namespace=service.namespace,
        hostname=service.hostname,
        addresses=[
            *(pb.NetworkAddress(network=NETWORK, address=address.packed) for address in service.addresses),
            *(_translate_range(block) for block in service.ranges),
        ],
        ports=[_translate_port(port) for port in service.ports],
        ip_families=_FAMILIES.get(service.ip_families, pb.DUAL),
        canonical=service.is_canonical,
        subject_alt_names=service.identities,
        visibility=pb.Service.NAMESPACE if service.is_private else pb.Service.PUBLIC,
    )
    if service.waypoint:
        message.waypoint.CopyFrom(_translate_waypoint(service.waypoint))
    scopes, mode = _SPREADING.get(service.spreading, ((), _Lb.UNSPECIFIED_MODE))
    if service.passes_through:
        mode = _Lb.PASSTHROUGH
    health = _Lb.ALLOW_ALL if service.serves_unready else _Lb.ONLY_HEALTHY
    if scopes or service.serves_unready:
        message.load_balancing.CopyFrom(_Lb(routing_preference=scopes, mode=mode, health_policy=health))
    return pb.Address(service=message)


def find_workload_aliases(workload: Workload) -> tuple[str, ...]:
    """The other names of this very workload: its addresses. On the host's network it shares them, and has none."""
    return () if workload.is_host_network else tuple(name_address(NETWORK, each) for each in workload.addresses)


def find_workload_keys(workload: Workload) -> tuple[str, ...]:
    """All other names that lead to a workload: its addresses, its services and their addresses, and its node."""
    keys = [*find_workload_aliases(workload), *([name_node(workload.node)] if workload.node else [])]
    for endpoint in workload.endpoints:
        keys += [endpoint.service.resource_name, *find_service_keys(endpoint.service)]
    return tuple(sorted(set(keys)))


def find_service_keys(service: Service) -> tuple[str, ...]:
    """The names besides its own under which a subscriber may ask for a service: its virtual addresses."""
    return tuple(name_address(NETWORK, each) for each in (*service.addresses, *service.ranges))


def _translate_waypoint(binding: Binding) -> pb.GatewayAddress:
    found = binding.address
    if found.address is not None:
        address = pb.NetworkAddress(network=NETWORK, address=found.address.packed)
        return pb.GatewayAddress(address=address, hbone_mtls_port=ports.HBONE_PORT)
    hostname = pb.NamespacedHostname(namespace=found.namespace, hostname=found.host)
    return pb.GatewayAddress(hostname=hostname, hbone_mtls_port=ports.HBONE_PORT)


def _translate_range(block: IPv4Network | IPv6Network) -> pb.NetworkAddress:
    return pb.NetworkAddress(network=NETWORK, address=block.network_address.packed, length=block.prefixlen)


def _translate_port(port: ServicePort) -> pb.Port:
    target = port.target if isinstance(port.target, int) else 0
    return pb.Port(service_port=port.number, target_port=target, app_protocol=_PROTOCOLS[port.protocol])
