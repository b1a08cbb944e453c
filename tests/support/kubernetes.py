"""A real Kubernetes control plane: etcd, kube-apiserver and kube-controller-manager as processes of the test.

    with kubernetes("192.0.2.1") as cluster:
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        cluster.get("v1", "Namespace", "shop")

There are no kubelets: a test says what the nodes' pods are like by `set_status`. In an isolated test all of it listens
in the test's own network namespace. tools/peers.sh builds the two Kubernetes programs (tests/peers/kubernetes).
"""

import json
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ambit.demo.polling import wait_for
from tests.support.processes import start_process

Document = dict[str, Any]

API_PORT, ETCD_PORT, ETCD_PEER_PORT, MANAGER_PORT = 16443, 12379, 12380, 10257
USER_TOKEN = "of-the-tests"
SERVICE_ADDRESSES = "10.96.0.0/16"
PATIENCE_SECONDS = 60.0
ISSUER = "https://kubernetes.default.svc"


class ApiError(Exception):
    """What the API server refused: the HTTP status, and the message of its Status object."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Kubernetes:
    """The control plane at `address`; every part can be ended and started again on the same data."""

    def __init__(self, folder: Path, address: str, stack: ExitStack) -> None:
        self.folder = folder
        self.address = address
        self.url = f"https://{address}:{API_PORT}"
        self.kubeconfig = folder / "kubeconfig"
        self._stack = stack
        self._certificates = folder / "certificates"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._plurals: dict[tuple[str, str], tuple[str, bool]] = {}

    @property
    def certificate_authority(self) -> Path:
        """The certificate that the API server is trusted by."""
        return self._certificates / "apiserver.crt"

    # Processes

    def start(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        text = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        (self.folder / "accounts.key").write_bytes(text)
        (self.folder / "tokens").write_text(f"{USER_TOKEN},tests,tests,system:masters\n")
        self.start_etcd()
        self.start_api_server()
        self.write_kubeconfig(self.kubeconfig, USER_TOKEN)
        self.start_manager()

    def start_etcd(self) -> None:
        client, peer = (f"http://{self.address}:{port}" for port in (ETCD_PORT, ETCD_PEER_PORT))
        urls = ["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer]
        peers = ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
        # The data is the test's: it need not survive this machine.
        self._start("etcd", "--data-dir", str(self.folder / "etcd"), *urls, *peers, "--unsafe-no-fsync")

    def start_api_server(self) -> None:
        """Start it, and wait until it is ready."""
        key = str(self.folder / "accounts.key")
        self._start(
            "kube-apiserver",
            f"--etcd-servers=http://{self.address}:{ETCD_PORT}",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            f"--token-auth-file={self.folder / 'tokens'}",
            "--authorization-mode=Node,RBAC",
            f"--service-cluster-ip-range={SERVICE_ADDRESSES}",
            f"--cert-dir={self._certificates}",
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            f"--secure-port={API_PORT}",
            "--endpoint-reconciler-type=none",
            "--shutdown-delay-duration=0s",
        )
        self._wait("kube-apiserver", lambda: self.request("GET", "/readyz", parse=False) == "ok")

    def start_manager(self) -> None:
        self._start(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            f"--service-account-private-key-file={self.folder / 'accounts.key'}",
            "--leader-elect=false",
            f"--cert-dir={self.folder / 'manager'}",
            f"--secure-port={MANAGER_PORT}",
            "--controllers=serviceaccount-controller,serviceaccount-token-controller,endpointslice-controller,"
            "namespace-controller,garbage-collector-controller",
        )
        self._wait("kube-controller-manager", lambda: bool(self.get("v1", "ServiceAccount", "default", "default")))

    def stop(self, name: str) -> None:
        """End `etcd`, `kube-apiserver` or `kube-controller-manager` as a crash would."""
        _kill(self._processes.pop(name))

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def write_kubeconfig(self, path: Path, token: str) -> None:
        """Who has `token`, as a kubeconfig file."""
        cluster = {"server": self.url, "certificate-authority": str(self.certificate_authority)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": "tests", "user": {"token": token}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
            "current-context": "tests",
        }
        path.write_text(json.dumps(document))

    def _start(self, name: str, *arguments: str) -> None:
        process = start_process([find_peer(name), *arguments], self.folder / f"{name}.log")
        self._processes[name] = process
        self._stack.callback(_kill, process)

    def _wait(self, name: str, is_ready: Callable[[], bool]) -> None:
        process = self._processes[name]

        def look() -> bool:
            try:
                return is_ready() or process.poll() is not None
            except (OSError, ApiError):
                return process.poll() is not None

        assert wait_for(look, PATIENCE_SECONDS), self.log(name)
        assert process.poll() is None, self.log(name)

    # Objects

    def apply(self, *objects: Document) -> None:
        """Create or change objects, by server-side apply."""
        for each in objects:
            metadata = each["metadata"]
            path = self._path(each["apiVersion"], each["kind"], metadata.get("namespace", ""), metadata["name"])
            self.request("PATCH", f"{path}?fieldManager=tests&force=true", each, "application/apply-patch+yaml")

    def wait_for_kind(self, version: str, kind: str) -> None:
        """Wait until a definition that was applied is served."""

        def look() -> bool:
            try:
                return bool(self._path(version, kind, "", ""))
            except (ApiError, KeyError):
                return False

        assert wait_for(look, PATIENCE_SECONDS), f"{version} {kind} is not served"

    def set_status(self, version: str, kind: str, name: str, namespace: str, status: Document) -> None:
        """Say what only a kubelet could."""
        path = self._path(version, kind, namespace, name)
        self.request("PATCH", f"{path}/status", {"status": status}, "application/merge-patch+json")

    def get(self, version: str, kind: str, name: str, namespace: str = "") -> Document:
        """An object. Raises ApiError with status 404 where there is none."""
        found: Document = self.request("GET", self._path(version, kind, namespace, name))
        return found

    def delete(self, version: str, kind: str, name: str, namespace: str = "") -> None:
        self.request("DELETE", f"{self._path(version, kind, namespace, name)}?gracePeriodSeconds=0")

    def create_token(self, namespace: str, account: str, audience: str, pod: Document | None = None) -> str:
        """A token of a service account, bound to `pod` where there is one (TokenRequest)."""
        spec: Document = {"audiences": [audience]}
        if pod:
            metadata = pod["metadata"]
            spec["boundObjectRef"] = {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": metadata["name"],
                "uid": metadata["uid"],
            }
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        token: str = self.request("POST", path, body)["status"]["token"]
        return token

    def request(
        self,
        method: str,
        path: str,
        body: Document | None = None,
        kind: str = "application/json",
        parse: bool = True,
        token: str = USER_TOKEN,
    ) -> Any:  # noqa: ANN401  # as json.loads
        """Ask the API server; gives what the answer's JSON holds. Raises ApiError, or OSError where nobody answers."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": kind}
        question = urllib.request.Request(f"{self.url}{path}", data, headers, method=method)
        trust = ssl.create_default_context(cafile=self.certificate_authority)
        try:
            with urllib.request.urlopen(question, timeout=30, context=trust) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise ApiError(error.code, error.read().decode(errors="replace")) from error
        return json.loads(text) if parse else text.decode()

    @contextmanager
    def hold_request(self, token: str) -> Iterator[None]:
        """A request of who has `token` that the API server is busy with until the end: its body never comes."""
        trust = ssl.create_default_context(cafile=self.certificate_authority)
        connection = HTTPSConnection(self.address, API_PORT, timeout=PATIENCE_SECONDS, context=trust)
        connection.putrequest("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews")
        for name, value in {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Content-Length": "100",
        }.items():
            connection.putheader(name, value)
        connection.endheaders()
        try:
            yield
        finally:
            connection.close()

    def _path(self, version: str, kind: str, namespace: str, name: str) -> str:
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if (version, kind) not in self._plurals:
            for each in self.request("GET", root)["resources"]:
                if "/" not in each["name"]:
                    self._plurals[version, each["kind"]] = each["name"], each["namespaced"]
        plural, is_namespaced = self._plurals[version, kind]
        place = f"/namespaces/{namespace or 'default'}" if is_namespaced else ""
        return f"{root}{place}/{plural}/{name}"


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End it at once: it would wait for watches that nobody ends."""
    process.kill()
    process.wait()


@contextmanager
def kubernetes(address: str = "127.0.0.1") -> Iterator[Kubernetes]:
    """A control plane with nothing in it, ready. Everything ends with it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kubernetes-", dir="/tmp")))
        cluster = Kubernetes(folder, address, stack)
        cluster.start()
        yield cluster


def find_peer(name: str) -> str:
    """Where a program is that tools/setup.sh made or installed for the tests."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    assert found, f"{name} is not there: run 'make setup-test'"
    return found


def running_pod(name: str, namespace: str, node: str, account: str, **metadata: Mapping[str, str]) -> Document:
    """A pod's object as the scheduler leaves it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "spec": {
            "nodeName": node,
            "serviceAccountName": account,
            "containers": [{"name": "main", "image": "local"}],
        },
    }


def running_status(*addresses: str) -> Document:
    """The status that a kubelet gives a pod that is ready."""
    return {
        "phase": "Running",
        "podIP": addresses[0],
        "podIPs": [{"ip": address} for address in addresses],
        "conditions": [{"type": "Ready", "status": "True"}],
    }
