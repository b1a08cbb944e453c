"""From objects to what discovery serves of them."""

from envoy.service.discovery.v3 import discovery_pb2

from controller.kinds.meta import KubernetesObject
from controller.publication import build_changes
from controller.registry.names import MeshSettings
from controller.serve.resources import ADDRESS_TYPE
from controller.snapshot import Snapshot
from mesh.wire import workload_pb2 as pb

MESH = MeshSettings()


def publish(*values: KubernetesObject) -> dict[str, pb.Address]:
    """What is served of these objects, by name."""
    changes = {value.key: value for value in values}
    published = build_changes(Snapshot(), Snapshot().apply(changes), changes, MESH)[ADDRESS_TYPE].updated
    addresses: dict[str, pb.Address] = {}
    for name, resource in published.items():
        envelope = discovery_pb2.Resource.FromString(resource.wire)
        addresses[name] = pb.Address.FromString(envelope.resource.value)
    return addresses
