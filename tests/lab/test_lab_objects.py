"""Applying, changing and deleting objects of a running lab."""

import json
from collections.abc import Iterator

import pytest

from ambit.lab.client import Lab
from ambit.lab.settings import LabSettings
from ambit.lab.sources import Source
from mesh.kit.errors import AmbitError
from tests.support import labs
from tests.support.labs import as_source, eventually

POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: extra, labels: {{app: {app}}}}}
spec:
  serviceAccountName: robot
  restartPolicy: {policy}
  containers:
  - name: main
    command: [sh, -c]
    args: ["{script}"]
    workingDir: /tmp
    env:
    - {{name: GREETING, value: hello}}
    - {{name: WHERE, valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}}}
"""

SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: extra, namespace: extra}}
spec: {{selector: {{app: {app}}}, ports: [{{name: http, port: 80}}]}}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with labs.run_folder() as settings, Lab.up([as_source(labs.TWO_NODES)], settings=settings) as lab:
        yield lab


def pod(name: str, script: str = "sleep infinity", policy: str = "Always", app: str = "x") -> Source:
    return as_source(POD.format(name=name, script=script, policy=policy, app=app))


def test_applied_pod_runs_and_deleted_pod_is_gone(lab: Lab) -> None:
    applied = lab.apply(pod("one"))
    assert applied.changes == [
        "Namespace extra created",
        "ServiceAccount extra/default created",
        "ServiceAccount extra/robot created",
        "Pod extra/one created",
    ]
    assert lab.status().pod("one", "extra").ready
    namespace = lab.exec("one", "readlink", "/proc/self/ns/net", namespace="extra").stdout
    escaped = lab.exec("one", "sh", "-c", "setsid sleep 4003 >/dev/null 2>&1 &", namespace="extra")
    assert escaped.returncode == 0
    assert lab.delete(pod("one")) == ["Pod extra/one"]
    left = {f"net:[{inode}]\n" for inode in labs.footprint(lab).namespaces}
    assert namespace not in left, "what had left its session was ended too"
    assert not any(one.name == "one" for one in lab.status().pods)
    assert not (lab.folder.mesh.objects / "pod__extra_one.json").exists()


def test_controller_is_shown_pods_as_kubernetes_shows_them(lab: Lab) -> None:
    lab.apply(pod("shown"))
    found = json.loads((lab.folder.mesh.objects / "pod__extra_shown.json").read_text())
    status = lab.status().pod("shown", "extra")
    assert found["spec"]["nodeName"] == status.node
    assert found["spec"]["serviceAccountName"] == "robot"
    assert found["status"]["podIPs"] == [{"ip": address} for address in status.addresses]
    assert found["status"]["conditions"] == [{"type": "Ready", "status": "True"}]
    lab.delete(pod("shown"))


def test_container_has_its_environment_arguments_and_folder(lab: Lab) -> None:
    lab.apply(pod("told", "echo $(GREETING) from $WHERE at $PWD", policy="Never"))
    assert lab.status().pod("told", "extra").phase == "Succeeded"
    assert lab.logs("told", "extra").startswith(f"hello from {lab.status().pod('told', 'extra').node} at /tmp\n")
    lab.delete(pod("told"))


@pytest.mark.parametrize(
    ("policy", "restarts"), [("Always", True), ("OnFailure", True), ("Never", False)], ids=lambda value: str(value)
)
def test_failing_container_is_restarted_by_its_policy(lab: Lab, policy: str, restarts: bool) -> None:
    lab.apply(pod("fails", "exit 3", policy=policy), wait=False)
    if restarts:
        assert eventually(lambda: lab.status().pod("fails", "extra").restarts >= 2)
    else:
        assert eventually(lambda: lab.status().pod("fails", "extra").phase == "Failed")
    assert "exited with status 3" in lab.status().pod("fails", "extra").message
    lab.delete(pod("fails"))


def test_service_keeps_its_addresses_when_it_changes(lab: Lab) -> None:
    lab.apply(as_source(SERVICE.format(app="x")), pod("behind", app="y"))
    before = lab.status().service("extra", "extra")
    assert before.endpoints == 0
    assert lab.apply(as_source(SERVICE.format(app="y"))).changes == ["Service extra/extra configured"]
    after = lab.status().service("extra", "extra")
    assert (after.addresses, after.endpoints) == (before.addresses, 1)
    lab.delete_object("namespace", "extra")
    assert not any(service.name == "extra" for service in lab.status().services)


def test_same_again_changes_nothing(lab: Lab) -> None:
    assert {change.rsplit(" ", 1)[1] for change in lab.apply(as_source(labs.TWO_NODES)).changes} == {"unchanged"}


def test_other_nodes_are_refused(lab: Lab) -> None:
    with pytest.raises(AmbitError, match="a lab's nodes are fixed when it goes up"):
        lab.apply(as_source(labs.TWO_NODES.replace("nodes: [node-1,", "nodes: [node-3,")))


BAD = """
apiVersion: v1
kind: Pod
metadata: {name: bad}
spec: {containers: [{name: c, command: [a]}], volumes: [{}]}
"""


def test_one_invalid_object_refuses_all(lab: Lab) -> None:
    with pytest.raises(AmbitError, match=r"bad.yaml:5:\d+: Pod default/bad: spec.volumes: is not supported in a lab"):
        lab.apply(pod("good"), as_source(BAD, "bad.yaml"))
    assert not any(one.name == "good" for one in lab.status().pods)


def test_changed_spec_of_a_pod_is_refused_with_the_next_step(lab: Lab) -> None:
    lab.apply(pod("fixed"))
    with pytest.raises(AmbitError, match="a pod's spec cannot change; `ambit lab delete pod fixed` first"):
        lab.apply(pod("fixed", "sleep 1"))
    assert lab.apply(pod("fixed", app="z")).changes == ["Pod extra/fixed configured"]
    lab.delete(pod("fixed"))


def test_deleting_what_is_not_there_is_refused(lab: Lab) -> None:
    with pytest.raises(AmbitError, match="there is nothing called 'ghost' of kind pods in namespace 'default'"):
        lab.delete_object("pods", "ghost")


def test_settings_of_the_lab_reach_its_ztunnels(settings: LabSettings) -> None:
    spoken = """
apiVersion: ambit.dev/v1alpha1
kind: Lab
metadata: {name: spoken}
spec: {nodes: [node-1], ztunnel: {env: {LOG_FORMAT: json}}}
"""
    with Lab.up([labs.as_source(spoken)], settings=settings) as lab:
        # Its threads begin side by side: what they say comes in any order.
        messages = [json.loads(line)["message"] for line in lab.logs("ztunnel/node-1").splitlines()]
        assert "started" in messages
