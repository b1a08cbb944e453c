"""Kinds of other tools, which may stand in the same folder: they are passed over, and not refused.

Who writes one expects nothing of the mesh by it. What belongs to a mesh is none of these, though it is not read here:
of that its author is to know that it has no effect.
"""

_KUBERNETES_CORE = frozenset(
    {
        "Endpoints",
        "Event",
        "LimitRange",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "PodTemplate",
        "ReplicationController",
        "ResourceQuota",
    }
)
# Kubernetes' groups without a dot; all other groups are domains.
_KUBERNETES_GROUPS = frozenset({"apps", "autoscaling", "batch", "extensions", "policy"})
_MESHES = ("istio.io", "gateway.networking.k8s.io", "gateway.networking.x-k8s.io", "ambit.dev")
_INSTALLER = "install.istio.io"
POD_MAKERS = frozenset(
    {"CronJob", "DaemonSet", "Deployment", "Job", "ReplicaSet", "ReplicationController", "Rollout", "StatefulSet"}
)
"""Kinds that make pods; only the pods themselves are read."""


def explain_other(api_version: str, kind: str) -> str:
    """What is to be known of a document of another tool; empty if it is of none that is known."""
    group, _, _ = api_version.rpartition("/")
    if group == _INSTALLER:
        return (
            "Istio's installer reads it, and nothing here does, not even its meshConfig: Envoys write their access log "
            "to standard output unless a Telemetry says otherwise, nothing is traced, and settings are the controller's"
        )
    if any(group == mesh or group.endswith(f".{mesh}") for mesh in _MESHES):
        return ""
    if kind in _KUBERNETES_CORE if not group else group in _KUBERNETES_GROUPS or "." in group:
        return "it makes pods, and only these are read" if kind in POD_MAKERS else "nothing here reads it"
    return ""
