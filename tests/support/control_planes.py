"""Control planes on a real Kubernetes API server, for lab tests of ztunnels under them: a stock istiod, and ours.

What kubelets and the node agent would say of the pods of a chosen mesh, the test says for them.
"""

import base64
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import yaml

from ambit.demo.polling import wait_for
from tests.support.chosen_mesh import REPOSITORY, ChosenMesh, Pod, Ztunnel
from tests.support.kubernetes import ApiError, Document, Kubernetes, find_peer, running_pod, running_status
from tests.support.processes import end_process, start_process

NAMESPACE = "istio-system"
HOSTNAME = f"istiod.{NAMESPACE}.svc"
PORT = 15012
CRDS = "istio-crds.yaml"
PATIENCE_SECONDS = 60.0
ISTIOD_ENVIRONMENT = {
    "POD_NAME": "istiod",
    "POD_NAMESPACE": NAMESPACE,
    "CLUSTER_ID": "Kubernetes",
    "REVISION": "default",
    "PILOT_ENABLE_AMBIENT": "true",
    "CA_TRUSTED_NODE_ACCOUNTS": f"{NAMESPACE}/ztunnel",
}
"""What a stock istiod is told, as installations for ambient meshes do."""


class ControlPlane(ABC):
    """Certificates and discovery at `address`, from the objects of `cluster` that tell of `mesh`."""

    def __init__(self, mesh: ChosenMesh, cluster: Kubernetes, address: str) -> None:
        self.mesh = mesh
        self.cluster = cluster
        self.address = address
        self.log_file = cluster.folder / "control-plane.log"
        self.root_certificate = cluster.folder / "root-cert.pem"

    @abstractmethod
    def start(self) -> None:
        """Start it in an empty cluster, and wait until agents may come."""

    def install_definitions(self) -> None:
        """Istio's own definitions, of the version of the stock istiod, and what every installation has."""
        crds = Path(find_peer("istiod")).resolve().parent / CRDS
        self.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        self.cluster.apply(*yaml.load_all(crds.read_text(), yaml.CSafeLoader))
        metadata = {"name": "ztunnel", "namespace": NAMESPACE}
        self.cluster.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        self.cluster.wait_for_kind("security.istio.io/v1", "AuthorizationPolicy")

    def wait_until(self, process: "subprocess.Popen[bytes]", is_true: Callable[[], bool]) -> None:
        self.mesh.stack.callback(end_process, process)
        assert wait_for(lambda: is_true() or process.poll() is not None, PATIENCE_SECONDS), self.log_file.read_text()
        assert process.poll() is None, self.log_file.read_text()

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


class Istiod(ControlPlane):
    """A stock istiod."""

    def start(self) -> None:
        self.install_definitions()
        command = [find_peer("istiod"), "discovery", "--kubeconfig", str(self.cluster.kubeconfig), "--ctrlz_port", "0"]
        self.wait_until(start_process(command, self.log_file, ISTIOD_ENVIRONMENT), self._read_root)

    def _read_root(self) -> bool:
        try:
            secret = self.cluster.get("v1", "Secret", "istio-ca-secret", NAMESPACE)
        except ApiError:
            return False
        self.root_certificate.write_bytes(base64.b64decode(secret["data"]["ca-cert.pem"]))
        return True


class AmbitController(ControlPlane):
    """Ours."""

    def start(self) -> None:
        self.install_definitions()
        environment = {
            "PYTHONPATH": str(REPOSITORY),
            "AMBIT_KUBECONFIG": str(self.cluster.kubeconfig),
            "AMBIT_STATE_DIR": str(self.cluster.folder / "state"),
            "AMBIT_LISTEN": f"{self.address}:{PORT}",
            "AMBIT_SERVING_NAMES": HOSTNAME,
        }
        process = start_process([sys.executable, "-m", "controller"], self.log_file, environment)
        self.wait_until(process, lambda: "controller is ready" in self.log_file.read_text() and self._read_root())

    def _read_root(self) -> bool:
        try:
            found = self.cluster.get("v1", "ConfigMap", "istio-ca-root-cert", NAMESPACE)
        except ApiError:
            return False
        self.root_certificate.write_text(found["data"]["root-cert.pem"])
        return True
