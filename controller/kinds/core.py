"""Kubernetes' own kinds, with the fields that the mesh reads. All other fields of them are accepted and ignored."""

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator
from pydantic_core import PydanticCustomError

from controller.kinds.meta import KubernetesObject, Model, ObjectMeta, PortNumber

IpAddress = IPv4Address | IPv6Address


def _parse_ip(value: object) -> IpAddress:
    if not isinstance(value, str):
        raise PydanticCustomError("ip_type", "must be an IP address as text")
    try:
        return ip_address(value)
    except ValueError as error:
        raise PydanticCustomError("ip_value", "is not an IP address") from error


def _parse_cluster_ip(value: object) -> IpAddress | Literal["None", ""]:
    return value if value in ("None", "") else _parse_ip(value)


def _check_target_port(value: object) -> object:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not isinstance(value, str) and not is_number:
        raise PydanticCustomError("target_type", "must be a port number, or the name of a container's port")
    if isinstance(value, int) and not 0 < value <= 65535:
        raise PydanticCustomError("port_value", "is not a port between 1 and 65535")
    return value


Ip = Annotated[IpAddress, BeforeValidator(_parse_ip), WithJsonSchema({"type": "string"})]
ClusterIp = Annotated[IpAddress | Literal["None", ""], BeforeValidator(_parse_cluster_ip)]
TargetPort = Annotated[int | str, BeforeValidator(_check_target_port)]
Protocol = Literal["TCP", "UDP", "SCTP"]

NODE_LOCAL_LABEL = "ambit.dev/node-local"
"""Whether pods of one node may speak to each other without a tunnel. A pod's own goes before its namespace's."""


class MeshMeta(ObjectMeta):
    """Metadata whose labels carry settings of the mesh: a misspelt value is refused, for it would protect nobody."""

    @field_validator("labels")
    @classmethod
    def _check_labels(cls, labels: Mapping[str, str] | None) -> Mapping[str, str] | None:
        if (labels or {}).get(NODE_LOCAL_LABEL, "enabled") not in ("enabled", "disabled"):
            raise PydanticCustomError(
                "label_value", "the label {label} must be 'enabled' or 'disabled'", {"label": NODE_LOCAL_LABEL}
            )
        return labels


class Namespace(KubernetesObject):
    """A namespace; its labels carry mesh settings."""

    GROUP: ClassVar[str] = ""
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1",)
    IS_NAMESPACED: ClassVar[bool] = False

    metadata: MeshMeta


class ServiceAccount(KubernetesObject):
    """What a pod's identity is made from."""

    GROUP: ClassVar[str] = ""
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1",)


class Node(KubernetesObject):
    """A machine; its labels say where it stands."""

    GROUP: ClassVar[str] = ""
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1",)
    IS_NAMESPACED: ClassVar[bool] = False


class ContainerPort(Model):
    """A port that a container declares; its name can be a Service's target."""

    name: str | None = None
    container_port: PortNumber
    protocol: Protocol = "TCP"


class Container(Model):
    """A container. One with `restartPolicy: Always` among the init containers goes on running beside the others."""

    name: str | None = None
    ports: Sequence[ContainerPort] | None = None
    restart_policy: str | None = None


class PodSpec(Model):
    """Where a pod runs and as whom."""

    node_name: str | None = None
    service_account_name: str | None = None
    # The older spelling, which the API server keeps equal to service_account_name.
    service_account: str | None = None
    host_network: bool | None = None
    containers: Sequence[Container] | None = None
    init_containers: Sequence[Container] | None = None


class PodIp(Model):
    """One of a pod's addresses."""

    ip: Ip


class PodCondition(Model):
    """One of a pod's conditions; `Ready` is the one that matters here."""

    type: str
    status: Literal["True", "False", "Unknown"]


class PodStatus(Model):
    """What the node says of a pod."""

    phase: Literal["Pending", "Running", "Succeeded", "Failed", "Unknown"] | None = None
    pod_ip: Annotated[Ip | None, Field(alias="podIP")] = None
    pod_ips: Annotated[Sequence[PodIp] | None, Field(alias="podIPs")] = None
    conditions: Sequence[PodCondition] | None = None


class Pod(KubernetesObject):
    """A pod, as the API server shows it."""

    GROUP: ClassVar[str] = ""
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1",)

    metadata: MeshMeta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def service_account(self) -> str:
        """The service account that the pod runs as, `default` where it names none."""
        return self.spec.service_account_name or self.spec.service_account or "default"

    @property
    def is_terminal(self) -> bool:
        """Whether all its containers have ended for good: such a pod has no traffic and needs no identity."""
        return self.status.phase in ("Succeeded", "Failed")

    @property
    def is_ready(self) -> bool:
        """Whether it should be given connections."""
        conditions = self.status.conditions or ()
        is_ready = any(each.type == "Ready" and each.status == "True" for each in conditions)
        return is_ready and self.metadata.deletion_timestamp is None

    @property
    def addresses(self) -> tuple[IpAddress, ...]:
        """Its addresses in the order given; empty until the node has set its network up."""
        if self.status.pod_ips:
            return tuple(each.ip for each in self.status.pod_ips)
        return (self.status.pod_ip,) if self.status.pod_ip is not None else ()


class ServicePort(Model):
    """A port of a Service.

    `target_port` names a container's port where it is text, and is `port` where it is absent.
    """

    name: str | None = None
    port: PortNumber
    target_port: TargetPort | None = None
    protocol: Protocol = "TCP"
    app_protocol: str | None = None


class ServiceSpec(Model):
    """What a Service selects and how it is reached."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] = "ClusterIP"
    selector: dict[str, str] | None = None
    cluster_ip: Annotated[ClusterIp | None, Field(alias="clusterIP")] = None
    cluster_ips: Annotated[Sequence[ClusterIp] | None, Field(alias="clusterIPs")] = None
    ports: Sequence[ServicePort] | None = None
    ip_families: Sequence[Literal["IPv4", "IPv6"]] | None = None
    internal_traffic_policy: Literal["Cluster", "Local"] | None = None
    traffic_distribution: str | None = None
    publish_not_ready_addresses: bool | None = None


class Service(KubernetesObject):
    """A name and a virtual address for a set of pods."""

    GROUP: ClassVar[str] = ""
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1",)

    spec: ServiceSpec
    status: object = None

    @property
    def addresses(self) -> tuple[IpAddress, ...]:
        """Its virtual addresses; empty for a headless Service, and before it was given any."""
        given = self.spec.cluster_ips or ((self.spec.cluster_ip,) if self.spec.cluster_ip is not None else ())
        return tuple(address for address in given if not isinstance(address, str))
