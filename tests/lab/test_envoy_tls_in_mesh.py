"""A gateway that ends TLS in a pod of the mesh: its certificate towards the outside, its identity towards the pods."""

import json
import shlex
from functools import partial

from cryptography.hazmat.primitives.serialization import Encoding

from ambit.demo.polling import wait_for
from tests.support.chosen_mesh import PATIENCE_SECONDS, ROUTER_IPV4, chosen_mesh
from tests.support.controller_process import ControllerProcess
from tests.support.envoy_in_mesh import CONTROLLER_PORT, find_refusals, start_gateway_proxy
from tests.support.isolation import isolated
from tests.support.mesh_certificates import issue_server, make_authority
from tests.support.secrets import gateway_pod_text, secret_text
from tests.support.texts import pod_text, route_of_own_connections_text, text_of
from tests.support.web_backends import serve_web

GATEWAY_API = "gateway.networking.k8s.io/v1"
PORT = 8443
OBJECTS = route_of_own_connections_text(PORT) + text_of(
    GATEWAY_API,
    "Gateway",
    "web",
    f"spec: {{gatewayClassName: ambit, listeners: [{{name: https, port: {PORT}, protocol: HTTPS, "
    "hostname: www.test, tls: {certificateRefs: [{name: www}]}}]}",
)


@isolated
def test_tls_from_outside_ends_at_the_gateway_and_goes_on_with_its_identity() -> None:
    with chosen_mesh() as mesh:
        gateway, server = mesh.add_pod("gateway", "demo"), mesh.add_pod("server", "demo", node="node-2")
        outside = mesh.add_host("outside")
        mesh.tell(gateway.workload(), server.workload())
        mesh.start_ztunnel()
        far = mesh.start_ztunnel("node-2")
        server.run(partial(mesh.stack.enter_context, serve_web("server", server.address, PORT)))
        authority = make_authority("outside")
        root_file = mesh.folder / "outside.pem"
        root_file.write_bytes(authority.certificate.public_bytes(Encoding.PEM))
        root = mesh.folder / "controller"
        root.mkdir()
        with ControllerProcess(root) as controller:
            secret = secret_text("www", issue_server(authority, "www.test"))
            pods = pod_text("server", server.address) + gateway_pod_text("web", "node-1")
            controller.write("mesh.yaml", OBJECTS + pods + secret)
            controller.start(AMBIT_LISTEN=f"{ROUTER_IPV4}:{CONTROLLER_PORT}")
            log = start_gateway_proxy(mesh, gateway, controller, "web")
            command = [
                "curl",
                "--silent",
                "--max-time",
                "5",
                "--cacert",
                str(root_file),
                "--write-out",
                "\n%{http_code}",
            ]
            command += ["--resolve", f"www.test:{PORT}:{gateway.address}", "--retry", "5", "--retry-all-errors"]

            def ask() -> str:
                """Who answers; empty where nobody did."""
                body, _, status = outside.execute(*command, f"https://www.test:{PORT}/").rpartition("\n")
                return str(json.loads(body)["server"]) if status == "200" else ""

            assert wait_for(ask, PATIENCE_SECONDS) == "server", log.read_text()
            line = far.wait_for_line(lambda line: line.direction == "inbound")
            assert line.source_identity == gateway.identity

            def shake_hands(name: str) -> str:
                """What openssl says of a handshake that asks for this name."""
                place = ["-connect", f"{gateway.address}:{PORT}", "-servername", name, "-CAfile", str(root_file)]
                handshake = shlex.join(["openssl", "s_client", "-brief", "-alpn", "h2", *place])
                return outside.execute("sh", "-c", f"{handshake} 2>&1 || true")

            shown, refused = shake_hands("www.test"), shake_hands("other.test")
            assert find_refusals(controller) == []
    assert "Verification: OK" in shown, shown
    assert "Protocol version: TLSv1.3" in shown, shown
    assert "Verification" not in refused, refused
