"""A stock istiod on a real Kubernetes control plane, for lab tests of our ztunnel under it.

What kubelets and Istio's node agent would say of the pods of a chosen mesh, the test says for them.
"""

import base64
import time
from pathlib import Path

import yaml

from tests.support.chosen_mesh import ChosenMesh, Pod, Ztunnel
from tests.support.kubernetes import ApiError, Document, Kubernetes, find_peer, running_pod, running_status
from tests.support.processes import end_process, start_process

NAMESPACE = "istio-system"
HOSTNAME = f"istiod.{NAMESPACE}.svc"
PORT = 15012
CRDS = "istio-crds.yaml"
PATIENCE_SECONDS = 60.0


class Istiod:
    """istiod, and the objects that tell it of `mesh`."""

    def __init__(self, mesh: ChosenMesh, cluster: Kubernetes, address: str) -> None:
        self.mesh = mesh
        self.cluster = cluster
        self.address = address
        self.log_file = cluster.folder / "istiod.log"
        self.root_certificate = cluster.folder / "root-cert.pem"

    def start(self) -> None:
        """Start it in an empty cluster with Istio's definitions, and wait until it has a root."""
        crds = Path(find_peer("istiod")).resolve().parent / CRDS
        self.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        self.cluster.apply(*yaml.load_all(crds.read_text(), yaml.CSafeLoader))
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "ztunnel", "namespace": NAMESPACE},
        }
        self.cluster.apply(account)
        environment = {
            "POD_NAME": "istiod",
            "POD_NAMESPACE": NAMESPACE,
            "CLUSTER_ID": "Kubernetes",
            "REVISION": "default",
            "PILOT_ENABLE_AMBIENT": "true",
            "CA_TRUSTED_NODE_ACCOUNTS": f"{NAMESPACE}/ztunnel",
        }
        command = [find_peer("istiod"), "discovery", "--kubeconfig", str(self.cluster.kubeconfig), "--ctrlz_port", "0"]
        process = start_process(command, self.log_file, environment)
        self.mesh.stack.callback(end_process, process)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._read_root():
            assert process.poll() is None, self.log_file.read_text()
            assert time.monotonic() < deadline, self.log_file.read_text()
            time.sleep(0.1)

    def _read_root(self) -> bool:
        try:
            secret = self.cluster.get("v1", "Secret", "istio-ca-secret", NAMESPACE)
        except ApiError:
            return False
        self.root_certificate.write_bytes(base64.b64decode(secret["data"]["ca-cert.pem"]))
        return True

    def add_namespace(self, name: str) -> None:
        labels = {"istio.io/dataplane-mode": "ambient"}
        self.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})

    def add_pod(self, pod: Pod, **labels: str) -> None:
        """Tell of a pod that Istio's node agent has enrolled."""
        metadata = {"name": pod.account, "namespace": pod.namespace}
        self.cluster.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        enrolled = {"ambient.istio.io/redirection": "enabled"}
        self.cluster.apply(
            running_pod(pod.name, pod.namespace, pod.node, pod.account, labels=labels, annotations=enrolled)
        )
        self.cluster.set_status("v1", "Pod", pod.name, pod.namespace, running_status(*pod.addresses))

    def start_ztunnel(self, node: str, **environment: str) -> Ztunnel:
        """Our ztunnel as a pod of istio-system on `node`, by the token that kubelet would have mounted."""
        name = f"ztunnel-{node}"
        self.cluster.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
        self.cluster.apply(running_pod(name, NAMESPACE, node, "ztunnel"))
        pod: Document = self.cluster.get("v1", "Pod", name, NAMESPACE)
        token = self.cluster.folder / f"token-{node}"
        token.write_text(self.cluster.create_token(NAMESPACE, "ztunnel", "istio-ca", pod))
        address, root = f"https://{self.address}:{PORT}", str(self.root_certificate)
        given = {
            "XDS_ADDRESS": address,
            "CA_ADDRESS": address,
            "XDS_ROOT_CA": root,
            "CA_ROOT_CA": root,
            "ALT_XDS_HOSTNAME": HOSTNAME,
            "ALT_CA_HOSTNAME": HOSTNAME,
            "AUTH_TOKEN": str(token),
            "POD_NAME": name,
            "POD_NAMESPACE": NAMESPACE,
            "SERVICE_ACCOUNT": "ztunnel",
        }
        return self.mesh.start_ztunnel(node, **given, **environment)
