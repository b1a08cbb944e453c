"""An ingress gateway in a pod of the mesh: Istio's canary, from outside through ztunnels and mutual TLS."""

import json
from collections import Counter
from functools import partial

from ambit.demo.polling import wait_for
from tests.support.chosen_mesh import PATIENCE_SECONDS, ROUTER_IPV4, chosen_mesh
from tests.support.controller_process import ControllerProcess
from tests.support.envoy_in_mesh import CONTROLLER_PORT, find_refusals, start_ingress
from tests.support.isolation import isolated
from tests.support.texts import pod_text, service_text
from tests.support.web_backends import serve_web

PORT = 8080
OBJECTS = (
    service_text("web", "app: web", f"port: 80, targetPort: {PORT}")
    + f"""
# Each request on a connection of its own: ztunnel tells of connections that have ended.
apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata: {{name: web, namespace: demo}}
spec:
  host: web
  trafficPolicy: {{connectionPool: {{http: {{maxRequestsPerConnection: 1}}}}}}
  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: istio-ingressgateway, namespace: istio-system}}
spec: {{selector: {{istio: ingressgateway}}, ports: [{{name: http2, port: 80, targetPort: {PORT}}}]}}
---
apiVersion: networking.istio.io/v1alpha3
kind: Gateway
metadata: {{name: web, namespace: demo}}
spec:
  selector: {{istio: ingressgateway}}
  servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ["*.example.com"]}}]
---
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata: {{name: web, namespace: demo}}
spec:
  hosts: [www.example.com]
  gateways: [web]
  http:
  - route:
    - {{destination: {{host: web, subset: v1}}, weight: 50}}
    - {{destination: {{host: web, subset: v2}}, weight: 50}}
---
"""
)


@isolated
def test_a_canary_of_istio_is_shared_by_weight_with_the_ingress_gateways_identity() -> None:
    with chosen_mesh() as mesh:
        ingress = mesh.add_pod("ingress", "istio-system")
        servers = [mesh.add_pod(version, "demo", node="node-2") for version in ("v1", "v2")]
        outside = mesh.add_host("outside")
        mesh.tell(ingress.workload(), *(each.workload() for each in servers))
        mesh.start_ztunnel()
        far = mesh.start_ztunnel("node-2")
        for each in servers:
            each.run(partial(mesh.stack.enter_context, serve_web(each.name, each.address, PORT)))
        root = mesh.folder / "controller"
        root.mkdir()
        with ControllerProcess(root) as controller:
            controller.write("mesh.yaml", OBJECTS + "".join(pod_text(each.name, each.address) for each in servers))
            controller.start(AMBIT_LISTEN=f"{ROUTER_IPV4}:{CONTROLLER_PORT}")
            log = start_ingress(mesh, ingress, controller, {"istio": "ingressgateway", "pod-template-hash": "5d4"})
            url = f"http://{ingress.address}:{PORT}/"

            def ask(host: str) -> str:
                """Who answers, or the status; empty where nobody did."""
                command = ["curl", "--silent", "--max-time", "5", "--header", f"Host: {host}"]
                retries = ["--retry", "5", "--retry-all-errors", "--write-out", "\n%{http_code}"]
                body, _, status = outside.execute(*command, *retries, url).rpartition("\n")
                return str(json.loads(body)["server"]) if status == "200" else status

            assert wait_for(lambda: ask("www.example.com") in ("v1", "v2"), PATIENCE_SECONDS), log.read_text()
            shares = Counter(ask("www.example.com") for _ in range(60))
            assert set(shares) == {"v1", "v2"}
            assert 10 <= shares["v2"] <= 50, shares  # five standard deviations around 30
            assert ask("other.example.com") == "404"
            assert find_refusals(controller) == []
            line = far.wait_for_line(lambda line: line.direction == "inbound")
            assert line.source_identity == ingress.identity
            assert line.destination_identity in {each.identity for each in servers}
