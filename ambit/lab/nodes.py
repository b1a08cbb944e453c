"""A node of the lab: its network, its two processes, and what its agent has been told."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from ambit.lab import addresses, http, mesh_processes
from ambit.lab.addresses import NumberPool
from ambit.lab.children import Children
from ambit.lab.control import Json
from ambit.lab.enrolment import NodeEnrolment
from ambit.lab.folder import LabFolder
from ambit.lab.kinds import LabNode
from ambit.lab.manifests import Manifest, build_manifest
from ambit.lab.network import NodeNetwork
from ambit.lab.processes import KeptProcess
from ambit.lab.status import NodeStatus
from mesh.kit.errors import InvalidInputError
from mesh.ports import ZTUNNEL_ADMIN_PORT


@dataclass(frozen=True, slots=True)
class Environments:
    """What a node's processes are started with, besides what they need themselves."""

    agent: Mapping[str, str]
    ztunnel: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Node:
    """One node; its processes and announcements run in the task group that started it."""

    spec: LabNode
    network: NodeNetwork
    agent: KeptProcess
    ztunnel: KeptProcess
    enrolment: NodeEnrolment
    pod_numbers: NumberPool

    @property
    def underlay_address(self) -> addresses.Address:
        """The node's first address on the underlay."""
        return addresses.node_underlay_addresses(self.network.number)[0]

    async def ask_ztunnel(self, method: str, path: str) -> str:
        """A page of the ztunnel's admin server; raises UnreachableError, and InvalidInputError with what it refuses."""
        endpoint = http.TcpEndpoint("127.0.0.1", ZTUNNEL_ADMIN_PORT, self.network.namespace)
        answer = await http.fetch(endpoint, method, path)
        if answer.status != 200:
            raise InvalidInputError(f"the ztunnel of {self.spec.name} answers {answer.status}: {answer.text.strip()}")
        return answer.text

    def status(self) -> NodeStatus:
        """The node as `ambit lab status` shows it."""
        number = self.network.number
        return NodeStatus(
            name=self.spec.name,
            addresses=[str(address) for address in addresses.node_underlay_addresses(number)],
            pod_networks=[str(network) for network in addresses.pod_networks(number)],
            labels=dict(self.spec.labels),
        )


def start_node(
    spec: LabNode,
    network: NodeNetwork,
    folder: LabFolder,
    children: Children,
    tasks: asyncio.TaskGroup,
    environments: Environments,
) -> Node:
    """Start a node's agent and ztunnel in its namespace, and the announcing of its pods."""
    files = folder.node(network.number)
    own = (files, folder.mesh, network.namespace)
    ztunnel_spec = mesh_processes.build_ztunnel(spec.name, network.number, *own, environments.ztunnel)
    ztunnel = KeptProcess(ztunnel_spec, children)
    agent_spec = mesh_processes.build_agent(spec.name, *own, environments.agent)
    agent = KeptProcess(agent_spec, children, lambda: enrolment.wake())
    enrolment = NodeEnrolment(spec.name, files.agent_socket, lambda: agent.starts)
    for process in (ztunnel, agent):
        tasks.create_task(process.run(), name=process.spec.name)
    tasks.create_task(enrolment.run(), name=f"enrolment of {spec.name}")
    last = addresses.FIRST_POD + addresses.MAX_PODS_PER_NODE - 1
    return Node(spec, network, agent, ztunnel, enrolment, NumberPool(addresses.FIRST_POD, last, "pod addresses"))


def node_manifest(spec: LabNode, number: int) -> Manifest:
    """The Node object that Kubernetes would have."""
    labels: dict[str, Json] = {"kubernetes.io/hostname": spec.name, "kubernetes.io/os": "linux", **spec.labels}
    node_addresses: list[Json] = [
        {"type": "InternalIP", "address": str(address)} for address in addresses.node_underlay_addresses(number)
    ]
    networks: list[Json] = [str(network) for network in addresses.pod_networks(number)]
    document: dict[str, Json] = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": spec.name, "labels": labels},
        "spec": {"podCIDR": networks[0], "podCIDRs": networks},
        "status": {
            "addresses": [*node_addresses, {"type": "Hostname", "address": spec.name}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    return build_manifest(document, "lab")
