"""Secrets, and pods of Gateways, as text."""

import base64
from collections.abc import Mapping

from controller.kinds.gateway_api import GATEWAY_LABEL
from tests.support.mesh_certificates import Credentials


def secret_text(name: str, pair: Credentials, namespace: str = "demo") -> str:
    """A Secret with a certificate, as kubectl makes one."""
    data = f"{{tls.crt: {_encode(pair.certificate)}, tls.key: {_encode(pair.key)}}}"
    metadata = f"{{name: {name}, namespace: {namespace}}}"
    return f"{{apiVersion: v1, kind: Secret, metadata: {metadata}, type: kubernetes.io/tls, data: {data}}}\n---\n"


def opaque_text(name: str, namespace: str, keys: Mapping[str, str]) -> str:
    """A Secret with these keys and texts."""
    data = ", ".join(f"{key}: {_encode(text)}" for key, text in keys.items())
    metadata = f"{{name: {name}, namespace: {namespace}}}"
    return f"{{apiVersion: v1, kind: Secret, metadata: {metadata}, data: {{{data}}}}}\n---\n"


def ingress_pod_text(labels: Mapping[str, str], node: str, name: str = "ingress") -> str:
    """A pod of an ingress gateway of namespace `istio-system`."""
    written = ", ".join(f"{key}: {value}" for key, value in labels.items())
    metadata = f"{{name: {name}, namespace: istio-system, labels: {{{written}}}}}"
    return f"{{apiVersion: v1, kind: Pod, metadata: {metadata}, spec: {{nodeName: {node}}}}}\n---\n"


def gateway_pod_text(gateway: str, node: str) -> str:
    """A pod of a Gateway of namespace `demo`."""
    metadata = f"{{name: {gateway}-proxy, namespace: demo, labels: {{{GATEWAY_LABEL}: {gateway}}}}}"
    return f"{{apiVersion: v1, kind: Pod, metadata: {metadata}, spec: {{nodeName: {node}}}}}\n---\n"


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
