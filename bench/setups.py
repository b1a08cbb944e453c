"""The ways a client's bytes can take to a server, as manifests for the lab. Values, no effects.

    namespace   client on node-1 ─▶ "near" on node-1, or "far" on node-2
    plain       nothing in between
    ambient     enrolled: the nodes' ztunnels
    sidecar     an Envoy in each pod, as sidecars are (far only)
    haproxy     a HAProxy in each pod, which the client speaks to (far only)

The servers are the same programs everywhere: an echo, iperf3 and nginx.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ambit.lab.client import Source
from ambit.lab.control import Json
from bench.sidecar import SidecarFiles, sidecar_container

PROGRAMS = Path(__file__).with_name("programs")

ECHO_PORT = 7000
IPERF_PORT = 5201
HTTP_PORT = 8080

CLIENT = "client"
NEAR = "near"
FAR = "far"
PLAIN = "plain"
AMBIENT = "ambient"
SIDECAR = "sidecar"
HAPROXY = "haproxy"
NODES = ("node-1", "node-2")

Document = dict[str, Json]


@dataclass(frozen=True, slots=True)
class Setup:
    """A way from a client to a server: whose namespace, which server, and what is dialled if not its address."""

    title: str
    namespace: str
    server: str
    dialled: str | None = None


NO_MESH = Setup("no mesh, across nodes", PLAIN, FAR)
NO_MESH_SAME_NODE = Setup("no mesh, same node", PLAIN, NEAR)
AMBIENT_ACROSS = Setup("ambient, across nodes", AMBIENT, FAR)
AMBIENT_SAME_NODE = Setup("ambient, same node", AMBIENT, NEAR)
ENVOY_PAIR = Setup("Envoy pair, across nodes", SIDECAR, FAR)
HAPROXY_PAIR = Setup("HAProxy pair, across nodes", HAPROXY, FAR, "127.0.0.1")


def python_program(name: str, *arguments: str) -> tuple[str, ...]:
    """A program of bench/programs: the interpreter alone, nothing that is installed."""
    return (sys.executable, "-I", "-S", str(PROGRAMS / f"{name}.py"), *arguments)


def build_lab(name: str, ztunnel_environment: Mapping[str, str] | None = None) -> Document:
    """The two nodes."""
    environment: dict[str, Json] = dict(ztunnel_environment or {})
    return {
        "apiVersion": "ambit.dev/v1alpha1",
        "kind": "Lab",
        "metadata": {"name": name},
        "spec": {"nodes": list(NODES), "ztunnel": {"env": environment}},
    }


def build_namespace(name: str) -> Document:
    """A namespace; the ambient one is enrolled."""
    labels: dict[str, Json] = {"istio.io/dataplane-mode": "ambient"} if name == AMBIENT else {}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def build_pod(
    namespace: str, name: str, node: str, containers: Sequence[Document], labels: Mapping[str, str] | None = None
) -> Document:
    """A pod of these containers."""
    own: dict[str, Json] = dict(labels or {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": own},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": list(containers)},
    }


def build_service(namespace: str, name: str, port: int, target: int) -> Document:
    """A service of the pods that have its name as label `app`."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": port, "targetPort": target}]},
    }


def build_idle_container() -> Document:
    """A container that waits: loads are started beside it, in its pod."""
    return build_container("idle", ("sleep", "infinity"))


def build_echo_container() -> Document:
    """A server that echoes every byte."""
    return build_container("echo", python_program("echo_server", str(ECHO_PORT)), ECHO_PORT)


def build_server_containers(nginx_configuration: Path) -> list[Document]:
    """All three servers."""
    return [
        build_echo_container(),
        build_container("iperf3", ("iperf3", "--server", "--port", str(IPERF_PORT)), IPERF_PORT),
        build_container("nginx", ("nginx", "-c", str(nginx_configuration)), HTTP_PORT),
    ]


def build_paths(nginx_configuration: Path, sidecar: SidecarFiles) -> list[Document]:
    """Clients and servers of all set-ups."""
    documents: list[Document] = []
    for namespace in (PLAIN, AMBIENT, SIDECAR):
        beside: list[Document] = [sidecar_container(sidecar)] if namespace == SIDECAR else []
        servers = build_server_containers(nginx_configuration)
        documents.append(build_namespace(namespace))
        documents.append(build_pod(namespace, CLIENT, NODES[0], [build_idle_container(), *beside]))
        documents.append(build_pod(namespace, FAR, NODES[1], [*servers, *beside]))
        if namespace != SIDECAR:
            documents.append(build_pod(namespace, NEAR, NODES[0], servers))
    return documents


def as_source(documents: Sequence[Document]) -> Source:
    """The documents as a manifest (JSON is YAML)."""
    return Source("bench", "\n---\n".join(json.dumps(document) for document in documents))


def build_container(name: str, command: Sequence[str], port: int | None = None) -> Document:
    """A program of this machine, that listens on `port` or on none."""
    ports: list[Json] = [] if port is None else [{"containerPort": port}]
    return {"name": name, "command": list(command), "ports": ports}
