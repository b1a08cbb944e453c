"""A Gateway carried out by the real Envoy, with two servers behind it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ambit.demo.polling import wait_for
from tests.support.controller_process import PATIENCE_SECONDS, ControllerProcess
from tests.support.envoy_proxy import Envoy, WebAnswer, ask, run_gateway
from tests.support.free_ports import find_free_port
from tests.support.texts import pod_text, service_text, text_of
from tests.support.web_backends import Backend, serve_web

GATEWAY_API, ISTIO = "gateway.networking.k8s.io/v1", "networking.istio.io/v1"


@dataclass(slots=True)
class World:
    """A controller, an Envoy of the Gateway `web`, and two servers: each has a Service, and `both` has both."""

    controller: ControllerProcess
    envoy: Envoy
    port: int
    v1: Backend
    v2: Backend

    def route(self, *rules: str, hostnames: str = "") -> None:
        """Let the Gateway's one route have these rules."""
        self.controller.write("route.yaml", route_text(*rules, hostnames=hostnames))

    def ask(self, path: str = "/", host: str = "www.test", method: str = "GET", **headers: str) -> WebAnswer:
        return ask(self.port, path, host, method, **headers)

    def serves(self) -> bool:
        """Whether it answers at all, which takes a moment at the start."""
        try:
            return self.ask().server == "v1"
        except OSError:
            return False

    def ask_until(self, server: str, path: str = "/") -> None:
        """Ask until `server` answers; fails when it never does."""
        assert wait_for(lambda: self.ask(path).server == server, PATIENCE_SECONDS), self.envoy.log_file.read_text()


def gateway_text(port: int) -> str:
    listeners = f"[{{name: http, port: {port}, protocol: HTTP}}]"
    return text_of(GATEWAY_API, "Gateway", "web", f"spec: {{gatewayClassName: ambit, listeners: {listeners}}}")


def route_text(*rules: str, hostnames: str = "") -> str:
    spec = f"{{parentRefs: [{{name: web}}], hostnames: [{hostnames}], rules: [{', '.join(rules)}]}}"
    return text_of(GATEWAY_API, "HTTPRoute", "web", f"spec: {spec}")


def mesh_text(port: int, v1: Backend, v2: Backend, *, is_v1_ready: bool = True) -> str:
    """The Gateway, both pods, a Service for each and one for both."""
    target = f"port: 80, targetPort: {v1.port}"
    services = [service_text(name, f"version: {name}", target) for name in ("v1", "v2")]
    pods = [pod_text("v1", v1.address, is_v1_ready), pod_text("v2", v2.address)]
    return "".join([*services, service_text("both", "app: web", target), *pods, gateway_text(port)])


def to(name: str, weight: int = 1) -> str:
    return f"{{name: {name}, port: 80, weight: {weight}}}"


@contextmanager
def run_world(folder: Path, **settings: str) -> Iterator[World]:
    """All of it, with settings of the controller; the Gateway's one route leads to v1, and nothing may be refused."""
    with ExitStack() as stack:
        v1 = stack.enter_context(serve_web("v1", "127.0.1.1"))
        v2 = stack.enter_context(serve_web("v2", "127.0.1.2", v1.port))
        controller = ControllerProcess(folder)
        port = find_free_port()
        controller.write("mesh.yaml", mesh_text(port, v1, v2))
        controller.write("route.yaml", route_text(f"{{backendRefs: [{to('v1')}]}}"))
        controller.start(**settings)
        stack.callback(controller.stop)
        envoy = stack.enter_context(run_gateway(controller, folder, "web"))
        made = World(controller, envoy, port, v1, v2)
        assert wait_for(made.serves, PATIENCE_SECONDS), envoy.log_file.read_text()
        yield made
        assert envoy.refusals() == []
