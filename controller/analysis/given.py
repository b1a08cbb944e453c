"""What the checks look at: the snapshot of what is valid, and how much is known to be missing from it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from controller.kinds.core import Namespace, Pod, Service, ServiceAccount
from controller.kinds.networking import WorkloadEntry
from controller.kinds.security import AuthorizationPolicy, PeerAuthentication
from controller.registry.entries import EntryHosts
from controller.registry.members import Members
from controller.registry.names import MeshSettings
from controller.registry.policies import matches
from controller.registry.request_policies import find_selected
from controller.registry.workloads import REDIRECTION_ANNOTATION
from controller.snapshot import Snapshot
from mesh.identity import DEFAULT_SERVICE_ACCOUNT

Policy = AuthorizationPolicy | PeerAuthentication

# As the node agent decides enrolment (cni.agent.eligibility).
_MODE_LABEL = "istio.io/dataplane-mode"
_SIDECAR_ANNOTATION = "sidecar.istio.io/status"


@dataclass(frozen=True)
class Given:
    """The objects of one analysis.

    `doubtful_namespaces` may have pods that are not in the snapshot; None stands for every namespace.
    """

    snapshot: Snapshot
    settings: MeshSettings = field(default_factory=MeshSettings)
    doubtful_namespaces: frozenset[str] | None = frozenset()
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @cached_property
    def policies(self) -> Sequence[Policy]:
        """Those that are for pods, which ztunnels enforce."""
        authorizations = (each for each in self.snapshot.objects(AuthorizationPolicy) if not each.targets)
        return [*authorizations, *self.snapshot.objects(PeerAuthentication)]

    @cached_property
    def hosts(self) -> EntryHosts:
        """Which ServiceEntry has which host."""
        return EntryHosts(self.snapshot, self.settings)

    @cached_property
    def members(self) -> Members:
        """The services, and who serves them."""
        return Members(self.snapshot, self.settings, self.hosts)

    @cached_property
    def pods(self) -> Mapping[str, Sequence[Pod]]:
        """The pods that can have traffic, by namespace."""
        found: dict[str, list[Pod]] = {}
        for pod in self.snapshot.objects(Pod):
            if not pod.is_terminal:
                found.setdefault(pod.namespace, []).append(pod)
        return found

    @cached_property
    def namespaces(self) -> frozenset[str]:
        """Those that are given, or in use by what is more than a policy."""
        named = {each.name for each in self.snapshot.objects(Namespace)}
        users = [*self.snapshot.objects(Pod), *self.snapshot.objects(Service), *self.snapshot.objects(ServiceAccount)]
        return frozenset({*named, *(each.namespace for each in users), self.settings.root_namespace})

    @cached_property
    def service_accounts(self) -> frozenset[tuple[str, str]]:
        """Namespace and name of those that are given, that pods run as, or that every namespace has."""
        given = {(each.namespace, each.name) for each in self.snapshot.objects(ServiceAccount)}
        used = {(pod.namespace, pod.service_account) for pod in self.snapshot.objects(Pod)}
        return frozenset({*given, *used, *((namespace, DEFAULT_SERVICE_ACCOUNT) for namespace in self.namespaces)})

    def knows_pods_of(self, namespace: str) -> bool:
        """Whether the pods of a namespace are all there. Without a single pod, the files are a part of something."""
        return bool(self.pods) and self.doubtful_namespaces is not None and namespace not in self.doubtful_namespaces

    def knows_all_pods(self) -> bool:
        return bool(self.pods) and self.doubtful_namespaces is not None and not self.doubtful_namespaces

    def reaches_all(self, policy: Policy) -> bool:
        """Whether a policy is for pods of all namespaces.

        One of the root namespace is, but a PeerAuthentication with a selector is for its own namespace only.
        """
        is_own = isinstance(policy, PeerAuthentication) and policy.match_labels
        return policy.namespace == self.settings.root_namespace and not is_own

    def knows_reach_of(self, policy: Policy) -> bool:
        """Whether all pods that a policy could be for are there."""
        return self.knows_all_pods() if self.reaches_all(policy) else self.knows_pods_of(policy.namespace)

    def selected_by(self, policy: Policy) -> Sequence[Pod]:
        """The pods that a policy is for."""
        places = self.pods.values() if self.reaches_all(policy) else [self.pods.get(policy.namespace, ())]
        return [pod for pods in places for pod in pods if matches(policy.match_labels, pod.labels)]

    def labels_in(self, namespace: str) -> Iterator[Mapping[str, str]]:
        """The labels of all that a selector of the namespace may pick: pods and WorkloadEntries."""
        yield from (pod.labels for pod in self.pods.get(namespace, ()))
        yield from (entry.all_labels for entry in self.snapshot.objects_in(WorkloadEntry, namespace))

    def is_for_nobody(self, policy: Policy) -> bool:
        """Whether a policy is for no pod, no WorkloadEntry and no gateway."""
        entries = {entry.namespace for entry in self.snapshot.objects(WorkloadEntry)}
        if isinstance(policy, AuthorizationPolicy) and any(find_selected(self.snapshot, self.settings, policy)):
            return False
        places = entries | set(self.pods) if self.reaches_all(policy) else [policy.namespace]
        return not any(matches(policy.match_labels, labels) for place in places for labels in self.labels_in(place))

    def is_outside(self, pod: Pod) -> bool:
        """Whether a pod is surely not in the mesh; where its Namespace is not given, nobody can know."""
        if pod.annotations.get(REDIRECTION_ANNOTATION) == "enabled" or _SIDECAR_ANNOTATION in pod.annotations:
            return False
        mode = pod.labels.get(_MODE_LABEL)
        if pod.spec.host_network or mode == "none":
            return True
        namespace = self.snapshot.find(Namespace, "", pod.namespace)
        return mode != "ambient" and namespace is not None and namespace.labels.get(_MODE_LABEL) != "ambient"


def name_some(pods: Sequence[Pod]) -> str:
    """A few pods for a message: the first by name, and how many more."""
    names = sorted(f"{pod.namespace}/{pod.name}" for pod in pods)
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
