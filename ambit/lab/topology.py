"""Decisions about a lab's shape: which nodes it has, where pods run, what selects and enrols them. No effects."""

from collections.abc import Iterable, Mapping

from ambit.lab.fields import InvalidFieldError
from ambit.lab.kinds import LabNode, LabSpec, Pod


def choose_nodes(spec: LabSpec, pods: Iterable[Pod]) -> tuple[LabNode, ...]:
    """The lab's nodes: as the Lab object says, else those that pods name, else one called node-1."""
    if spec.nodes:
        return tuple(spec.nodes)
    named = sorted({pod.spec.node_name for pod in pods if pod.spec.node_name})
    return tuple(LabNode(name=name) for name in named or ["node-1"])


def choose_node(pod: Pod, pods_by_node: Mapping[str, int]) -> str:
    """The node a pod runs on: the one it names, else that with the fewest pods.

    Raises InvalidFieldError when there is no such node.
    """
    name = pod.spec.node_name
    if not name:
        return min(pods_by_node, key=lambda node: pods_by_node[node])
    if name not in pods_by_node:
        nodes = ", ".join(pods_by_node)
        raise InvalidFieldError("spec.nodeName", f"there is no node {name!r}; the lab's nodes: {nodes}")
    return name


def selects(selector: Mapping[str, str] | None, labels: Mapping[str, str]) -> bool:
    """Whether a service's selector matches a pod's labels; an empty selector matches no pod."""
    return bool(selector) and all(labels.get(key) == value for key, value in (selector or {}).items())


def wants_mesh(pod_labels: Mapping[str, str], namespace_labels: Mapping[str, str]) -> bool:
    """Whether labels ask for enrolment. Only decides whether the pod must wait for the agent, who decides the rest."""
    label = "istio.io/dataplane-mode"
    return pod_labels.get(label, namespace_labels.get(label)) == "ambient"
