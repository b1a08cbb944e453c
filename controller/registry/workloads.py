"""Pods as the mesh sees them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from controller.kinds import core
from controller.registry.bindings import ApplicationTunnel, Binding
from controller.registry.names import MeshSettings, name_pod
from controller.registry.services import AppProtocol, Service

# Written by the node agent once the pod's traffic is redirected (facts of the control plane, section 3).
REDIRECTION_ANNOTATION = "ambient.istio.io/redirection"
TUNNEL_LABEL = "networking.istio.io/tunnel"
_NAME_LABELS = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
_REVISION_LABELS = ("service.istio.io/canonical-revision", "app.kubernetes.io/version", "version")
_WORKLOAD_NAME_LABEL = "service.istio.io/workload-name"
_TEMPLATE_HASH_LABEL = "pod-template-hash"
# A CronJob names its Jobs after itself and the scheduled minute since the epoch, 8 to 10 digits.
_CRON_SUFFIX = re.compile(r"-[0-9]{8,10}")


@dataclass(frozen=True, slots=True)
class Locality:
    """Where a node stands, each empty where unknown."""

    region: str = ""
    zone: str = ""
    subzone: str = ""


@dataclass(frozen=True, slots=True)
class EndpointPort:
    """A service's port and the port of this workload that it leads to."""

    service_port: int
    target_port: int
    protocol: AppProtocol


@dataclass(frozen=True, slots=True)
class Endpoint:
    """This workload's part in a service."""

    service: Service
    ports: tuple[EndpointPort, ...]


@dataclass(frozen=True, slots=True)
class Workload:
    """A pod or an entry, ready to be translated. `policies` are the resource names of the policies that select it.

    `hostname` is resolved where it has no addresses; `weight` is its share of connections, 0 where none was given.
    """

    uid: str
    name: str
    namespace: str
    addresses: tuple[core.IpAddress, ...]
    service_account: str
    node: str
    is_host_network: bool
    is_healthy: bool
    speaks_hbone: bool
    has_native_tunnel: bool
    demands_tunnel: bool
    workload_name: str
    canonical_name: str
    canonical_revision: str
    locality: Locality
    endpoints: tuple[Endpoint, ...]
    policies: tuple[str, ...]
    hostname: str = ""
    weight: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    waypoint: Binding | None = None
    application_tunnel: ApplicationTunnel | None = None


def is_published(pod: core.Pod) -> bool:
    """Whether the mesh must know a pod: one with an address that can still have traffic, ready or not."""
    return bool(pod.addresses) and not pod.is_terminal


def build_workload(
    pod: core.Pod,
    node: core.Node | None,
    owner: core.Namespace | None,
    services: Sequence[Service],
    policies: Sequence[str],
    settings: MeshSettings,
) -> Workload:
    """See a pod as the mesh does.

    `owner` is its namespace, `services` are those that select it, `policies` the names of those that do.
    """
    labels = pod.labels
    has_native_tunnel = terminates_tunnels(labels)
    is_redirected = pod.annotations.get(REDIRECTION_ANNOTATION) == "enabled"
    workload_name = _find_workload_name(pod)
    name, revision = find_canonical(labels, workload_name)
    return Workload(
        uid=name_pod(settings.cluster_id, pod.namespace, pod.name),
        name=pod.name,
        namespace=pod.namespace,
        addresses=pod.addresses,
        service_account=pod.service_account,
        node=pod.spec.node_name or "",
        is_host_network=bool(pod.spec.host_network),
        is_healthy=pod.is_ready,
        speaks_hbone=has_native_tunnel or is_redirected,
        has_native_tunnel=has_native_tunnel,
        demands_tunnel=_demands_tunnel(pod, owner),
        workload_name=workload_name,
        canonical_name=name,
        canonical_revision=revision,
        locality=find_locality(node),
        endpoints=tuple(Endpoint(service, tuple(_resolve_ports(pod, service))) for service in services),
        policies=tuple(sorted(policies)),
        labels=labels,
    )


def terminates_tunnels(labels: Mapping[str, str]) -> bool:
    """Whether a workload with `labels` takes HBONE itself, without a ztunnel."""
    return "http" in labels.get(TUNNEL_LABEL, "").split(",")


def find_canonical(labels: Mapping[str, str], otherwise: str) -> tuple[str, str]:
    """The canonical name and revision of a workload with `labels`."""
    name = next((labels[key] for key in _NAME_LABELS if labels.get(key)), otherwise)
    return name, next((labels[key] for key in _REVISION_LABELS if labels.get(key)), "latest")


def _demands_tunnel(pod: core.Pod, owner: core.Namespace | None) -> bool:
    inherited = owner.labels.get(core.NODE_LOCAL_LABEL, "enabled") if owner else "enabled"
    return pod.labels.get(core.NODE_LOCAL_LABEL, inherited) == "disabled"


def _resolve_ports(pod: core.Pod, service: Service) -> Iterator[EndpointPort]:
    """A target that names no port of the pod drops that port for this pod only."""
    for port in service.ports:
        target = port.target if isinstance(port.target, int) else find_container_port(pod, port.target)
        if service.is_entry:
            target = find_container_port(pod, port.name) or target
        if target is not None:
            yield EndpointPort(port.number, target, port.protocol)


def find_container_port(pod: core.Pod, name: str) -> int | None:
    """The number of a pod's TCP port of that name."""
    return next((port.container_port for port in declared_ports(pod) if port.name == name), None)


def declared_ports(pod: core.Pod) -> Iterator[core.ContainerPort]:
    """The TCP ports that a pod's lasting containers declare."""
    restartable = [each for each in pod.spec.init_containers or () if each.restart_policy == "Always"]
    for container in [*(pod.spec.containers or ()), *restartable]:
        yield from (port for port in container.ports or () if port.protocol == "TCP")


def find_locality(node: core.Node | None) -> Locality:
    """Where a node stands, by its labels."""
    labels = node.labels if node else {}
    return Locality(
        labels.get("topology.kubernetes.io/region", ""),
        labels.get("topology.kubernetes.io/zone", ""),
        labels.get("topology.istio.io/subzone", ""),
    )


def _find_workload_name(pod: core.Pod) -> str:
    """What created the pod: its Deployment rather than the ReplicaSet, its CronJob rather than the Job."""
    given = pod.labels.get(_WORKLOAD_NAME_LABEL)
    if given:
        return given
    owner = next((owner for owner in pod.metadata.owner_references or () if owner.controller), None)
    if owner is None:
        return pod.name
    template_hash = pod.labels.get(_TEMPLATE_HASH_LABEL)
    if owner.kind == "ReplicaSet" and template_hash:
        return owner.name.removesuffix(f"-{template_hash}")
    if (
        owner.kind == "Job"
        and (suffix := _CRON_SUFFIX.search(owner.name[-11:]))
        and suffix.end() == len(owner.name[-11:])
    ):
        return owner.name[: -len(suffix.group())]
    return owner.name
