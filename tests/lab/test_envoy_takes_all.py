"""Every kind of configuration, at the real Envoy: nothing that our translations make of objects is refused."""

import pytest
import yaml

from ambit.demo.polling import wait_for
from tests.support.chosen_mesh import PATIENCE_SECONDS, ROUTER_IPV4, chosen_mesh
from tests.support.controller_process import ControllerProcess
from tests.support.envoy_in_mesh import CONTROLLER_PORT, find_refusals, has_settled, start_gateway_proxy, start_sidecar
from tests.support.golden import FOLDER, GIVEN, list_cases
from tests.support.isolation import isolated


@pytest.mark.parametrize("case", list_cases())
@isolated
def test_a_sidecar_and_a_gateway_take_all_that_they_are_told(case: str) -> None:
    text = (FOLDER / case / GIVEN).read_text()
    gateways = [each["metadata"] for each in yaml.safe_load_all(text) if each["kind"] == "Gateway"]
    with chosen_mesh() as mesh:
        root = mesh.folder / "controller"
        root.mkdir()
        with ControllerProcess(root) as controller:
            controller.write("objects.yaml", text)
            controller.start(AMBIT_LISTEN=f"{ROUTER_IPV4}:{CONTROLLER_PORT}")
            logs = [start_sidecar(mesh, mesh.add_proxy("sidecar"), controller)]
            for gateway in gateways:
                place = mesh.add_proxy("gateway", gateway.get("namespace", "default"))
                logs.append(start_gateway_proxy(mesh, place, controller, gateway["name"]))
            # A sidecar has listeners, and so routes, for services with an address, which hosts of entries are given.
            routed = len(gateways) + ("clusterIP" in text or "kind: ServiceEntry" in text)
            settled = wait_for(lambda: has_settled(controller, len(logs), routed), PATIENCE_SECONDS)
            assert find_refusals(controller) == []
            assert settled, "".join(log.read_text() for log in logs)
