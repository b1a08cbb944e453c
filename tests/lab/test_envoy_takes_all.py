"""Every kind of configuration, at the real Envoy: nothing that our translations make of objects is refused."""

import pytest
import yaml

from ambit.demo.polling import wait_for
from controller.kinds.gateway_api import GROUP
from controller.registry.names import DEFAULT_ROOT_NAMESPACE
from tests.support.chosen_mesh import PATIENCE_SECONDS, ROUTER_IPV4, chosen_mesh
from tests.support.controller_process import ControllerProcess
from tests.support.envoy_in_mesh import (
    CONTROLLER_PORT,
    find_refusals,
    has_settled,
    start_gateway_proxy,
    start_ingress,
    start_sidecar,
)
from tests.support.golden import FOLDER, GIVEN, list_cases
from tests.support.isolation import isolated


@pytest.mark.parametrize("case", list_cases())
@isolated
def test_a_sidecar_and_a_gateway_take_all_that_they_are_told(case: str) -> None:
    text = (FOLDER / case / GIVEN).read_text()
    documents = [each for each in yaml.safe_load_all(text) if each["kind"] == "Gateway"]
    gateways = [each["metadata"] for each in documents if each["apiVersion"].startswith(GROUP)]
    selectors = [each["spec"].get("selector", {}) for each in documents if not each["apiVersion"].startswith(GROUP)]
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
            for labels in [each for index, each in enumerate(selectors) if each not in selectors[:index]]:
                place = mesh.add_proxy(f"ingress-{len(logs)}", DEFAULT_ROOT_NAMESPACE)
                logs.append(start_ingress(mesh, place, controller, labels))
            # A sidecar has listeners, and so routes, for services with an address, which hosts of entries are given.
            routed = len(logs) - 1 + ("clusterIP" in text or "kind: ServiceEntry" in text)
            settled = wait_for(lambda: has_settled(controller, len(logs), routed), PATIENCE_SECONDS)
            assert find_refusals(controller) == []
            assert settled, "".join(log.read_text() for log in logs)
