"""Secrets, and pods of Gateways, as text."""

import base64

from controller.kinds.gateway_api import GATEWAY_LABEL
from tests.support.mesh_certificates import Credentials


def secret_text(name: str, pair: Credentials, namespace: str = "demo") -> str:
    """A Secret with a certificate, as kubectl makes one."""
    data = f"{{tls.crt: {_encode(pair.certificate)}, tls.key: {_encode(pair.key)}}}"
    metadata = f"{{name: {name}, namespace: {namespace}}}"
    return f"{{apiVersion: v1, kind: Secret, metadata: {metadata}, type: kubernetes.io/tls, data: {data}}}\n---\n"


def gateway_pod_text(gateway: str, node: str) -> str:
    """A pod of a Gateway of namespace `demo`."""
    metadata = f"{{name: {gateway}-proxy, namespace: demo, labels: {{{GATEWAY_LABEL}: {gateway}}}}}"
    return f"{{apiVersion: v1, kind: Pod, metadata: {metadata}, spec: {{nodeName: {node}}}}}\n---\n"


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
