"""A gateway in a pod of the mesh: what comes from outside goes on as the gateway's, through ztunnels and mutual TLS."""

import json
from functools import partial

from ambit.demo.polling import wait_for
from tests.support.chosen_mesh import PATIENCE_SECONDS, ROUTER_IPV4, chosen_mesh
from tests.support.controller_process import ControllerProcess
from tests.support.envoy_in_mesh import CONTROLLER_PORT, start_gateway_proxy
from tests.support.isolation import isolated
from tests.support.texts import pod_text, route_of_own_connections_text, text_of
from tests.support.web_backends import serve_web

GATEWAY_API = "gateway.networking.k8s.io/v1"
PORT = 8080
OBJECTS = route_of_own_connections_text(PORT) + text_of(
    GATEWAY_API,
    "Gateway",
    "web",
    f"spec: {{gatewayClassName: ambit, listeners: [{{name: http, port: {PORT}, protocol: HTTP}}]}}",
)


@isolated
def test_requests_from_outside_reach_pods_with_the_gateways_identity() -> None:
    with chosen_mesh() as mesh:
        gateway, server = mesh.add_pod("gateway", "demo"), mesh.add_pod("server", "demo", node="node-2")
        outside = mesh.add_host("outside")
        mesh.tell(gateway.workload(), server.workload())
        mesh.start_ztunnel()
        far = mesh.start_ztunnel("node-2")
        server.run(partial(mesh.stack.enter_context, serve_web("server", server.address, PORT)))
        root = mesh.folder / "controller"
        root.mkdir()
        with ControllerProcess(root) as controller:
            controller.write("mesh.yaml", OBJECTS + pod_text("server", server.address))
            controller.start(AMBIT_LISTEN=f"{ROUTER_IPV4}:{CONTROLLER_PORT}")
            log = start_gateway_proxy(mesh, gateway, controller, "web")
            command = ["curl", "--silent", "--max-time", "5", "--write-out", "\n%{http_code}"]

            def ask() -> str:
                """Who answers; empty where nobody did."""
                body, _, status = outside.execute(*command, "--retry", "5", "--retry-all-errors", url).rpartition("\n")
                return str(json.loads(body)["server"]) if status == "200" else ""

            url = f"http://{gateway.address}:{PORT}/"
            assert wait_for(ask, PATIENCE_SECONDS) == "server", log.read_text()
            line = far.wait_for_line(lambda line: line.direction == "inbound")
            assert line.source_identity == gateway.identity
            assert line.destination_identity == server.identity
