"""The real Envoy as a sidecar, in a pod with the redirect rules of the mesh.

What its application connects to is captured, and goes where the routes of its service say.
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ambit.demo.polling import wait_for
from mesh import ports
from tests.support.chosen_mesh import PATIENCE_SECONDS, ROUTER_IPV4, ChosenMesh, Host, Pod, chosen_mesh
from tests.support.controller_process import ControllerProcess
from tests.support.envoy_in_mesh import CONTROLLER_PORT, find_refusals, start_sidecar
from tests.support.isolation import isolated
from tests.support.texts import SUBSETS, pod_text, service_text, text_of
from tests.support.web_backends import Backend, serve_web

VIP, TCP_VIP = "203.0.113.1", "203.0.113.2"
_LINES = "name: tcp, port: 9000, targetPort: 9090"


@dataclass(slots=True)
class Site:
    """A pod with its sidecar, and two machines that serve `web` on 8080 and lines on 9090."""

    client: Pod
    controller: ControllerProcess
    hosts: dict[str, Host]
    backends: dict[str, Backend]
    log: Path

    def ask(self, path: str = "/", host: str = VIP, *options: str) -> str:
        """Who answers a request of the application; an HTTP status where nobody did."""
        command = ["curl", "--silent", "--max-time", "10", "--write-out", "\n%{http_code}", *options]
        *body, status = self.client.execute(*command, f"http://{host}{path}").splitlines()
        try:
            return str(json.loads("".join(body))["server"])
        except ValueError:
            return status

    def reaches_web(self) -> bool:
        """Whether a connection to the Service's address is answered."""
        with self.client.connect(VIP, 80) as connection:
            connection.settimeout(1)
            try:
                connection.sendall(b"GET /gone HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
                return connection.recv(100) != b""
            except OSError:
                return False

    def count(self, times: int, path: str = "/", *options: str) -> Counter[str]:
        return Counter(self.ask(path, VIP, *options) for _ in range(times))


ROUTES = (
    SUBSETS
    + """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: demo}
spec:
  hosts: [web]
  http:
  - match: [{headers: {canary: {exact: "true"}}}]
    route: [{destination: {host: web, subset: v2}}]
  - match: [{uri: {prefix: /gone}}]
    directResponse: {status: 410}
  - match: [{uri: {prefix: /broken}}]
    fault: {abort: {httpStatus: 418}}
    route: [{destination: {host: web}}]
  - match: [{uri: {prefix: /undefined}}]
    route: [{destination: {host: web, subset: v3}}]
  - match: [{uri: {prefix: /strip}}]
    rewrite: {uri: /}
    headers: {request: {set: {x-from: sidecar}}}
    route: [{destination: {host: web, subset: v1}}]
  - route:
    - destination: {host: web, subset: v1}
      weight: 90
    - destination: {host: web, subset: v2}
      weight: 10
"""
)


@contextmanager
def site(mesh: ChosenMesh) -> Iterator[Site]:
    client = mesh.add_pod("client", "demo")
    hosts = {name: mesh.add_host(name) for name in ("v1", "v2")}
    backends = {}
    for name, host in hosts.items():
        backends[name] = host.run(partial(mesh.stack.enter_context, serve_web(name, host.address, 8080)))
        host.serve(9090)
    root = mesh.folder / "controller"
    root.mkdir()
    with ControllerProcess(root) as controller:
        pods = "".join(pod_text(name, host.address) for name, host in hosts.items())
        web = service_text("web", "app: web", "port: 80, targetPort: 8080", f"clusterIP: {VIP}")
        lines = service_text("lines", "version: v1", _LINES, f"clusterIP: {TCP_VIP}")
        controller.write("mesh.yaml", web + lines + pods)
        controller.start(AMBIT_LISTEN=f"{ROUTER_IPV4}:{CONTROLLER_PORT}")
        log = start_sidecar(mesh, client, controller)
        yield Site(client, controller, hosts, backends, log)
        assert find_refusals(controller) == []


@isolated
def test_requests_of_the_application_follow_the_routes_of_their_service() -> None:
    with chosen_mesh() as mesh, site(mesh) as found:
        assert wait_for(lambda: set(found.count(10)) == {"v1", "v2"}, PATIENCE_SECONDS), found.log.read_text()
        found.controller.write("routes.yaml", ROUTES)
        assert wait_for(lambda: found.ask("/gone") == "410", PATIENCE_SECONDS), found.log.read_text()
        assert found.count(20, "/", "--header", "canary: true") == {"v2": 20}
        shares = found.count(200)
        assert 4 <= shares["v2"] <= 42, shares  # about five standard deviations around 20
        assert shares["v1"] + shares["v2"] == 200
        assert found.ask("/broken") == "418"
        assert found.ask("/undefined") == "503", "a subset that no DestinationRule defines"
        assert found.ask("/strip/a") == "v1"
        assert found.backends["v1"].asked[-1] == "GET /a HTTP/1.1"
        # Both: by its address in the Host header, as above, and by its name.
        assert found.ask("/gone", VIP, "--header", "Host: web.demo") == "410"
        found.controller.remove("routes.yaml")
        assert wait_for(lambda: set(found.count(10)) == {"v1", "v2"}, PATIENCE_SECONDS)


FILTER = """
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: teapot, namespace: istio-system}
spec:
  configPatches:
  - applyTo: HTTP_ROUTE
    match: {context: SIDECAR_OUTBOUND, routeConfiguration: {portNumber: 80}}
    patch:
      operation: INSERT_FIRST
      value: {match: {path: /teapot}, direct_response: {status: 418}}
"""
QUIET = """
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: quiet, namespace: istio-system}
spec: {accessLogging: [{disabled: true}]}
"""


@isolated
def test_what_is_patched_for_the_whole_mesh_is_patched_for_sidecars() -> None:
    with chosen_mesh() as mesh, site(mesh) as found:
        found.controller.write("routes.yaml", ROUTES)
        assert wait_for(lambda: found.ask("/gone") == "410", PATIENCE_SECONDS), found.log.read_text()
        found.controller.write("filter.yaml", FILTER + "---" + QUIET)
        assert wait_for(lambda: found.ask("/teapot") == "418", PATIENCE_SECONDS), found.log.read_text()
        assert found.ask("/gone") == "410", "the routes are still there"
        found.controller.remove("filter.yaml")
        assert wait_for(lambda: found.ask("/teapot") in ("v1", "v2"), PATIENCE_SECONDS)


def narrowed(hosts: str) -> str:
    spec = f"spec: {{egress: [{{hosts: [{hosts}]}}]}}"
    return text_of("networking.istio.io/v1", "Sidecar", "default", spec)


@isolated
def test_what_a_sidecar_is_not_told_of_has_no_routes_for_it() -> None:
    with chosen_mesh() as mesh, site(mesh) as found:
        found.controller.write("routes.yaml", ROUTES)
        assert wait_for(lambda: found.ask("/gone") == "410", PATIENCE_SECONDS), found.log.read_text()
        found.controller.write("sidecar.yaml", narrowed("./lines.demo.svc.cluster.local"))
        assert wait_for(lambda: not found.reaches_web(), PATIENCE_SECONDS), "nobody else has the Service's address"
        assert found.client.ask(TCP_VIP, 9000).server == "v1"
        stats = found.client.execute("curl", "--silent", "http://127.0.0.1:15000/clusters")
        assert "outbound|80||web.demo.svc.cluster.local" not in stats
        found.controller.write("sidecar.yaml", narrowed("'*/*'"))
        assert wait_for(found.reaches_web, PATIENCE_SECONDS), found.log.read_text()
        assert found.ask("/gone") == "410"
        found.controller.write("sidecar.yaml", narrowed("~/*"))
        assert wait_for(lambda: not found.reaches_web(), PATIENCE_SECONDS)
        found.controller.remove("sidecar.yaml")
        assert wait_for(found.reaches_web, PATIENCE_SECONDS), found.log.read_text()
        assert found.ask("/gone") == "410"


@isolated
def test_bytes_that_are_no_requests_pass_and_so_does_what_is_of_no_service() -> None:
    with chosen_mesh() as mesh, site(mesh) as found:
        assert wait_for(lambda: found.client.ask(TCP_VIP, 9000).server == "v1", PATIENCE_SECONDS), found.log.read_text()
        assert found.client.ask(found.hosts["v2"].address, 9090).server == "v2"
        assert found.ask("/", f"{found.hosts['v2'].address}:8080") == "v2"


@isolated
def test_who_connects_to_the_sidecar_itself_is_turned_away() -> None:
    with chosen_mesh() as mesh, site(mesh) as found:
        for _ in range(3):
            with found.client.connect("127.0.0.1", ports.OUTBOUND_CAPTURE_PORT) as connection:
                assert connection.recv(1) == b""
        stats = found.client.execute(
            "curl", "--silent", "http://127.0.0.1:15000/stats?filter=passthrough.upstream_cx_total"
        )
        assert stats.strip().endswith("upstream_cx_total: 0"), stats


DELEGATED = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: demo}
spec:
  hosts: [web]
  http:
  - {match: [{uri: {prefix: /team}}], delegate: {name: web, namespace: team}}
  - route: [{destination: {host: web, subset: v1}}]
"""
DELEGATE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: team}
spec:
  http:
  - {match: [{uri: {prefix: /team/reply}}], directResponse: {status: 410}}
  - route: [{destination: {host: web.demo.svc.cluster.local, subset: v2}}]
"""


@isolated
def test_a_part_of_the_routes_is_another_teams() -> None:
    with chosen_mesh() as mesh, site(mesh) as found:
        found.controller.write("routes.yaml", SUBSETS + DELEGATED)
        assert wait_for(lambda: found.ask("/team") == "503", PATIENCE_SECONDS), "the team's are not there"
        assert found.ask() == "v1"
        found.controller.write("team.yaml", DELEGATE)
        assert wait_for(lambda: found.ask("/team") == "v2", PATIENCE_SECONDS), found.log.read_text()
        assert (found.ask("/team/reply"), found.ask()) == ("410", "v1")


BYTES = service_text("other", "version: v2", _LINES) + text_of(
    "networking.istio.io/v1",
    "VirtualService",
    "lines",
    "spec: {hosts: [lines], tcp: [{route: [{destination: {host: lines}, weight: 50}, "
    "{destination: {host: other}, weight: 50}]}]}",
)


@isolated
def test_bytes_are_shared_by_weight() -> None:
    with chosen_mesh() as mesh, site(mesh) as found:

        def count() -> Counter[str]:
            return Counter(found.client.ask(TCP_VIP, 9000).server for _ in range(40))

        assert wait_for(lambda: found.client.ask(TCP_VIP, 9000).server == "v1", PATIENCE_SECONDS)
        assert set(count()) == {"v1"}
        found.controller.write("bytes.yaml", BYTES)
        assert wait_for(lambda: set(count()) == {"v1", "v2"}, PATIENCE_SECONDS), found.log.read_text()


@isolated
def test_a_host_of_a_service_entry_has_routes_and_subsets_and_ends() -> None:
    with chosen_mesh() as mesh, site(mesh) as found:
        places = ", ".join(
            f"{{address: {host.address}, labels: {{version: {name}}}}}" for name, host in found.hosts.items()
        )
        address = found.hosts["v2"].address
        ports = "[{number: 8080, name: http, protocol: HTTP}]"
        spec = f"hosts: [api.example.com], addresses: [{address}], ports: {ports}, resolution: STATIC"
        entry = text_of("networking.istio.io/v1", "ServiceEntry", "api", f"spec: {{{spec}, endpoints: [{places}]}}")
        rules = ROUTES.replace("host: web", "host: api.example.com").replace("hosts: [web]", "hosts: [api.example.com]")
        api = f"{address}:8080"
        assert wait_for(lambda: found.ask() in ("v1", "v2"), PATIENCE_SECONDS), found.log.read_text()
        assert found.ask("/gone", api) == "v2", "it is nobody's yet"
        found.controller.write("host.yaml", entry + rules)
        assert wait_for(lambda: found.ask("/gone", api) == "410", PATIENCE_SECONDS), found.log.read_text()
        assert found.ask("/", api, "--header", "canary: true") == "v2"
        assert found.ask("/strip/a", api) == "v1"
        assert found.ask("/undefined", api) == "503"
        found.controller.remove("host.yaml")
        assert wait_for(lambda: found.ask("/gone", api) == "v2", PATIENCE_SECONDS), found.log.read_text()
