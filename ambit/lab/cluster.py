"""The lab's world: its nodes, pods, services and other objects, and the operations that change them.

One change runs at a time. The tasks of processes, pods and announcements run in the task group that the supervisor
lends. What blocks on the kernel runs in one thread, so that it happens in the order it was asked for.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ParamSpec, TypeVar

from ambit.lab import mesh_processes
from ambit.lab.addresses import Address, NumberPool, controller_addresses, pod_addresses
from ambit.lab.children import Children, kill_everything_in
from ambit.lab.cluster_dns import ClusterDns
from ambit.lab.control import Json
from ambit.lab.fields import Fields
from ambit.lab.folder import LabFolder
from ambit.lab.kernel import MountNamespace, NetworkNamespace
from ambit.lab.kinds import LabNode, LabSpec
from ambit.lab.kinds import Pod as PodKind
from ambit.lab.kube_proxy import KubeProxy
from ambit.lab.manifests import Manifest, ObjectKey
from ambit.lab.network import LabNetwork
from ambit.lab.nodes import Environments, Node, node_manifest, start_node
from ambit.lab.objects import ObjectStore
from ambit.lab.planning import Change, Verb, plan_changes
from ambit.lab.pod_files import mount_pod_files, write_resolver
from ambit.lab.pods import Pod, Sandbox
from ambit.lab.processes import KeptProcess
from ambit.lab.service_routes import build_service_routes
from ambit.lab.services import Service, allocate, is_headless, pool_of_services
from ambit.lab.tasks import run_together
from ambit.lab.topology import selects
from controller.kinds import core
from mesh.kit.errors import InvalidInputError, RefusedError

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

DOWN_GRACE_SECONDS = 1.0
"""What programs get to end by themselves when the whole lab goes down; nothing of theirs is kept."""


@dataclass(frozen=True, slots=True)
class Host:
    """What the supervisor lends to the cluster."""

    folder: LabFolder
    tasks: asyncio.TaskGroup
    children: Children
    inherited: Mapping[str, str]


@dataclass(slots=True)
class Cluster:
    """Everything that stands in one lab. Used on the supervisor's event loop only."""

    host: Host
    name: str
    underlay: NetworkNamespace
    controller: KeptProcess
    nodes: dict[str, Node] = field(default_factory=dict)
    pods: dict[ObjectKey, Pod] = field(default_factory=dict)
    services: dict[ObjectKey, Service] = field(default_factory=dict)
    manifests: dict[ObjectKey, Manifest] = field(default_factory=dict)
    _network: "NetworkThread" = field(kw_only=True)
    _objects: ObjectStore = field(init=False)
    _births: dict[ObjectKey, dict[str, Json]] = field(default_factory=dict)
    _pod_tasks: dict[ObjectKey, asyncio.Task[None]] = field(default_factory=dict)
    _pod_files: dict[str, MountNamespace] = field(default_factory=dict)
    _service_numbers: NumberPool = field(default_factory=pool_of_services)
    _changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _proxy: KubeProxy = field(init=False)

    def __post_init__(self) -> None:
        self._objects = ObjectStore(self.host.folder.mesh.objects)
        self._proxy = KubeProxy(
            lambda: build_service_routes((each, self.selected_pods(each)) for each in self.services.values()),
            lambda: [node.network.namespace for node in self.nodes.values()],
            self._network.run,
        )
        self.host.tasks.create_task(self._proxy.run(), name="kube-proxy")

    # Reading ----------------------------------------------------------------------------------------------------------

    def processes(self) -> list[tuple[str, KeptProcess]]:
        """The mesh's processes, each with its node's name (empty for the controller)."""
        of_nodes = [(name, process) for name, node in self.nodes.items() for process in (node.ztunnel, node.agent)]
        return [("", self.controller), *of_nodes]

    def process(self, name: str) -> KeptProcess:
        """A process by name; raises InvalidInputError that lists them."""
        found = {process.spec.name: process for _, process in self.processes()}
        if name not in found:
            raise InvalidInputError(f"there is no process {name!r}; there are {', '.join(found)}")
        return found[name]

    def pod(self, namespace: str, name: str) -> Pod:
        """A pod by name; raises InvalidInputError that names the nearest thing."""
        pod = self.pods.get(ObjectKey("", "Pod", namespace, name))
        if pod is None:
            elsewhere = [key.namespace for key in self.pods if key.name == name]
            hint = f"; there is one in namespace {elsewhere[0]} (-n {elsewhere[0]})" if elsewhere else ""
            raise InvalidInputError(f"there is no pod {name!r} in namespace {namespace!r}{hint}")
        return pod

    def node(self, name: str) -> Node:
        """A node by name; raises InvalidInputError that lists them."""
        if name not in self.nodes:
            raise InvalidInputError(f"there is no node {name!r}; there are {', '.join(self.nodes)}")
        return self.nodes[name]

    def selected_pods(self, service: Service) -> list[Pod]:
        """The ready pods behind a service."""
        namespace, selector = service.value.namespace, service.value.spec.selector
        return [
            pod
            for key, pod in self.pods.items()
            if key.namespace == namespace and pod.is_ready and selects(selector, pod.value.labels)
        ]

    def addresses_of_service(self, namespace: str, name: str) -> Sequence[Address] | None:
        """What the service's name stands for; None when there is none."""
        service = self.services.get(ObjectKey("", "Service", namespace, name))
        if service is None:
            return None
        if is_headless(service.value):
            return [address for pod in self.selected_pods(service) for address in pod.sandbox.addresses]
        return service.addresses

    # Changing ---------------------------------------------------------------------------------------------------------

    async def apply(self, given: Iterable[Manifest]) -> list[Change]:
        """Make the objects so; raises InvalidManifestsError or RefusedError before anything has changed.

        Returns when new pods have their networks and are being started.
        """
        async with self._changing:
            counts = dict.fromkeys(self.nodes, 0)
            for pod in self.pods.values():
                counts[pod.sandbox.node] += 1
            changes = plan_changes(self.manifests, given, counts)
            allocated = self._allocate(changes)
            for change in changes:
                if change.verb is not Verb.UNCHANGED:
                    await self._apply_one(change, allocated.get(change.manifest.key))
            return changes

    async def delete(self, keys: Sequence[ObjectKey]) -> list[ObjectKey]:
        """Remove objects, of a namespace all that is in it; pods end gracefully, side by side.

        Raises RefusedError, before anything has changed, when one does not exist or cannot go.
        """
        async with self._changing:
            for key in keys:
                if key not in self.manifests:
                    raise RefusedError(f"{key} does not exist")
                if key.kind in ("Lab", "Node"):
                    raise RefusedError(f"{key}: a lab's nodes are fixed; take the lab down instead")
            namespaces = {key.name for key in keys if key.kind == "Namespace"}
            doomed = [*keys, *(key for key in self.manifests if key.namespace in namespaces and key not in keys)]
            await run_together({f"remove {key}": self._remove_pod(key) for key in doomed if key in self.pods})
            for key in doomed:
                self._forget(key)
            return doomed

    async def stop(self) -> None:
        """End every program of the lab, politely for a moment; the kernel ends what is left with the supervisor."""
        everything = [process for _, process in self.processes()]
        everything += [container for pod in self.pods.values() for container in pod.containers]
        await run_together({f"stop {process.spec.name}": process.stop(DOWN_GRACE_SECONDS) for process in everything})

    async def _apply_one(self, change: Change, service: Service | None) -> None:
        key, value = change.manifest.key, change.manifest.value
        self.manifests[key] = change.manifest
        if isinstance(value, PodKind):
            await self._apply_pod(change, value)
            return
        if isinstance(value, core.Service):
            self.services[key] = service or self.services[key].updated(value, change.manifest)
            self._publish(key, self.services[key].document())
            return
        self._publish(key, change.manifest.document)
        if key.kind == "Namespace":
            self._describe_again(key.name)

    async def _apply_pod(self, change: Change, value: PodKind) -> None:
        key = change.manifest.key
        if change.verb is Verb.CREATED:
            await self._create_pod(change, value)
            return
        self.pods[key].manifest, self.pods[key].value = change.manifest, value
        self._describe_again(key.namespace)
        self._publish_pod(self.pods[key])

    async def _create_pod(self, change: Change, value: PodKind) -> None:
        key = change.manifest.key
        node = self.nodes[change.node]
        number = node.pod_numbers.take()
        name = f"{key.namespace}_{key.name}"
        namespace = await self._network.run(self._network.network.add_pod, node.network, number, name)
        own_addresses = pod_addresses(node.network.number, number)
        files = await self._files_of(key.namespace)
        sandbox = Sandbox(change.node, node.underlay_address, number, own_addresses, namespace, files)
        labels = self._namespace_labels(key.namespace)
        pod = Pod(value, change.manifest, sandbox, self._publish_pod)
        pod.prepare(self.host.children, self._pod_environment(key.namespace), self.host.folder.logs)
        announced = pod.announce_as(pod.describe_to_agent(labels))
        self.pods[key] = pod
        # The controller must know the pod before ztunnel asks for its certificate.
        self._publish_pod(pod)
        node.enrolment.add(announced)
        self._pod_tasks[key] = self.host.tasks.create_task(pod.run(), name=str(key))

    async def _files_of(self, namespace: str) -> MountNamespace:
        """What the pods of a namespace see of the file system: all of it, with a resolv.conf of their own."""
        if namespace not in self._pod_files:
            resolver = write_resolver(self.host.folder.resolver(namespace), controller_addresses(), namespace)
            self._pod_files[namespace] = await self._network.run(mount_pod_files, resolver, self.host.folder.namespaces)
        return self._pod_files[namespace]

    async def _remove_pod(self, key: ObjectKey) -> None:
        pod = self.pods[key]
        node = self.nodes[pod.sandbox.node]
        await run_together(
            {each.spec.name: each.stop(pod.value.spec.termination_grace_period_seconds) for each in pod.containers}
        )
        self._pod_tasks.pop(key).cancel()
        kill_everything_in(pod.sandbox.namespace)
        await node.enrolment.withdraw(pod.uid)
        sandbox = pod.sandbox
        await self._network.run(self._network.network.remove_pod, node.network, sandbox.number, sandbox.namespace)
        node.pod_numbers.give_back([sandbox.number])
        del self.pods[key]

    def _forget(self, key: ObjectKey) -> None:
        service = self.services.pop(key, None)
        if service is not None:
            self._service_numbers.give_back(service.numbers)
        self.manifests.pop(key, None)
        self._births.pop(key, None)
        self._objects.remove(key)
        self._proxy.wake()
        if key.kind == "Namespace":
            self._describe_again(key.name)

    def _allocate(self, changes: Iterable[Change]) -> dict[ObjectKey, Service]:
        """Cluster IPs for all new services, or for none."""
        allocated: dict[ObjectKey, Service] = {}
        try:
            for change in changes:
                value = change.manifest.value
                if isinstance(value, core.Service) and change.verb is Verb.CREATED:
                    allocated[value.key] = allocate(value, change.manifest, self._service_numbers)
        except RefusedError:
            for service in allocated.values():
                self._service_numbers.give_back(service.numbers)
            raise
        return allocated

    def _describe_again(self, namespace: str) -> None:
        """Tell agents of changed labels; they decide whether a pod enters or leaves the mesh."""
        labels = self._namespace_labels(namespace)
        for key, pod in self.pods.items():
            if key.namespace == namespace:
                pod.announced.description = pod.describe_to_agent(labels)
                self.nodes[pod.sandbox.node].enrolment.wake()

    def _namespace_labels(self, namespace: str) -> dict[str, str]:
        manifest = self.manifests.get(ObjectKey("", "Namespace", "", namespace))
        return {**(manifest.value.labels if manifest else {}), "kubernetes.io/metadata.name": namespace}

    def _pod_environment(self, namespace: str) -> dict[str, str]:
        own = [service for key, service in self.services.items() if key.namespace == namespace]
        links = {name: text for each in own for name, text in each.environment().items()}
        # Our own packages are no business of a container.
        return {name: text for name, text in self.host.inherited.items() if name != "PYTHONPATH"} | links

    def _publish_pod(self, pod: Pod) -> None:
        if pod.manifest.key in self.pods:
            self._objects.put(pod.manifest.key, pod.document())
            self._proxy.wake()

    def _publish(self, key: ObjectKey, document: dict[str, Json]) -> None:
        """Hand an object to the controller, with the metadata that an API server adds."""
        birth = self._births.setdefault(key, {"uid": str(uuid.uuid4()), "creationTimestamp": _now()})
        metadata: dict[str, Json] = {**Fields(document).child("metadata").value, **birth}
        if key.kind == "Namespace":
            metadata["labels"] = {**self._namespace_labels(key.name)}
        self._objects.put(key, {**document, "metadata": metadata})
        self._proxy.wake()


class NetworkThread:
    """The one thread that changes the lab's network."""

    def __init__(self, network: LabNetwork) -> None:
        self.network = network
        self._executor = ThreadPoolExecutor(1, "network")

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a blocking function there, to its end even when the caller is cancelled."""
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(self._executor, lambda: function(*args, **kwargs)))


async def start_cluster(host: Host, name: str, nodes: Sequence[LabNode], spec: LabSpec) -> Cluster:
    """Build the underlay and the nodes, and start the mesh's processes (without waiting for them).

    Raises OSError and NetlinkError: the kernel lacks something.
    """
    network = NetworkThread(LabNetwork(host.folder.namespaces, spec.mtu))
    underlay = await network.run(network.network.build_underlay)
    numbered = list(enumerate(nodes, start=1))
    tokens = [mesh_processes.create_node_token(host.folder.node(number), node.name) for number, node in numbered]
    mesh_processes.write_private_file(host.folder.mesh.node_tokens, "".join(tokens))
    # First, because everything else waits for it.
    controller = KeptProcess(mesh_processes.build_controller(host.folder.mesh, underlay, host.inherited), host.children)
    host.tasks.create_task(controller.run(), name=controller.spec.name)
    cluster = Cluster(host, name, underlay, controller, _network=network)
    await ClusterDns(cluster.addresses_of_service).start(controller_addresses())
    write_resolver(host.folder.resolver(), controller_addresses())
    # Redirected where it is served.
    dns = spec.ztunnel.env.get("ISTIO_META_DNS_CAPTURE", "true")
    environments = Environments(
        agent={**host.inherited, "AMBIENT_DNS_CAPTURE": dns}, ztunnel={**host.inherited, **spec.ztunnel.env}
    )
    for number, node in numbered:
        node_network = await network.run(network.network.add_node, number)
        cluster.nodes[node.name] = start_node(node, node_network, host.folder, host.children, host.tasks, environments)
        manifest = node_manifest(node, number)
        cluster.manifests[manifest.key] = manifest
        cluster._publish(manifest.key, manifest.document)
    await network.run(network.network.join_nodes, [node.network for node in cluster.nodes.values()])
    return cluster


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
