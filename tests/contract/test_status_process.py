"""`ambit get` beside a running controller."""

import json
from functools import partial
from pathlib import Path

from tests.support.command_line import run_ambit
from tests.support.controller_process import ControllerProcess

OBJECTS = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: demo}
spec:
  gatewayClassName: ambit
  listeners: [{name: http, port: 80, protocol: HTTP}, {name: udp, port: 443, protocol: UDP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: demo}
spec: {parentRefs: [{name: web}], rules: [{backendRefs: [{name: missing, port: 80}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: none, namespace: other}
spec: {action: DENY}
"""


ambit_get = partial(run_ambit, "get", "--controller")


def test_what_has_become_of_objects_is_shown(tmp_path: Path) -> None:
    with ControllerProcess(tmp_path) as controller:
        controller.write("mesh.yaml", OBJECTS)
        controller.start()
        admin = controller.address("admin")
        table = ambit_get(admin).stdout
        for words in (
            "3 objects",
            "HTTPRoute demo/web",
            "ResolvedRefs: False",
            "BackendNotFound",
            "there is no Service demo/missing",
            "listener udp",
            "UnsupportedProtocol",
            "ZtunnelAccepted",
        ):
            assert words in table, table
        routes = json.loads(ambit_get(admin, "httproute", "-o", "json").stdout)
        assert [each["name"] for each in routes] == ["web"]
        assert json.loads(ambit_get(admin, "-n", "other", "-o", "json").stdout)[0]["kind"] == "AuthorizationPolicy"


def test_a_controller_that_does_not_answer_is_named() -> None:
    done = ambit_get("127.0.0.1:1")
    assert done.returncode == 1
    assert "http://127.0.0.1:1/debug/conditions" in done.stderr
    assert "--controller" in done.stderr
