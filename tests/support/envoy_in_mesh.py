"""The real Envoy beside the pods of a chosen mesh, told what to do by the real controller at ROUTER_IPV4."""

import json
from collections.abc import Mapping
from pathlib import Path

from ambit.bootstrap import (
    ControllerAccess,
    GatewayProxy,
    IngressProxy,
    SidecarProxy,
    build_gateway_bootstrap,
    build_ingress_bootstrap,
    build_sidecar_bootstrap,
)
from ambit.demo.polling import wait_for
from mesh import ports
from tests.support.chosen_mesh import PATIENCE_SECONDS, ROUTER_IPV4, ChosenMesh, Pod
from tests.support.controller_process import ControllerProcess
from tests.support.envoy import find_envoy

CONTROLLER_PORT = 15012


def start_sidecar(mesh: ChosenMesh, place: Pod, controller: ControllerProcess) -> Path:
    """Run an Envoy in the pod; returns its log once it takes what the rules redirect."""
    proxy = SidecarProxy(place.namespace, place.name, "node-1")
    log = _start(mesh, place, build_sidecar_bootstrap(proxy, _find_access(mesh, controller)))

    def listens() -> bool:
        try:
            with place.connect("127.0.0.1", ports.OUTBOUND_CAPTURE_PORT):
                return True
        except OSError:
            return False

    assert wait_for(listens, PATIENCE_SECONDS), log.read_text()
    return log


def start_gateway_proxy(mesh: ChosenMesh, place: Pod, controller: ControllerProcess, gateway: str) -> Path:
    """Run an Envoy of a Gateway of the pod's namespace; returns its log. It may take a while to listen."""
    proxy = GatewayProxy(place.namespace, gateway, "node-1")
    return _start(mesh, place, build_gateway_bootstrap(proxy, _find_access(mesh, controller)))


def start_ingress(mesh: ChosenMesh, place: Pod, controller: ControllerProcess, labels: Mapping[str, str]) -> Path:
    """Run an Envoy of the ingress gateway with these labels; returns its log. It may take a while to listen."""
    proxy = IngressProxy(place.namespace, place.name, "node-1", labels)
    return _start(mesh, place, build_ingress_bootstrap(proxy, _find_access(mesh, controller)))


def _find_access(mesh: ChosenMesh, controller: ControllerProcess) -> ControllerAccess:
    token = mesh.folder / "envoy-token"
    token.write_text("token-1")
    return ControllerAccess(f"{ROUTER_IPV4}:{CONTROLLER_PORT}", controller.state / "root-cert.pem", token)


def _start(mesh: ChosenMesh, place: Pod, document: str) -> Path:
    bootstrap = mesh.folder / f"envoy-{place.name}.json"
    bootstrap.touch(mode=0o600)
    bootstrap.write_text(document)
    command = [find_envoy(), "-c", str(bootstrap), "--concurrency", "1", "--disable-hot-restart"]
    return mesh.run(place, *command, "--log-level", "warning", name="envoy")


def find_refusals(controller: ControllerProcess) -> list[str]:
    """What clients have refused of what they were told."""
    clients = json.loads(controller.fetch("/debug/state"))["clients"]
    return [each["last_error"] for client in clients for each in client["types"].values() if each["nacks"]]


def has_settled(controller: ControllerProcess, clients: int, routed: int) -> bool:
    """Whether so many clients know all that there is for them, so many of them routes too, and have answered."""
    found = json.loads(controller.fetch("/debug/state"))["clients"]
    told = [{name.rpartition(".")[2] for name in client["types"]} for client in found]
    states = [each for client in found for each in client["types"].values()]
    is_complete = sum("Listener" in each for each in told) == clients
    is_complete &= sum("RouteConfiguration" in each for each in told) == routed
    return is_complete and not any(each["in_flight"] or each["pending"] for each in states)
