"""An ingress gateway carried out by the real Envoy, with one server behind it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ambit.demo.polling import wait_for
from tests.support.controller_process import PATIENCE_SECONDS, ControllerProcess
from tests.support.envoy_proxy import Envoy, WebAnswer, ask, run_ingress
from tests.support.free_ports import find_free_port
from tests.support.texts import pod_text, service_text, text_of
from tests.support.web_backends import Backend, serve_web

ISTIO = "networking.istio.io/v1"
LABELS = {"istio": "ingressgateway", "app": "istio-ingressgateway"}


@dataclass(slots=True)
class World:
    """A controller, an Envoy with LABELS in istio-system, and the Service `web`, where all its requests lead."""

    controller: ControllerProcess
    envoy: Envoy
    port: int
    backend: Backend

    def ask(self, path: str = "/", host: str = "www.test", method: str = "GET", **headers: str) -> WebAnswer:
        return ask(self.port, path, host, method, **headers)

    def status(self, path: str = "/", **headers: str) -> int:
        """Of an answer; 0 where there is none."""
        try:
            return self.ask(path, **headers).status
        except OSError:
            return 0

    def eventually(self, status: int, path: str = "/", **headers: str) -> None:
        """Ask until the answer has this status; fails when it never has."""
        found = wait_for(lambda: self.status(path, **headers) == status, PATIENCE_SECONDS)
        assert found, f"{self.controller.log[-5:]} {self.envoy.log_file.read_text()}"

    def apply(self, name: str, version: str, kind: str, spec: str, namespace: str = "istio-system") -> None:
        """Let the object of that kind and name have this spec."""
        text = text_of(version, kind, name, f"spec: {{{spec}}}")
        self.controller.write(f"{name}-{kind}.yaml", text.replace("namespace: demo}", f"namespace: {namespace}}}", 1))


@contextmanager
def run_ingress_world(folder: Path) -> Iterator[World]:
    """All of it; nothing may be refused."""
    with ExitStack() as stack:
        backend = stack.enter_context(serve_web("v1", "127.0.1.1"))
        controller = ControllerProcess(folder)
        port = find_free_port()
        service = service_text("web", "app: web", f"port: 80, targetPort: {backend.port}")
        server = f"{{port: {{number: {port}, name: http, protocol: HTTP}}, hosts: ['*']}}"
        gateway = f"spec: {{selector: {{istio: ingressgateway}}, servers: [{server}]}}"
        routes = "spec: {hosts: ['*'], gateways: [web], http: [{route: [{destination: {host: web}}]}]}"
        controller.write(
            "mesh.yaml",
            service
            + pod_text("v1", backend.address)
            + text_of(ISTIO, "Gateway", "web", gateway)
            + text_of(ISTIO, "VirtualService", "web", routes),
        )
        controller.start()
        stack.callback(controller.stop)
        envoy = stack.enter_context(run_ingress(controller, folder, LABELS))
        made = World(controller, envoy, port, backend)
        made.eventually(200)
        yield made
        assert envoy.refusals() == []
