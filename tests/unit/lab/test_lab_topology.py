import pytest

from ambit.lab import topology
from ambit.lab.kinds import Lab, LabSpec, Pod
from ambit.lab.manifests import InvalidManifestsError, Manifest, ObjectKey, parse_manifests
from ambit.lab.planning import Verb, plan_changes
from ambit.lab.pods import expand_references, restart_rule
from ambit.lab.sources import Source

NODES = {"node-1": 0, "node-2": 0}

IDLE = "containers: [{name: c, command: [sleep], args: [infinity]}]"


def manifests(text: str) -> list[Manifest]:
    return parse_manifests([Source("a.yaml", text)])


def pod(spec: str, name: str = "p") -> Manifest:
    return manifests(f"{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{{spec}}}}}")[0]


def lab(spec: str) -> Manifest:
    return manifests(f"{{apiVersion: ambit.dev/v1alpha1, kind: Lab, metadata: {{name: l}}, spec: {spec}}}")[0]


def pod_value(spec: str) -> Pod:
    value = pod(spec).value
    assert isinstance(value, Pod)
    return value


def test_pod_is_read_with_kubernetes_defaults() -> None:
    value = pod_value(IDLE)
    spec = value.spec
    assert (spec.node_name, value.service_account, spec.restart_policy) == (None, "default", "Always")
    assert spec.termination_grace_period_seconds == 30
    assert (spec.containers[0].program, spec.containers[0].working_dir) == (("sleep", "infinity"), "/")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("containers: []", r"spec.containers: "),
        ("containers: [{name: c}]", r"spec.containers\[0\].command: must be given in a lab"),
        ("containers: [{name: c, command: sleep}]", r"spec.containers\[0\].command: "),
        ("containers: [{name: c, command: [sleep, 1]}]", r"command\[1\]: must be text"),
        ("containers: [{name: ../c, command: [a]}]", r"spec.containers\[0\].name"),
        ("containers: [{name: c, command: [a]}, {name: c, command: [b]}]", r"spec.containers: must have names"),
        ("hostNetwork: true, " + IDLE, r"spec.hostNetwork: is not supported in a lab"),
        ("volumes: [{}], " + IDLE, r"spec.volumes: is not supported in a lab"),
        ("initContainers: [{}], " + IDLE, r"spec.initContainers: is not supported in a lab"),
        ("restartPolicy: Sometimes, " + IDLE, r"spec.restartPolicy: "),
        ("containers: [{name: c, command: [a], ports: [{containerPort: 70000}]}]", r"\[0\].containerPort: "),
        ("containers: [{name: c, command: [a], ports: [{}]}]", r"ports\[0\].containerPort: required"),
        ("containers: [{name: c, command: [a], env: [{name: A, valueFrom: {secretKeyRef: {}}}]}]", r"secretKeyRef"),
    ],
    ids=[
        "no-containers", "no-command", "command-text", "number-in-command", "name-with-path", "same-name",
        "host-network", "volumes", "init", "policy", "port-too-high", "port-missing", "secret",
    ],
)  # fmt: skip
def test_pod_that_a_lab_cannot_run_is_refused(spec: str, message: str) -> None:
    with pytest.raises(InvalidManifestsError, match=r"(?s)^a.yaml:1:\d+: Pod default/p: .*" + message):
        pod(spec)


def test_lab_names_nodes_as_words_or_with_labels() -> None:
    value = lab("{nodes: [a, {name: b, labels: {z: '1'}}]}").value
    assert isinstance(value, Lab)
    assert [(node.name, node.labels) for node in value.spec.nodes] == [("a", {}), ("b", {"z": "1"})]
    assert value.spec.mtu == 1500


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{nodes: [a, a]}", r"spec.nodes: names node a twice"),
        ("{nodes: [A_]}", r"spec.nodes\[0\]"),
        ("{nodes: [1]}", r"spec.nodes\[0\]"),
        ("{nods: [a]}", r"spec.nods: unknown field"),
        ("{mtu: 100}", r"spec.mtu: "),
    ],
    ids=["twice", "name", "number", "unknown-field", "mtu"],
)
def test_wrong_lab_is_refused(spec: str, message: str) -> None:
    with pytest.raises(InvalidManifestsError, match=message):
        lab(spec)


def test_nodes_come_from_pods_when_no_lab_names_them() -> None:
    pods = [pod_value("nodeName: b, " + IDLE), pod_value("nodeName: a, " + IDLE), pod_value(IDLE)]
    assert [node.name for node in topology.choose_nodes(LabSpec(), pods)] == ["a", "b"]
    assert [node.name for node in topology.choose_nodes(LabSpec(), [])] == ["node-1"]


def test_pods_without_a_node_are_spread() -> None:
    changes = plan_changes({}, [pod(IDLE, name) for name in ("a", "b", "c", "d")], NODES)
    assert [change.node for change in changes if change.node] == ["node-1", "node-2", "node-1", "node-2"]


def test_pod_on_an_unknown_node_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidManifestsError, match=r"there is no node 'x'; the lab's nodes: node-1, node-2"):
        plan_changes({}, [pod("nodeName: x, " + IDLE)], NODES)


def test_policies_are_applied_before_the_pods_that_came_with_them() -> None:
    (policy,) = manifests("{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: deny}}")
    (namespace,) = manifests("{apiVersion: v1, kind: Namespace, metadata: {name: default}}")
    kinds = [change.manifest.key.kind for change in plan_changes({}, [pod(IDLE), policy, namespace], NODES)]
    assert kinds == ["ServiceAccount", "Namespace", "AuthorizationPolicy", "Pod"]


def test_what_objects_need_is_implied_once() -> None:
    changes = plan_changes({}, [pod(IDLE, "a"), pod("serviceAccountName: bot, " + IDLE, "b")], NODES)
    implied = [str(change.manifest.key) for change in changes if change.is_implied]
    assert implied == ["Namespace default", "ServiceAccount default/default", "ServiceAccount default/bot"]


def test_same_manifest_again_is_unchanged() -> None:
    present = {manifest.key: manifest for manifest in [pod(IDLE)]}
    changes = plan_changes(present, [pod(IDLE)], NODES)
    assert [change.verb for change in changes if not change.is_implied] == [Verb.UNCHANGED]


def test_cluster_ip_cannot_change() -> None:
    def service(ip: str) -> Manifest:
        return manifests(f"{{apiVersion: v1, kind: Service, metadata: {{name: s}}, spec: {{clusterIP: {ip}}}}}")[0]

    present = service("10.96.0.20")
    with pytest.raises(InvalidManifestsError, match=r"spec.clusterIP: cannot change"):
        plan_changes({present.key: present}, [service("10.96.0.21")], NODES)


@pytest.mark.parametrize(
    ("pod_labels", "namespace_labels", "wanted"),
    [({}, {}, False), ({}, {"ambient"}, True), ({"none"}, {"ambient"}, False), ({"ambient"}, {}, True)],
    ids=["nothing", "namespace", "opted-out", "pod"],
)
def test_labels_say_whether_a_pod_waits_for_the_mesh(
    pod_labels: set[str], namespace_labels: set[str], wanted: bool
) -> None:
    label = "istio.io/dataplane-mode"
    assert (
        topology.wants_mesh(
            dict.fromkeys([label], *pod_labels) if pod_labels else {},
            dict.fromkeys([label], *namespace_labels) if namespace_labels else {},
        )
        is wanted
    )


def test_empty_selector_selects_nothing() -> None:
    assert not topology.selects({}, {"app": "x"})
    assert topology.selects({"app": "x"}, {"app": "x", "v": "1"})
    assert not topology.selects({"app": "x", "v": "2"}, {"app": "x", "v": "1"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [("$(A)-$(B)", "1-$(B)"), ("$$(A)", "$(A)"), ("$A", "$A"), ("$(A", "$(A")],
    ids=["known-and-unknown", "escaped", "shell", "open"],
)
def test_references_are_expanded_as_in_kubernetes(text: str, expected: str) -> None:
    assert expand_references(text, {"A": "1"}) == expected


@pytest.mark.parametrize(
    ("policy", "after_success", "after_failure"),
    [("Always", True, True), ("OnFailure", False, True), ("Never", False, False)],
)
def test_restart_policy_decides_by_exit_status(policy: str, after_success: bool, after_failure: bool) -> None:
    rule = restart_rule(policy)
    assert (rule(0), rule(1)) == (after_success, after_failure)


def test_key_names_namespace_and_name() -> None:
    assert str(ObjectKey("", "Pod", "a", "b")) == "Pod a/b"
