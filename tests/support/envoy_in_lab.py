"""The real Envoy in a pod of a lab, told what to do by the lab's controller."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ambit.bootstrap import ControllerAccess, GatewayProxy, build_gateway_bootstrap
from ambit.lab import addresses
from mesh import ports
from tests.support.envoy import find_envoy
from tests.support.mesh import Mesh


@contextmanager
def running_gateway_proxy(mesh: Mesh, place: str, gateway: str, node: int) -> Iterator[Path]:
    """An Envoy of a Gateway of the pod's namespace, in `NAMESPACE/POD` on that node, while the block runs; its log."""
    namespace, pod = place.split("/")
    folder = mesh.lab.folder
    access = ControllerAccess(
        f"{addresses.controller_addresses()[0]}:{ports.CONTROLLER_PORT}",
        folder.mesh.root_certificate,
        folder.node(node).token,
    )
    proxy = GatewayProxy(namespace, gateway, f"node-{node}", pod)
    bootstrap, log = folder.path / f"{pod}.json", folder.logs / f"envoy-{pod}.log"
    bootstrap.write_text(build_gateway_bootstrap(proxy, access))
    command = [find_envoy(), "-c", str(bootstrap), "--concurrency", "1", "--disable-hot-restart"]
    with open(os.devnull) as nothing, log.open("wb") as output:
        streams = (nothing.fileno(), output.fileno(), output.fileno())
        with mesh.lab.start(pod, *command, "--log-level", "warning", namespace=namespace, streams=streams):
            yield log
