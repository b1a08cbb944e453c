"""The controller on a real Kubernetes API server: what is written there is what agents are told, whatever happens."""

import base64
import json
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from ambit.demo.polling import wait_for
from controller.sources.kubernetes_client import PAGE_OBJECTS
from tests.support.controller_process import (
    ADDRESS,
    AUTHORIZATION,
    PATIENCE_SECONDS,
    ControllerProcess,
    DeltaStream,
    build_csr,
    create_certificate,
)
from tests.support.kubernetes import (
    ETCD_PORT,
    ApiError,
    Document,
    Kubernetes,
    kubernetes,
    running_pod,
    running_status,
)
from tests.support.kubernetes_access import allow_controller
from tests.support.mesh_certificates import make_authority, write_authority

NODE = "node-1"
POLICY_GROUP = "security.istio.io"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Kubernetes]:
    """With an account for the controller that may do what docs/kubernetes.md says that it must be allowed, no more."""
    with kubernetes() as started:
        started.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
        add_namespace(started, "istio-system")
        token = allow_controller(started, "istio-system")
        started.write_kubeconfig(Path(kubeconfig_of_controller(started)), token)
        yield started


def kubeconfig_of_controller(cluster: Kubernetes) -> str:
    return str(cluster.folder / "controller-kubeconfig")


class Agent:
    """Everything that a node's agent has been told, by resource name."""

    def __init__(self, controller: ControllerProcess, token: str = "token-1") -> None:
        self._channel = controller.connect()
        self._stream = DeltaStream(self._channel, token, NODE)
        self.known: set[str] = set()
        for type_url in (ADDRESS, AUTHORIZATION):
            self._stream.send(type_url, resource_names_subscribe=["*"])

    def wait(self, is_wanted: Callable[[set[str]], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_wanted(self.known):
            response = self._stream.receive_and_acknowledge(max(0.1, deadline - time.monotonic()))
            self.known |= {each.name for each in response.resources}
            self.known -= set(response.removed_resources)

    def close(self) -> None:
        self._stream.close()
        self._channel.close()


@contextmanager
def follow(cluster: Kubernetes, root: Path) -> Iterator[tuple[ControllerProcess, Agent]]:
    with ControllerProcess(root) as controller:
        controller.start(AMBIT_CONFIG_DIR="", AMBIT_KUBECONFIG=kubeconfig_of_controller(cluster))
        agent = Agent(controller)
        try:
            yield controller, agent
        finally:
            agent.close()


def add_namespace(cluster: Kubernetes, name: str) -> None:
    labels = {"istio.io/dataplane-mode": "ambient"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    cluster.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web", "namespace": name}})


def add_pod(cluster: Kubernetes, namespace: str, name: str, address: str) -> None:
    cluster.apply(running_pod(name, namespace, NODE, "web", labels={"app": "web"}))
    cluster.set_status("v1", "Pod", name, namespace, running_status(address))


def uid(namespace: str, name: str) -> str:
    return f"Kubernetes//Pod/{namespace}/{name}"


def read_metrics(controller: ControllerProcess) -> Mapping[str, float]:
    lines = controller.fetch("/metrics").splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def wait_for_metric(controller: ControllerProcess, name: str, is_wanted: Callable[[float], bool]) -> None:
    found = wait_for(lambda: is_wanted(read_metrics(controller).get(name, 0)), PATIENCE_SECONDS)
    assert found, (name, read_metrics(controller), controller.log)


def ask_etcd(path: str, body: Document) -> Document:
    question = urllib.request.Request(f"http://127.0.0.1:{ETCD_PORT}{path}", json.dumps(body).encode())
    with urllib.request.urlopen(question, timeout=PATIENCE_SECONDS) as answer:
        found: Document = json.loads(answer.read())
        return found


def test_what_is_there_and_what_changes_is_told(cluster: Kubernetes, tmp_path: Path) -> None:
    add_namespace(cluster, "told")
    add_pod(cluster, "told", "first", "10.0.1.1")
    with follow(cluster, tmp_path) as (_, agent):
        agent.wait(lambda known: uid("told", "first") in known)
        spec = {"clusterIP": "10.96.1.1", "selector": {"app": "web"}, "ports": [{"port": 80}]}
        metadata = {"name": "web", "namespace": "told"}
        cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
        agent.wait(lambda known: "told/web.told.svc.cluster.local" in known)
        add_pod(cluster, "told", "second", "10.0.1.2")
        agent.wait(lambda known: uid("told", "second") in known)
        cluster.delete("v1", "Pod", "first", "told")
        agent.wait(lambda known: uid("told", "first") not in known)
        cluster.delete("v1", "Service", "web", "told")
        agent.wait(lambda known: "told/web.told.svc.cluster.local" not in known)


def test_more_objects_than_a_page_are_all_told(cluster: Kubernetes, tmp_path: Path) -> None:
    count = PAGE_OBJECTS + 100
    add_namespace(cluster, "pages")
    for number in range(count):
        metadata = {"name": f"account-{number}", "namespace": "pages"}
        cluster.request(
            "POST",
            "/api/v1/namespaces/pages/serviceaccounts",
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        )
    with ControllerProcess(tmp_path) as controller:
        controller.start(AMBIT_CONFIG_DIR="", AMBIT_KUBECONFIG=kubeconfig_of_controller(cluster))
        assert read_metrics(controller)['ambit_config_objects{group="",kind="ServiceAccount"}'] >= count
    cluster.delete("v1", "Namespace", "pages")


def test_the_last_state_serves_through_restarts_of_the_api_server_and_of_etcd(
    cluster: Kubernetes, tmp_path: Path
) -> None:
    add_namespace(cluster, "restarts")
    add_pod(cluster, "restarts", "first", "10.0.2.1")
    with follow(cluster, tmp_path) as (controller, agent):
        agent.wait(lambda known: uid("restarts", "first") in known)
        cluster.stop("kube-apiserver")
        wait_for_metric(controller, "ambit_source_failing_watches", lambda count: count > 0)
        controller.wait_for_log("Kubernetes cannot be watched, what was read stays")
        cluster.stop("etcd")
        # Who connects meanwhile is told what was read last.
        late = Agent(controller)
        late.wait(lambda known: uid("restarts", "first") in known)
        late.close()
        cluster.start_etcd()
        cluster.start_api_server()
        add_pod(cluster, "restarts", "second", "10.0.2.2")
        agent.wait(lambda known: uid("restarts", "second") in known)
        assert uid("restarts", "first") in agent.known
        wait_for_metric(controller, "ambit_source_failing_watches", lambda count: count == 0)


def test_what_went_while_a_watch_expired_is_noticed(cluster: Kubernetes, tmp_path: Path) -> None:
    add_namespace(cluster, "expired")
    for number, name in enumerate(("stays", "goes")):
        add_pod(cluster, "expired", name, f"10.0.3.{number + 1}")
    with follow(cluster, tmp_path) as (controller, agent):
        agent.wait(lambda known: {uid("expired", "stays"), uid("expired", "goes")} <= known)
        cluster.stop("kube-apiserver")
        # The object goes, and with it all memory of the versions at which the watches would go on.
        key = base64.b64encode(b"/registry/pods/expired/goes").decode()
        header = ask_etcd("/v3/kv/deleterange", {"key": key})["header"]
        ask_etcd("/v3/kv/compaction", {"revision": header["revision"], "physical": True})
        cluster.start_api_server()
        agent.wait(lambda known: uid("expired", "goes") not in known)
        assert uid("expired", "stays") in agent.known
        controller.wait_for_log("watch has expired, listing anew")


def test_a_store_that_was_set_back_to_an_earlier_state_is_read_anew(cluster: Kubernetes, tmp_path: Path) -> None:
    add_namespace(cluster, "set-back")
    add_pod(cluster, "set-back", "stays", "10.0.6.1")
    parts = ("kube-apiserver", "etcd")
    for part in parts:
        cluster.stop(part)
    store, copy = cluster.folder / "etcd", tmp_path / "copy"
    shutil.copytree(store, copy)
    cluster.start_etcd()
    cluster.start_api_server()
    with follow(cluster, tmp_path) as (_, agent):
        add_pod(cluster, "set-back", "goes", "10.0.6.2")
        agent.wait(lambda known: {uid("set-back", "stays"), uid("set-back", "goes")} <= known)
        for part in parts:
            cluster.stop(part)
        shutil.rmtree(store)
        shutil.copytree(copy, store)
        cluster.start_etcd()
        cluster.start_api_server()
        agent.wait(lambda known: uid("set-back", "goes") not in known)
        assert uid("set-back", "stays") in agent.known


@contextmanager
def overload(cluster: Kubernetes, namespace: str, token: str) -> Iterator[None]:
    """The API server has room for one request of the namespace's service account `web`, and it is taken (429)."""
    flow_control = {"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "metadata": {"name": namespace}}
    limited: Document = {"nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0}
    limited["limitResponse"] = {"type": "Reject"}
    level = {**flow_control, "kind": "PriorityLevelConfiguration", "spec": {"type": "Limited", "limited": limited}}
    subject = {"kind": "ServiceAccount", "serviceAccount": {"name": "web", "namespace": namespace}}
    resources = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": True, "namespaces": ["*"]}
    paths = {"verbs": ["*"], "nonResourceURLs": ["*"]}
    rule = {"subjects": [subject], "resourceRules": [resources], "nonResourceRules": [paths]}
    spec = {"priorityLevelConfiguration": {"name": namespace}, "matchingPrecedence": 2, "rules": [rule]}
    cluster.apply(level, {**flow_control, "kind": "FlowSchema", "spec": spec})
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with cluster.hold_request(token):  # one that began before the limit was known counts for nothing
            if is_refused(cluster, token):
                yield
                return
        assert time.monotonic() < deadline


def is_refused(cluster: Kubernetes, token: str) -> bool:
    try:
        cluster.request("GET", "/api/v1/nodes", token=token)
    except ApiError as error:
        return error.status == HTTPStatus.TOO_MANY_REQUESTS
    return False


def test_an_overloaded_api_server_is_asked_again_later(cluster: Kubernetes, tmp_path: Path) -> None:
    add_namespace(cluster, "busy")
    add_pod(cluster, "busy", "first", "10.0.4.1")
    token = allow_controller(cluster, "busy")
    cluster.write_kubeconfig(tmp_path / "kubeconfig", token)
    with ControllerProcess(tmp_path) as controller:
        with overload(cluster, "busy", token):
            controller.launch(AMBIT_CONFIG_DIR="", AMBIT_KUBECONFIG=str(tmp_path / "kubeconfig"))
            assert "429" in controller.wait_for_log("Kubernetes cannot be watched, what was read stays")
        cluster.delete("flowcontrol.apiserver.k8s.io/v1", "FlowSchema", "busy")
        controller.wait_until_ready()
        agent = Agent(controller)
        agent.wait(lambda known: uid("busy", "first") in known)
        agent.close()
        wait_for_metric(controller, "ambit_source_failing_watches", lambda count: count == 0)


def test_kinds_whose_definition_comes_later_are_read_and_refused_like_files(
    cluster: Kubernetes, tmp_path: Path
) -> None:
    add_namespace(cluster, "later")
    with follow(cluster, tmp_path) as (controller, agent):
        schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        version = {"name": "v1beta1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
        names = {"kind": "AuthorizationPolicy", "plural": "authorizationpolicies", "singular": "authorizationpolicy"}
        spec = {"group": POLICY_GROUP, "names": names, "scope": "Namespaced", "versions": [version]}
        kind = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
        cluster.apply({**kind, "metadata": {"name": f"authorizationpolicies.{POLICY_GROUP}"}, "spec": spec})
        cluster.wait_for_kind(f"{POLICY_GROUP}/v1beta1", "AuthorizationPolicy")
        deny: Document = {"apiVersion": f"{POLICY_GROUP}/v1beta1", "kind": "AuthorizationPolicy"}
        deny["metadata"] = {"name": "deny", "namespace": "later"}
        cluster.apply({**deny, "spec": {"action": "DENY", "rules": [{}]}})
        agent.wait(lambda known: "later/deny" in known)
        # What is invalid now serves on as it was.
        cluster.apply({**deny, "spec": {"action": "DENIED", "rules": [{}]}})
        line = controller.wait_for_log("configuration refused")
        assert "AuthorizationPolicy later/deny" in line
        assert "spec.action" in line
        late = Agent(controller)
        late.wait(lambda known: "later/deny" in known)
        late.close()
        # Its definition goes, and the object with it.
        cluster.delete(kind["apiVersion"], kind["kind"], f"authorizationpolicies.{POLICY_GROUP}")
        agent.wait(lambda known: "later/deny" not in known)
        wait_for_metric(controller, "ambit_source_failing_watches", lambda count: count == 0)


def add_ztunnel(cluster: Kubernetes, name: str = "ztunnel-1") -> str:
    """The token that kubelet mounts into the pod of a node's agent."""
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system"}})
    account = {"apiVersion": "v1", "kind": "ServiceAccount"}
    cluster.apply({**account, "metadata": {"name": "ztunnel", "namespace": "istio-system"}})
    cluster.apply(running_pod(name, "istio-system", NODE, "ztunnel"))
    pod = cluster.get("v1", "Pod", name, "istio-system")
    return cluster.create_token("istio-system", "ztunnel", "istio-ca", pod)


def refusal_of(controller: ControllerProcess, token: str, identity: str) -> grpc.StatusCode | None:
    """Why a certificate is refused to who has `token`; None when it is given."""
    csr = build_csr(ec.generate_private_key(ec.SECP256R1()), identity)
    with controller.connect() as channel:
        try:
            create_certificate(channel, token, csr, identity)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return None


def test_service_account_tokens_prove_the_node_of_their_pod(cluster: Kubernetes, tmp_path: Path) -> None:
    add_namespace(cluster, "tokens")
    add_pod(cluster, "tokens", "here", "10.0.5.1")
    other = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "other", "namespace": "tokens"}}
    cluster.apply(other, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-2"}})
    cluster.apply(running_pod("there", "tokens", "node-2", "other"))
    token = add_ztunnel(cluster)
    here, there = (f"spiffe://cluster.local/ns/tokens/sa/{name}" for name in ("web", "other"))
    with ControllerProcess(tmp_path) as controller:
        controller.start(AMBIT_CONFIG_DIR="", AMBIT_NODE_TOKENS="", AMBIT_KUBECONFIG=kubeconfig_of_controller(cluster))
        agent = Agent(controller, token)
        agent.wait(lambda known: uid("tokens", "here") in known)
        agent.close()
        assert refusal_of(controller, token, here) is None
        assert refusal_of(controller, token, there) is grpc.StatusCode.PERMISSION_DENIED
        denied = grpc.StatusCode.UNAUTHENTICATED
        pod = cluster.get("v1", "Pod", "here", "tokens")
        cases = {
            "another account's": cluster.create_token("tokens", "web", "istio-ca", pod),
            "bound to no pod": cluster.create_token("istio-system", "ztunnel", "istio-ca"),
            "for somebody else": cluster.create_token("istio-system", "ztunnel", "vault"),
            "nobody's": f"{token}x",
        }
        assert {name: refusal_of(controller, each, here) for name, each in cases.items()} == dict.fromkeys(
            cases, denied
        )
        gone = add_ztunnel(cluster, "ztunnel-gone")
        cluster.delete("v1", "Pod", "ztunnel-gone", "istio-system")
        assert refusal_of(controller, gone, here) is denied
        # Who is known already goes on while the API server is away; nobody else is let in, or told that he is wrong.
        unseen = add_ztunnel(cluster, "ztunnel-unseen")
        cluster.stop("kube-apiserver")
        assert refusal_of(controller, token, here) is None
        assert refusal_of(controller, unseen, here) is grpc.StatusCode.UNAVAILABLE
        cluster.start_api_server()
        assert refusal_of(controller, unseen, here) is None


def wait_for_root(cluster: Kubernetes, namespace: str, text: str) -> None:
    def look() -> bool:
        try:
            found: str = cluster.get("v1", "ConfigMap", "istio-ca-root-cert", namespace)["data"]["root-cert.pem"]
        except ApiError:
            return False
        return found == text

    assert wait_for(look, PATIENCE_SECONDS), namespace


def test_every_namespace_holds_the_roots_through_their_rotation(cluster: Kubernetes, tmp_path: Path) -> None:
    add_namespace(cluster, "roots")
    old, new = make_authority("old"), make_authority("new")
    folder = tmp_path / "cacerts"
    folder.mkdir()
    write_authority(folder, old, [old], [])
    with ControllerProcess(tmp_path) as controller:
        controller.start(
            AMBIT_CONFIG_DIR="", AMBIT_KUBECONFIG=kubeconfig_of_controller(cluster), AMBIT_CA_DIR=str(folder)
        )
        wait_for_root(cluster, "roots", (folder / "root-cert.pem").read_text())
        add_namespace(cluster, "roots-later")
        wait_for_root(cluster, "roots-later", (folder / "root-cert.pem").read_text())
        # What others keep in it stays theirs.
        note = {"name": "istio-ca-root-cert", "namespace": "roots", "annotations": {"note": "ours"}}
        cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": note})
        cluster.stop("kube-apiserver")
        write_authority(folder, old, [old, new], [])
        controller.wait_for_log("certificate authority replaced")
        controller.wait_for_log("root certificates cannot be written")
        cluster.start_api_server()
        for namespace in ("roots", "roots-later", "default"):
            wait_for_root(cluster, namespace, (folder / "root-cert.pem").read_text())
        metadata = cluster.get("v1", "ConfigMap", "istio-ca-root-cert", "roots")["metadata"]
        assert (metadata["labels"], metadata["annotations"]) == ({"istio.io/config": "true"}, {"note": "ours"})
        with pytest.raises(ApiError, match="404"):
            cluster.get("v1", "ConfigMap", "istio-ca-root-cert", "kube-public")


def test_a_controller_that_waits_for_its_api_server_can_be_ended(cluster: Kubernetes, tmp_path: Path) -> None:
    cluster.stop("kube-apiserver")
    try:
        with ControllerProcess(tmp_path) as controller:
            controller.launch(AMBIT_CONFIG_DIR="", AMBIT_KUBECONFIG=kubeconfig_of_controller(cluster))
            controller.wait_for_log("Kubernetes cannot be watched")
            assert controller.stop() == 0
    finally:
        cluster.start_api_server()


def test_credentials_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with ControllerProcess(tmp_path) as controller:
        status, log = controller.run_to_end(AMBIT_CONFIG_DIR="", AMBIT_KUBECONFIG=str(tmp_path / "none"))
        assert status != 0
        assert "correct AMBIT_KUBECONFIG" in log
