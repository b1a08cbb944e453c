"""Which policies hold for a workload, and what mode its plaintext is judged by.

The precedence is Istio's (facts of the control plane, section 6): of peer authentications, one that selects the
workload beats its namespace's, which beats the mesh's; at one level the oldest counts; UNSET leaves it to the next
level, and without any the mode is PERMISSIVE.
"""

from collections.abc import Iterator, Mapping
from enum import Enum

from controller.kinds.security import AuthorizationPolicy, PeerAuthentication
from controller.registry.byte_policies import is_for_ztunnel
from controller.registry.names import MeshSettings, name_policy
from controller.snapshot import Snapshot

STATIC_STRICT_NAME = "istio_converted_static_strict"
CONVERTED_PREFIX = "converted_peer_authentication_"


class PeerMode(Enum):
    """Whether plaintext from outside the mesh is accepted."""

    PERMISSIVE = "permissive"
    STRICT = "strict"


# DISABLE cannot turn the mesh's own tunnels off; all it can mean here is that plaintext is accepted.
_MODES = {"STRICT": PeerMode.STRICT, "PERMISSIVE": PeerMode.PERMISSIVE, "DISABLE": PeerMode.PERMISSIVE}


def matches(match_labels: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether a selector picks something with `labels`."""
    return all(labels.get(key) == value for key, value in match_labels.items())


def find_policy_names(
    snapshot: Snapshot, namespace: str, labels: Mapping[str, str], settings: MeshSettings, *, runs_gateway: bool = False
) -> list[str]:
    """The names, sorted, of the policies that a workload must list: those that select it, and its strictness.

    What ztunnel cannot judge the Envoy of a gateway does, where the workload runs one.
    """
    names = [
        name_policy(policy.namespace, policy.name)
        for place in {namespace, settings.root_namespace}
        for policy in snapshot.objects_in(AuthorizationPolicy, place)
        if policy.match_labels and matches(policy.match_labels, labels)
        if policy.spec.action != "AUDIT" and (not runs_gateway or is_for_ztunnel(policy))
    ]
    names.extend(_find_strictness(snapshot, namespace, labels, settings))
    return sorted(names)


def _find_strictness(
    snapshot: Snapshot, namespace: str, labels: Mapping[str, str], settings: MeshSettings
) -> Iterator[str]:
    selecting = _find_oldest(
        policy
        for policy in snapshot.objects_in(PeerAuthentication, namespace)
        if policy.match_labels and matches(policy.match_labels, labels)
    )
    base = find_namespace_mode(snapshot, namespace, settings)
    if selecting is not None:
        base = _MODES.get(selecting.mode, base)
        if find_port_exceptions(selecting, base):
            yield name_policy(namespace, CONVERTED_PREFIX + selecting.name)
            return
    if base is PeerMode.STRICT:
        yield name_policy(settings.root_namespace, STATIC_STRICT_NAME)


def find_namespace_mode(snapshot: Snapshot, namespace: str, settings: MeshSettings) -> PeerMode:
    """The mode of a namespace's workloads where nothing selects them."""
    for place in (namespace, settings.root_namespace):
        policy = _find_oldest(each for each in snapshot.objects_in(PeerAuthentication, place) if not each.match_labels)
        if policy is not None and policy.mode in _MODES:
            return _MODES[policy.mode]
    return PeerMode.PERMISSIVE


def find_base_mode(snapshot: Snapshot, policy: PeerAuthentication, settings: MeshSettings) -> PeerMode:
    """The mode of the workloads that `policy` selects, on ports that it does not name."""
    return _MODES.get(policy.mode, find_namespace_mode(snapshot, policy.namespace, settings))


def find_port_exceptions(policy: PeerAuthentication, base: PeerMode) -> list[int]:
    """The ports, sorted, on which `policy` says otherwise than `base`."""
    return sorted(port for port, mode in policy.port_modes.items() if _MODES.get(mode, base) is not base)


def _find_oldest(policies: Iterator[PeerAuthentication]) -> PeerAuthentication | None:
    return min(policies, key=lambda policy: policy.age_key, default=None)
