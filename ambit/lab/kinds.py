"""The kinds that mean more in a lab than in the mesh: Lab itself, and Pod with the programs that it runs.

Everything else is read as the controller reads it, so that what a lab accepts is what the controller accepts.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator
from pydantic_core import PydanticCustomError

from controller.kinds import core
from controller.kinds.catalogue import CATALOGUE, Catalogue, build_catalogue
from controller.kinds.meta import KubernetesObject, LabelName, Model, StrictModel

DEFAULT_MTU_BYTES = 1500
"""Ethernet's, as on most networks that nodes are joined by."""

DEFAULT_GRACE_SECONDS = 30
"""Kubernetes' default for terminationGracePeriodSeconds."""


class LabNode(StrictModel):
    """A node by name, with the labels of its Node object."""

    name: LabelName
    labels: Mapping[str, str] = Field(default_factory=dict)


def _as_node(value: object) -> object:
    """A node may be written as its name alone."""
    return {"name": value} if isinstance(value, str) else value


def _check_distinct(nodes: Sequence[LabNode]) -> Sequence[LabNode]:
    names = [node.name for node in nodes]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise PydanticCustomError("node_twice", "names node {name} twice", {"name": name})
    return nodes


class LabZtunnel(StrictModel):
    """What each node's ztunnel is started with besides what the lab itself needs (docs/settings.md)."""

    env: Mapping[str, str] = Field(default_factory=dict)


class LabSpec(StrictModel):
    """The nodes in their order, what the cables between them and to the pods carry, and settings of their ztunnels."""

    nodes: Annotated[
        Sequence[Annotated[LabNode, BeforeValidator(_as_node)]], Field(max_length=99), AfterValidator(_check_distinct)
    ] = ()
    # At least what IPv6 asks of every link (RFC 8200, section 5).
    mtu: Annotated[int, Field(ge=1280, le=65535)] = DEFAULT_MTU_BYTES
    ztunnel: LabZtunnel = LabZtunnel()


class Lab(KubernetesObject):
    """The lab as a whole; without one, nodes are those that pods name."""

    GROUP: ClassVar[str] = "ambit.dev"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1alpha1",)
    IS_NAMESPACED: ClassVar[bool] = False

    spec: LabSpec = LabSpec()


class FieldReference(Model):
    """A field of the pod itself (Kubernetes' downward API)."""

    field_path: Literal[
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.podIP",
        "status.podIPs",
    ]


class ValueSource(StrictModel):
    """Where a variable's value comes from; ConfigMaps and Secrets do not exist in a lab."""

    field_ref: FieldReference


class EnvironmentVariable(StrictModel):
    """A variable with its value, or with the pod's field that it takes."""

    name: str
    value: str = ""
    value_from: ValueSource | None = None


def _refuse_because(advice: str) -> BeforeValidator:
    """A field that would change what a pod is, and that a lab cannot honour; empty ones are fine."""

    def check(value: object) -> None:
        if value:
            raise PydanticCustomError("unsupported", "is not supported in a lab; {advice}", {"advice": advice})

    return BeforeValidator(check)


def _check_command(command: Sequence[str]) -> Sequence[str]:
    if not command:
        raise PydanticCustomError("no_command", "must be given in a lab: a program of this machine")
    return command


class Container(core.Container):
    """A local program: Kubernetes' command and args one after the other (there is no image to override)."""

    name: LabelName
    command: Annotated[Sequence[str], AfterValidator(_check_command), Field(validate_default=True)] = ()
    args: Sequence[str] = ()
    env: Sequence[EnvironmentVariable] = ()
    working_dir: str = "/"
    env_from: Annotated[None, _refuse_because("write the variables")] = None
    lifecycle: Annotated[None, _refuse_because("make such steps part of the command")] = None
    volume_mounts: Annotated[None, _refuse_because("containers see this machine's files")] = None

    @property
    def program(self) -> tuple[str, ...]:
        """The whole command line."""
        return (*self.command, *self.args)


class PodSpec(core.PodSpec):
    """What a lab reads of a pod. Probes, resources, security contexts and tolerations are accepted and mean nothing."""

    containers: Annotated[Sequence[Container], Field(min_length=1)]
    restart_policy: Literal["Always", "OnFailure", "Never"] = "Always"
    termination_grace_period_seconds: Annotated[int, Field(ge=0, le=3600)] = DEFAULT_GRACE_SECONDS
    host_network: Annotated[None, _refuse_because("pods of a lab always have a network of their own")] = None
    init_containers: Annotated[None, _refuse_because("make such steps part of the command")] = None
    volumes: Annotated[None, _refuse_because("containers see this machine's files")] = None

    @field_validator("containers")
    @classmethod
    def _check_names(cls, containers: Sequence[Container]) -> Sequence[Container]:
        if len({container.name for container in containers}) < len(containers):
            raise PydanticCustomError("container_twice", "must have names of their own")
        return containers


class Pod(core.Pod):
    """A pod that a lab can run."""

    spec: PodSpec


LAB_CATALOGUE: Catalogue = {**CATALOGUE, **build_catalogue(Lab, Pod)}
"""What may be given to a lab."""
