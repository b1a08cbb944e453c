"""What the controller is allowed on a real API server: what its documentation says, and no more."""

import re
from pathlib import Path

import yaml

from tests.support.kubernetes import ISSUER, Kubernetes

DOCUMENTATION = Path(__file__).resolve().parents[2] / "docs" / "kubernetes.md"


def allow_controller(cluster: Kubernetes, namespace: str) -> str:
    """The token of the namespace's service account `web`, which may then do what the documented role allows."""
    (role,) = re.findall(r"```yaml\n(.*?)```", DOCUMENTATION.read_text(), re.DOTALL)
    cluster.apply(yaml.safe_load(role))
    binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding"}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "ambit-controller"}
    subjects = [{"kind": "ServiceAccount", "name": "web", "namespace": namespace}]
    cluster.apply({**binding, "metadata": {"name": namespace}, "roleRef": reference, "subjects": subjects})
    return cluster.create_token(namespace, "web", ISSUER)
