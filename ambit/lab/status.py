"""What a lab tells about itself: the values behind `ambit lab status`, the same in JSON, tables and the Python API."""

from dataclasses import asdict, dataclass, field

from ambit.lab.control import Message


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node; `addresses` are those on the underlay."""

    name: str
    addresses: list[str]
    pod_networks: list[str]
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class PodStatus:
    """A pod. `enrolment` is unknown, outside, pending, enrolled or failed; `enrolled` says the same in a word."""

    namespace: str
    name: str
    node: str
    addresses: list[str]
    service_account: str
    phase: str
    ready: bool
    enrolled: bool
    enrolment: str
    restarts: int
    message: str


@dataclass(frozen=True, slots=True)
class ServicePortStatus:
    """A port of a service."""

    name: str
    port: int
    protocol: str
    target_port: int | str


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """A service; `endpoints` counts the ready pods that it selects."""

    namespace: str
    name: str
    addresses: list[str]
    ports: list[ServicePortStatus]
    endpoints: int


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """A process of the mesh. `pid` is the caller's number for it, `lab_pid` the lab's own; None when it is down.

    `draining` counts processes that it has replaced and that serve their last connections.
    """

    name: str
    node: str
    pid: int | None
    lab_pid: int | None
    state: str
    restarts: int
    draining: int
    pss_bytes: int | None


@dataclass(frozen=True, slots=True)
class LabStatus:
    """The whole lab."""

    lab: str
    is_up: bool
    folder: str
    nodes: list[NodeStatus] = field(default_factory=list)
    pods: list[PodStatus] = field(default_factory=list)
    services: list[ServiceStatus] = field(default_factory=list)
    processes: list[ProcessStatus] = field(default_factory=list)

    def pod(self, name: str, namespace: str = "default") -> PodStatus:
        """A pod by name; raises KeyError."""
        for pod in self.pods:
            if (pod.namespace, pod.name) == (namespace, name):
                return pod
        raise KeyError(f"{namespace}/{name}")

    def service(self, name: str, namespace: str = "default") -> ServiceStatus:
        """A service by name; raises KeyError."""
        for service in self.services:
            if (service.namespace, service.name) == (namespace, name):
                return service
        raise KeyError(f"{namespace}/{name}")

    def process(self, name: str) -> ProcessStatus:
        """A process by name, as `controller` or `ztunnel/node-1`; raises KeyError."""
        for process in self.processes:
            if process.name == name:
                return process
        raise KeyError(name)


def to_message(status: LabStatus) -> Message:
    """The status as JSON."""
    return asdict(status)


def from_message(message: Message) -> LabStatus:
    """The status that `to_message` was given; raises ValueError when it is none."""
    # Here, because the supervisor and most commands do without it.
    from pydantic import TypeAdapter

    return TypeAdapter(LabStatus).validate_python(message)
