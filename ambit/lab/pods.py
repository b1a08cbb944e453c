"""What a kubelet does for one pod: sandbox, announcement, containers, status."""

import asyncio
import ipaddress
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ambit.lab import kinds
from ambit.lab.addresses import Address
from ambit.lab.children import Children
from ambit.lab.control import Json, Message
from ambit.lab.enrolment import AnnouncedPod, Enrolment
from ambit.lab.fields import Fields
from ambit.lab.kernel import MountNamespace, NetworkNamespace
from ambit.lab.kinds import Container, EnvironmentVariable
from ambit.lab.manifests import Manifest
from ambit.lab.processes import KeptProcess, RunSpec, RunState
from ambit.lab.status import PodStatus

REDIRECTION_ANNOTATION = "ambient.istio.io/redirection"
"""Istio's status annotation: `enabled` is what makes the controller offer the pod over HBONE, `pending` does not."""

_REFERENCE = re.compile(r"\$(\$|\(([A-Za-z_][A-Za-z0-9_.-]*)\))")

_LISTENING = "0A"
"""TCP_LISTEN in /proc/net/tcp (proc(5))."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Where a pod lives: its node, its number there, its addresses, its network namespace and the files it sees."""

    node: str
    node_address: Address
    number: int
    addresses: tuple[Address, ...]
    namespace: NetworkNamespace
    files: MountNamespace


@dataclass(slots=True, eq=False)
class Pod:
    """A pod of the lab; `run` is its task, `on_change` is told whenever its status may have changed."""

    value: kinds.Pod
    manifest: Manifest
    sandbox: Sandbox
    on_change: Callable[["Pod"], None]
    uid: str = field(default_factory=lambda: str(uuid.uuid4()))
    created: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    containers: list[KeptProcess] = field(default_factory=list)
    announced: AnnouncedPod = field(init=False)

    def describe_to_agent(self, namespace_labels: Mapping[str, str]) -> Message:
        """What the node's agent is told of the pod."""
        key = self.manifest.key
        return {
            "uid": self.uid,
            "name": key.name,
            "namespace": key.namespace,
            "service_account": self.value.service_account,
            "addresses": [str(address) for address in self.sandbox.addresses],
            "netns": str(self.sandbox.namespace.path),
            "labels": dict(self.value.labels),
            "annotations": dict(self.value.annotations),
            "namespace_labels": dict(namespace_labels),
            "host_network": False,
        }

    def announce_as(self, description: Message) -> AnnouncedPod:
        """Make the pod's entry for its node's agent."""
        self.announced = AnnouncedPod(self.uid, description, lambda: self.on_change(self))
        return self.announced

    def prepare(self, children: Children, environment: Mapping[str, str], logs: Path) -> None:
        """Make the containers' supervision; nothing starts yet."""
        for container in self.value.spec.containers:
            spec = self._run_spec(container, environment, logs)
            self.containers.append(KeptProcess(spec, children, lambda: self.on_change(self)))

    async def run(self) -> None:
        """Run the containers until they have ended for good, or until cancelled.

        A pod that is to be in the mesh waits here until its redirection stands: it never runs in plaintext.
        """
        if self.announced.is_to_be_enrolled:
            await self.announced.is_settled.wait()
        async with asyncio.TaskGroup() as tasks:
            for container in self.containers:
                tasks.create_task(container.run(), name=container.spec.name)

    @property
    def is_ready(self) -> bool:
        """Every container runs."""
        return all(container.state is RunState.RUNNING for container in self.containers)

    @property
    def phase(self) -> str:
        """Kubernetes' phase of the pod."""
        states = {container.state for container in self.containers}
        if states <= {RunState.SUCCEEDED}:
            return "Succeeded"
        if states <= {RunState.SUCCEEDED, RunState.FAILED}:
            return "Failed"
        return "Pending" if RunState.WAITING in states else "Running"

    def declared_tcp_ports(self) -> set[int]:
        """The ports that the containers say they listen on."""
        return {
            port.container_port
            for container in self.value.spec.containers
            for port in container.ports or ()
            if port.protocol == "TCP"
        }

    def status(self) -> PodStatus:
        """The pod as `ambit lab status` shows it."""
        key = self.manifest.key
        return PodStatus(
            namespace=key.namespace,
            name=key.name,
            node=self.sandbox.node,
            addresses=[str(address) for address in self.sandbox.addresses],
            service_account=self.value.service_account,
            phase=self.phase,
            ready=self.is_ready,
            enrolled=self.announced.enrolment is Enrolment.ENROLLED,
            enrolment=str(self.announced.enrolment),
            restarts=sum(container.restarts for container in self.containers),
            message=self._message(),
        )

    def document(self) -> dict[str, Json]:
        """The Pod object as Kubernetes would show it."""
        written = self.manifest.document
        metadata: dict[str, Json] = {
            **Fields(written).child("metadata").value,
            "uid": self.uid,
            "creationTimestamp": self.created,
        }
        redirection = {Enrolment.ENROLLED: "enabled", Enrolment.PENDING: "pending"}.get(self.announced.enrolment)
        if redirection:
            metadata["annotations"] = {**self.value.annotations, REDIRECTION_ANNOTATION: redirection}
        spec: dict[str, Json] = {
            **Fields(written).child("spec").value,
            "nodeName": self.sandbox.node,
            "serviceAccountName": self.value.service_account,
        }
        addresses = [str(address) for address in self.sandbox.addresses]
        status: dict[str, Json] = {
            "phase": self.phase,
            "hostIP": str(self.sandbox.node_address),
            "podIP": addresses[0],
            "podIPs": [{"ip": address} for address in addresses],
            "conditions": [{"type": "Ready", "status": "True" if self.is_ready else "False"}],
        }
        return {**written, "metadata": metadata, "spec": spec, "status": status}

    def _message(self) -> str:
        if self.announced.is_to_be_enrolled and not self.announced.is_settled.is_set():
            return self.announced.error or f"waiting for the agent of {self.sandbox.node}"
        failures = [
            f"{container.spec.name}: {container.last_failure}"
            for container in self.containers
            if container.state in (RunState.RESTARTING, RunState.FAILED)
        ]
        return "; ".join(failures) or self.announced.error

    def _run_spec(self, container: Container, environment: Mapping[str, str], logs: Path) -> RunSpec:
        own = {**environment, **self._own_variables(container.env, environment)}
        key = self.manifest.key
        return RunSpec(
            name=container.name,
            command=tuple(expand_references(part, own) for part in container.program),
            environment=own,
            namespace=self.sandbox.namespace,
            log=logs / container_log_name(key.namespace, key.name, container.name),
            working_directory=container.working_dir,
            files=self.sandbox.files,
            restart_when=restart_rule(self.value.spec.restart_policy),
        )

    def _own_variables(
        self, variables: Sequence[EnvironmentVariable], environment: Mapping[str, str]
    ) -> dict[str, str]:
        """The container's variables; a later one may refer to an earlier one, as in Kubernetes."""
        own: dict[str, str] = {}
        for variable in variables:
            if variable.value_from:
                own[variable.name] = self._field(variable.value_from.field_ref.field_path)
            else:
                own[variable.name] = expand_references(variable.value, {**environment, **own})
        return own

    def _field(self, path: str) -> str:
        addresses = [str(address) for address in self.sandbox.addresses]
        values = {
            "metadata.name": self.manifest.key.name,
            "metadata.namespace": self.manifest.key.namespace,
            "metadata.uid": self.uid,
            "spec.nodeName": self.sandbox.node,
            "spec.serviceAccountName": self.value.service_account,
            "status.hostIP": str(self.sandbox.node_address),
            "status.podIP": addresses[0],
            "status.podIPs": ",".join(addresses),
        }
        return values[path]


def container_log_name(namespace: str, pod: str, container: str) -> str:
    """The file name of a container's output; underscores keep the parts apart, as names have none."""
    return f"pod_{namespace}_{pod}_{container}.log"


def expand_references(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by the variable's value; unknown names stay, `$$` stands for one dollar sign (Kubernetes)."""

    def replace(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return variables.get(match[2], match[0])

    return _REFERENCE.sub(replace, text)


def restart_rule(policy: str) -> Callable[[int], bool]:
    """Whether a container is started again after an exit status, by its pod's restartPolicy."""
    rules: dict[str, Callable[[int], bool]] = {
        "Always": lambda _status: True,
        "OnFailure": lambda status: status != 0,
        "Never": lambda _status: False,
    }
    return rules[policy]


def listening_tcp_ports(namespace: NetworkNamespace) -> set[int]:
    """The TCP ports that somebody listens on in a namespace, other than on loopback alone. Blocks briefly."""
    ports: set[int] = set()
    with namespace.entered():
        for table in ("tcp", "tcp6"):
            try:
                lines = Path(f"/proc/thread-self/net/{table}").read_text().splitlines()[1:]
            except OSError:
                continue
            for line in lines:
                _, local, _, state = line.split()[:4]
                address, _, port = local.partition(":")
                if state == _LISTENING and not _is_loopback(address):
                    ports.add(int(port, 16))
    return ports


def _is_loopback(text: str) -> bool:
    """Whether an address of /proc/net/tcp{,6} is loopback; each group of four bytes is in host order."""
    words = [bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8)]
    return ipaddress.ip_address(b"".join(words)).is_loopback
