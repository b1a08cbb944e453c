"""How the mesh's own processes are started: their commands, environments, files and credentials."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ambit.lab import addresses
from ambit.lab.kernel import NetworkNamespace
from ambit.lab.processes import RunSpec
from controller.authority.token_file import mint_token

CONTROLLER_PORT = 15012
CONTROLLER_ADMIN_PORT = 15014
ZTUNNEL_READINESS_PORT = 15021
"""Istio's ports (facts of ztunnel and istiod)."""

MESH_NAMESPACE = "istio-system"
CLUSTER = "Kubernetes"
"""Istio's default name for a cluster, which ztunnel and controller both assume."""


@dataclass(frozen=True, slots=True)
class NodeFiles:
    """Where the processes of one node meet: sockets and credentials."""

    folder: Path

    @property
    def agent_socket(self) -> Path:
        return self.folder / "agent.sock"

    @property
    def ztunnel_socket(self) -> Path:
        return self.folder / "zds.sock"

    @property
    def token(self) -> Path:
        return self.folder / "token"


@dataclass(frozen=True, slots=True)
class MeshFolders:
    """The lab's folders that processes work in."""

    objects: Path
    controller_state: Path
    node_tokens: Path
    resolver: Path
    logs: Path

    @property
    def root_certificate(self) -> Path:
        return self.controller_state / "root-cert.pem"

    @property
    def revocations(self) -> Path:
        return self.controller_state / "ca-crl.pem"


def create_node_token(files: NodeFiles, name: str) -> str:
    """Write the node's random token (0600) and return the controller's line for it: name and SHA-256."""
    secret, token = mint_token(name)
    write_private_file(files.token, secret)
    return f"{token.line}\n"


def write_private_file(path: Path, text: str) -> None:
    """Write a file that only its owner can read, from its first moment on."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def build_controller(folders: MeshFolders, namespace: NetworkNamespace, inherited: Mapping[str, str]) -> RunSpec:
    """The lab's one controller, in the supervisor's namespace, reached over the underlay."""
    own = addresses.controller_addresses()
    environment = {
        **inherited,
        "AMBIT_CONFIG_DIR": str(folders.objects),
        "AMBIT_STATE_DIR": str(folders.controller_state),
        "AMBIT_NODE_TOKENS": str(folders.node_tokens),
        "AMBIT_LISTEN": ",".join(_with_port(address, CONTROLLER_PORT) for address in own),
        "AMBIT_SERVING_NAMES": ",".join(str(address) for address in own),
        "AMBIT_ADMIN_LISTEN": f"127.0.0.1:{CONTROLLER_ADMIN_PORT}",
        "AMBIT_CLUSTER_ID": CLUSTER,
        "AMBIT_TRUST_DOMAIN": "cluster.local",
        "AMBIT_ROOT_NAMESPACE": MESH_NAMESPACE,
    }
    return RunSpec("controller", _python("controller"), environment, namespace, folders.logs / "controller.log")


def build_agent(
    node: str, files: NodeFiles, folders: MeshFolders, namespace: NetworkNamespace, inherited: Mapping[str, str]
) -> RunSpec:
    """A node's enrolment agent."""
    environment = {
        **inherited,
        "NODE_NAME": node,
        "ZTUNNEL_UDS_ADDRESS": str(files.ztunnel_socket),
        "AMBIT_AGENT_SOCKET": str(files.agent_socket),
        "AMBIENT_IPV6": "true",
    }
    return RunSpec(f"cni/{node}", _python("cni", "agent"), environment, namespace, folders.logs / f"cni_{node}.log")


def build_ztunnel(
    node: str, number: int, files: NodeFiles, folders: MeshFolders, namespace: NetworkNamespace,
    inherited: Mapping[str, str],
) -> RunSpec:  # fmt: skip
    """A node's ztunnel. `number` is the node's, from which its addresses follow."""
    controller = f"https://{_with_port(addresses.controller_addresses()[0], CONTROLLER_PORT)}"
    environment = {
        "CRL_PATH": str(folders.revocations),
        **inherited,
        "XDS_ADDRESS": controller,
        "CA_ADDRESS": controller,
        "XDS_ROOT_CA": str(folders.root_certificate),
        "CA_ROOT_CA": str(folders.root_certificate),
        "AUTH_TOKEN": str(files.token),
        "NODE_NAME": node,
        "CLUSTER_ID": CLUSTER,
        "INPOD_UDS": str(files.ztunnel_socket),
        "DNS_RESOLV_CONF": str(folders.resolver),
        "POD_NAME": f"ztunnel-{node}",
        "POD_NAMESPACE": MESH_NAMESPACE,
        "INSTANCE_IP": str(addresses.node_underlay_addresses(number)[0]),
    }
    name = f"ztunnel/{node}"
    return RunSpec(name, _python("ztunnel"), environment, namespace, folders.logs / f"ztunnel_{node}.log")


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    # -P: the working directory must not decide what is imported.
    return (sys.executable, "-P", "-m", module, *arguments)


def _with_port(address: addresses.Address, port: int) -> str:
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"
