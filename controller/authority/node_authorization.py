"""Whose certificates a node's agent may have: those of the service accounts of pods that run on that node. Pure.

Without this a node that was broken into could be every workload of the mesh; with it, only those that it runs anyway.
"""

from dataclasses import dataclass

from controller.kinds.core import Pod
from controller.snapshot import Snapshot
from mesh.identity import SpiffeIdentity


@dataclass(frozen=True, slots=True)
class Permit:
    """The node may have it, because of this pod."""

    pod: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """The node may not have it. `reason` is a stable word, `message` says what to do."""

    reason: str
    message: str


def decide_impersonation(
    snapshot: Snapshot, node: str, identity: SpiffeIdentity, trust_domain: str
) -> Permit | Refusal:
    """Whether the agent of `node` may have a certificate for `identity`.

    A pod counts from the moment it is scheduled until all its containers have ended: an init container has traffic too.
    A pod may be asked for before we know of it; the agent asks again.
    """
    if identity.trust_domain != trust_domain:
        return Refusal("wrong_trust_domain", f"this mesh's trust domain is {trust_domain}")
    elsewhere = ""
    for pod in snapshot.objects_in(Pod, identity.namespace):
        if pod.service_account != identity.service_account or pod.is_terminal:
            continue
        if pod.spec.node_name == node:
            return Permit(f"{pod.namespace}/{pod.name}")
        elsewhere = pod.spec.node_name or "no node yet"
    if elsewhere:
        return Refusal("not_on_node", f"no pod of this service account is on {node}; one is on {elsewhere}")
    return Refusal("no_such_pod", "no running pod has this service account")
