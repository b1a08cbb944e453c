"""The controller on a real Kubernetes API server: what is written there is what agents are told, whatever happens."""

import base64
import json
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.sources.kubernetes import PAGE_OBJECTS
from tests.support.controller_process import (
    ADDRESS,
    AUTHORIZATION,
    PATIENCE_SECONDS,
    ControllerProcess,
    DeltaStream,
)
from tests.support.kubernetes import ETCD_PORT, Document, Kubernetes, kubernetes, running_pod, running_status

NODE = "node-1"
POLICY_GROUP = "security.istio.io"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Kubernetes]:
    with kubernetes() as started:
        started.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
        yield started


class Agent:
    """Everything that a node's agent has been told, by resource name."""

    def __init__(self, controller: ControllerProcess) -> None:
        self._channel = controller.connect()
        self._stream = DeltaStream(self._channel, "token-1")
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
def follow(
    cluster: Kubernetes, root: Path, kubeconfig: Path | None = None
) -> Iterator[tuple[ControllerProcess, Agent]]:
    with ControllerProcess(root) as controller:
        controller.start(AMBIT_CONFIG_DIR="", AMBIT_KUBECONFIG=str(kubeconfig or cluster.kubeconfig))
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
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_wanted(value := read_metrics(controller).get(name, 0)):
        assert time.monotonic() < deadline, (name, value, controller.log)
        time.sleep(0.05)


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
        controller.start(AMBIT_CONFIG_DIR="", AMBIT_KUBECONFIG=str(cluster.kubeconfig))
        assert read_metrics(controller)['ambit_config_objects{kind="ServiceAccount"}'] >= count
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


def test_an_overloaded_api_server_is_asked_again_later(cluster: Kubernetes, tmp_path: Path) -> None:
    add_namespace(cluster, "busy")
    add_pod(cluster, "busy", "first", "10.0.4.1")
    kubeconfig = tmp_path / "kubeconfig"
    cluster.write_kubeconfig(kubeconfig, cluster.create_token("busy", "web", "https://kubernetes.default.svc"))
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "busy"}}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view-all"}
    subjects = [{"kind": "ServiceAccount", "name": "web", "namespace": "busy"}]
    rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]
    cluster.apply({**role, "kind": "ClusterRole", "metadata": {"name": "view-all"}, "rules": rules})
    cluster.apply({**role, "roleRef": reference, "subjects": subjects})
    with follow(cluster, tmp_path, kubeconfig) as (controller, agent):
        agent.wait(lambda known: uid("busy", "first") in known)
        # From now on whatever the controller asks is refused with 429; the watches that stand end with the server.
        level = {"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration"}
        limited: Document = {"nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0}
        limited["limitResponse"] = {"type": "Reject"}
        spec: Document = {"type": "Limited", "limited": limited}
        cluster.apply({**level, "metadata": {"name": "nothing"}, "spec": spec})
        subject = {"kind": "ServiceAccount", "serviceAccount": {"name": "web", "namespace": "busy"}}
        everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": True, "namespaces": ["*"]}
        paths = {"verbs": ["*"], "nonResourceURLs": ["*"]}
        rule = {"subjects": [subject], "resourceRules": [everything], "nonResourceRules": [paths]}
        flow = {"priorityLevelConfiguration": {"name": "nothing"}, "matchingPrecedence": 2, "rules": [rule]}
        cluster.apply({**level, "kind": "FlowSchema", "metadata": {"name": "nothing"}, "spec": flow})
        cluster.stop("kube-apiserver")
        cluster.start_api_server()
        add_pod(cluster, "busy", "second", "10.0.4.2")
        wait_for_metric(controller, "ambit_source_failing_watches", lambda count: count > 0)
        cluster.delete(level["apiVersion"], "FlowSchema", "nothing")
        agent.wait(lambda known: {uid("busy", "first"), uid("busy", "second")} <= known)
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
        cluster.delete(f"{POLICY_GROUP}/v1beta1", "AuthorizationPolicy", "deny", "later")
        agent.wait(lambda known: "later/deny" not in known)


def test_credentials_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with ControllerProcess(tmp_path) as controller:
        status, log = controller.run_to_end(AMBIT_CONFIG_DIR="", AMBIT_KUBECONFIG=str(tmp_path / "none"))
        assert status != 0
        assert "correct AMBIT_KUBECONFIG" in log
