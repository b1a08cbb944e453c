"""EndpointSlices as the mesh sees them: endpoints that no selector finds (facts of the control plane, section 3).

Those of Kubernetes' own making name pods that the Service's selector finds anyway, and add nothing.
"""

from collections.abc import Iterator

from controller.kinds.discovery import EndpointSlice
from controller.registry.names import MeshSettings, name_slice_endpoint
from controller.registry.services import Service
from controller.registry.workloads import Endpoint, EndpointPort, Locality, Workload


def build_endpoints(part: EndpointSlice, service: Service, settings: MeshSettings) -> Iterator[Workload]:
    """The workloads that serve `service` without being pods. They are reached in plaintext, and through it only."""
    for address, endpoint in part.servers:
        if not endpoint.pod:
            yield Workload(
                uid=name_slice_endpoint(settings, part.namespace, part.name, address),
                name=part.name,
                namespace=part.namespace,
                addresses=(address,),
                service_account="",
                node="",
                is_host_network=True,
                is_healthy=endpoint.is_ready,
                speaks_hbone=False,
                has_native_tunnel=False,
                demands_tunnel=False,
                workload_name=part.service,
                canonical_name=part.service,
                canonical_revision="latest",
                locality=Locality(),
                endpoints=(serve(part, service),),
                policies=(),
            )


def endpoint_names(part: EndpointSlice, settings: MeshSettings) -> Iterator[str]:
    """The resource names of all the workloads that `build_endpoints` may build."""
    return (name_slice_endpoint(settings, part.namespace, part.name, address) for address, _ in part.servers)


def serve(part: EndpointSlice, service: Service) -> Endpoint:
    """The part of its endpoints in `service`, by the names of ports; a lone port needs none."""
    ports = {port.name or "": port.port for port in part.ports or () if port.protocol == "TCP" and port.port}
    served = [(port, ports.get(port.name)) for port in service.ports]
    return Endpoint(
        service, tuple(EndpointPort(port.number, target, port.protocol) for port, target in served if target)
    )
