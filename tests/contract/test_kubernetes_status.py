"""Definitions, statuses and the Lease on a real Kubernetes API server."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import yaml

from ambit.demo.polling import wait_for
from tests.support.controller_process import PATIENCE_SECONDS, ControllerProcess
from tests.support.kubernetes import ApiError, Document, Kubernetes, kubernetes
from tests.support.kubernetes_access import allow_controller

DEFINITIONS = Path(__file__).resolve().parents[2] / "deploy" / "crds"
GOLDEN = Path(__file__).resolve().parents[1] / "unit" / "controller" / "golden"
GATEWAY_API, ISTIO, SECURITY = "gateway.networking.k8s.io/v1", "networking.istio.io/v1", "security.istio.io/v1"
LEASE = ("coordination.k8s.io/v1", "Lease", "ambit-controller-leader", "istio-system")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Kubernetes]:
    """With the definitions of deploy/crds, and an account for the controller that may do what is documented."""
    with kubernetes() as started:
        for path in sorted(DEFINITIONS.glob("*.yaml")):
            started.apply(yaml.safe_load(path.read_text()))
        for name in ("istio-system", "demo"):
            started.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        account = {"name": "web", "namespace": "istio-system"}
        started.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
        started.wait_for_kind(GATEWAY_API, "HTTPRoute")
        started.write_kubeconfig(started.folder / "controller", allow_controller(started, "istio-system"))
        yield started


def start(cluster: Kubernetes, folder: Path, stack: ExitStack, identity: str = "a") -> ControllerProcess:
    place = folder / identity
    place.mkdir()
    controller = stack.enter_context(ControllerProcess(place))
    return controller.start(AMBIT_CONFIG_DIR="", AMBIT_KUBECONFIG=str(cluster.folder / "controller"))


def apply(cluster: Kubernetes, version: str, kind: str, name: str, spec: str) -> None:
    metadata = {"name": name, "namespace": "demo"}
    cluster.apply({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": yaml.safe_load(spec)})


def wait_for_condition(read: Callable[[], list[Document]], wanted: str, status: str, reason: str) -> Document:
    """The condition of type `wanted`, once it says this."""

    def look() -> Document | None:
        for each in read():
            if (each["type"], each["status"], each["reason"]) == (wanted, status, reason):
                return each
        return None

    found = wait_for(look, PATIENCE_SECONDS)
    assert found, read()
    return found


@pytest.mark.parametrize("case", sorted(each.name for each in GOLDEN.iterdir() if each.is_dir()))
def test_the_definitions_take_what_the_translations_are_tested_with(cluster: Kubernetes, case: str) -> None:
    for document in yaml.safe_load_all((GOLDEN / case / "objects.yaml").read_text()):
        if "." in document["apiVersion"]:
            namespace = document["metadata"].setdefault("namespace", "default")
            if document["kind"] == "GatewayClass":
                del document["metadata"]["namespace"]
            cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
            cluster.apply(document)
            cluster.delete(document["apiVersion"], document["kind"], document["metadata"]["name"], namespace)


@pytest.mark.parametrize(
    ("version", "kind", "spec"),
    [
        (GATEWAY_API, "Gateway", "{gatewayClassName: ambit, listeners: []}"),
        (GATEWAY_API, "Gateway", "{gatewayClassName: ambit, listeners: [{name: http, port: 70000, protocol: HTTP}]}"),
        (GATEWAY_API, "HTTPRoute", "{rules: [{matches: [{method: get}]}]}"),
        (GATEWAY_API, "HTTPRoute", "{rules: [{timeouts: {request: 5}}]}"),
        (ISTIO, "VirtualService", "{hosts: a, http: [{route: [{destination: {host: a}}]}]}"),
        (ISTIO, "VirtualService", "{hosts: [a], http: [{route: [{destination: {host: a}, weight: '1'}]}]}"),
        (ISTIO, "DestinationRule", "{host: a, trafficPolicy: {loadBalancer: {simple: FASTEST}}}"),
        (SECURITY, "AuthorizationPolicy", "{action: PERHAPS}"),
        (SECURITY, "AuthorizationPolicy", "{rules: [{to: [{operation: {ports: [80]}}]}]}"),
        (SECURITY, "PeerAuthentication", "{mtls: {mode: LAX}}"),
    ],
)
def test_the_definitions_refuse_what_has_a_wrong_form(cluster: Kubernetes, version: str, kind: str, spec: str) -> None:
    with pytest.raises(ApiError) as refused:
        apply(cluster, version, kind, "wrong", spec)
    assert refused.value.status in (422, 500)  # 500 is its answer when the type of an applied field is another


def test_gateways_and_routes_say_what_has_become_of_them(cluster: Kubernetes, tmp_path: Path) -> None:
    with ExitStack() as stack:
        start(cluster, tmp_path, stack)
        apply(
            cluster,
            GATEWAY_API,
            "Gateway",
            "web",
            "{gatewayClassName: ambit, listeners: [{name: http, port: 80, protocol: HTTP}]}",
        )
        apply(
            cluster,
            GATEWAY_API,
            "HTTPRoute",
            "web",
            "{parentRefs: [{name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]}",
        )

        def read_route() -> list[Document]:
            parents = cluster.get(GATEWAY_API, "HTTPRoute", "web", "demo").get("status", {}).get("parents", [])
            return [condition for parent in parents for condition in parent["conditions"]]

        def read_listener() -> Document:
            status = cluster.get(GATEWAY_API, "Gateway", "web", "demo").get("status", {})
            found: Document = next(iter(status.get("listeners", [])), {})
            return found

        wait_for_condition(read_route, "ResolvedRefs", "False", "BackendNotFound")
        accepted = wait_for_condition(read_route, "Accepted", "True", "Accepted")
        assert wait_for(lambda: read_listener().get("attachedRoutes") == 1, PATIENCE_SECONDS)
        apply(cluster, "v1", "Service", "web", "{ports: [{port: 80}]}")
        wait_for_condition(read_route, "ResolvedRefs", "True", "ResolvedRefs")
        assert wait_for_condition(read_route, "Accepted", "True", "Accepted") == accepted, "its time stays"
        settled = cluster.get(GATEWAY_API, "HTTPRoute", "web", "demo")["metadata"]["resourceVersion"]
        for name in ("second", "third"):  # two more rounds of writing: what was written is no news
            apply(cluster, GATEWAY_API, "HTTPRoute", name, "{parentRefs: [{name: web}]}")
            assert wait_for(partial(_find_status, cluster, name), PATIENCE_SECONDS)
            cluster.delete(GATEWAY_API, "HTTPRoute", name, "demo")
        assert cluster.get(GATEWAY_API, "HTTPRoute", "web", "demo")["metadata"]["resourceVersion"] == settled
        cluster.delete(GATEWAY_API, "HTTPRoute", "web", "demo")
        assert wait_for(lambda: read_listener().get("attachedRoutes") == 0, PATIENCE_SECONDS)


def _find_status(cluster: Kubernetes, name: str) -> Document | None:
    found: Document | None = cluster.get(GATEWAY_API, "HTTPRoute", name, "demo").get("status")
    return found


def test_a_service_says_whether_its_waypoint_can_be_had(cluster: Kubernetes, tmp_path: Path) -> None:
    with ExitStack() as stack:
        start(cluster, tmp_path, stack)

        def read() -> list[Document]:
            found: list[Document] = cluster.get("v1", "Service", "asks", "demo").get("status", {}).get("conditions", [])
            return found

        labels = {"istio.io/use-waypoint": "waypoint"}
        metadata = {"name": "asks", "namespace": "demo", "labels": labels}
        asking: Document = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"ports": [{"port": 80}]},
        }
        cluster.apply(asking)
        refused = wait_for_condition(read, "istio.io/WaypointBound", "False", "WaypointIsNotReady")
        assert "there is no Gateway demo/waypoint" in refused["message"]
        listeners = "[{name: mesh, port: 15008, protocol: HBONE}]"
        spec = f"{{gatewayClassName: istio-waypoint, listeners: {listeners}}}"
        apply(cluster, GATEWAY_API, "Gateway", "waypoint", spec)
        wait_for_condition(read, "istio.io/WaypointBound", "True", "WaypointAccepted")
        cluster.apply({**asking, "metadata": {**metadata, "labels": {}}})
        assert wait_for(lambda: read() == [], PATIENCE_SECONDS), "the condition goes with the label"


def test_a_policy_that_cannot_be_enforced_says_so(cluster: Kubernetes, tmp_path: Path) -> None:
    with ExitStack() as stack:
        start(cluster, tmp_path, stack)

        def read() -> list[Document]:
            status = cluster.get(SECURITY, "AuthorizationPolicy", "p", "demo").get("status", {})
            found: list[Document] = status.get("conditions", [])
            return found

        apply(
            cluster,
            SECURITY,
            "AuthorizationPolicy",
            "p",
            "{action: DENY, rules: [{to: [{operation: {ports: ['80']}}]}]}",
        )
        wait_for_condition(read, "ZtunnelAccepted", "True", "Accepted")
        apply(
            cluster,
            SECURITY,
            "AuthorizationPolicy",
            "p",
            "{action: DENY, rules: [{to: [{operation: {ports: ['80'], methods: [GET]}}]}]}",
        )
        refused = wait_for_condition(read, "ZtunnelAccepted", "False", "UnsupportedValue")
        assert "spec.rules[0].to[0].operation.methods" in refused["message"]
        apply(
            cluster,
            SECURITY,
            "AuthorizationPolicy",
            "p",
            "{action: DENY, rules: [{to: [{operation: {ports: ['81']}}]}]}",
        )
        wait_for_condition(read, "ZtunnelAccepted", "True", "Accepted")


def test_one_of_two_controllers_writes_and_the_other_takes_over(cluster: Kubernetes, tmp_path: Path) -> None:
    with ExitStack() as stack:
        first, second = (start(cluster, tmp_path, stack, name) for name in "ab")

        def leads(controller: ControllerProcess) -> bool:
            return any("leading: " in line for line in controller.log)

        assert wait_for(lambda: leads(first) or leads(second), PATIENCE_SECONDS)
        leader, other = (first, second) if leads(first) else (second, first)
        held = cluster.get(*LEASE)["spec"]

        def is_renewed_again() -> bool:
            spec = cluster.get(*LEASE)["spec"]
            seen.add(spec["renewTime"])
            return len(seen) > 2

        seen = {held["renewTime"]}
        assert wait_for(is_renewed_again, PATIENCE_SECONDS), "the other has tried as often meanwhile"
        assert not leads(other)
        assert cluster.get(*LEASE)["spec"]["holderIdentity"] == held["holderIdentity"]
        leader.stop()
        assert wait_for(lambda: leads(other), PATIENCE_SECONDS), "a leader that ends gives the Lease back"
        apply(cluster, GATEWAY_API, "HTTPRoute", "later", "{parentRefs: [{group: '', kind: Service, name: web}]}")
        apply(cluster, "v1", "Service", "web", "{ports: [{port: 80}]}")
        assert wait_for(partial(_find_status, cluster, "later"), PATIENCE_SECONDS)


def test_a_lease_of_somebody_who_is_gone_runs_out(cluster: Kubernetes, tmp_path: Path) -> None:
    name, namespace = LEASE[2:]
    spec = {"holderIdentity": "gone", "leaseDurationSeconds": 3, "renewTime": "2026-01-01T00:00:00.000000Z"}
    cluster.apply(
        {"apiVersion": LEASE[0], "kind": LEASE[1], "metadata": {"name": name, "namespace": namespace}, "spec": spec}
    )
    before = cluster.get(*LEASE)["spec"].get("leaseTransitions", 0)
    with ExitStack() as stack:
        controller = start(cluster, tmp_path, stack)
        assert wait_for(lambda: any("leading: " in line for line in controller.log), PATIENCE_SECONDS)
        assert cluster.get(*LEASE)["spec"]["leaseTransitions"] == before + 1


# The webhook ---------------------------------------------------------------------------------------------------------


def test_what_would_be_refused_is_refused_when_it_is_applied(cluster: Kubernetes, tmp_path: Path) -> None:
    with ExitStack() as stack:
        controller = start(cluster, tmp_path, stack)
        registration = yaml.safe_load((DEFINITIONS.parent / "webhook.yaml").read_text())
        [webhook] = registration["webhooks"]
        url = f"https://{controller.address('admission')}/validate"
        webhook["clientConfig"] = {"url": url}
        cluster.apply(registration)
        kind = ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration")
        stack.callback(lambda: cluster.delete(*kind, "ambit-validator"))

        def is_registered() -> bool:
            [found] = cluster.get(*kind, "ambit-validator")["webhooks"]
            return found["failurePolicy"] == "Fail" and bool(found["clientConfig"].get("caBundle"))

        assert wait_for(is_registered, PATIENCE_SECONDS)
        wrong = "{rules: [{matches: [{path: {type: RegularExpression, value: '(?=a)'}}]}]}"
        assert wait_for(lambda: _is_denied(cluster, wrong), PATIENCE_SECONDS), "a server takes a registration in late"
        with pytest.raises(ApiError, match=r"spec\.rules\[0\]\.matches\[0\]\.path.*regex-value"):
            apply(cluster, GATEWAY_API, "HTTPRoute", "reviewed", wrong)
        with pytest.raises(ApiError, match="needs-targets"):
            apply(cluster, SECURITY, "AuthorizationPolicy", "reviewed", "{rules: [{to: [{operation: {paths: [/]}}]}]}")
        apply(cluster, GATEWAY_API, "HTTPRoute", "reviewed", "{rules: [{matches: [{path: {value: /a}}]}]}")
        controller.stop()
        with pytest.raises(ApiError, match="failed calling webhook"):
            apply(cluster, GATEWAY_API, "HTTPRoute", "reviewed", "{rules: [{matches: [{path: {value: /b}}]}]}")


def _is_denied(cluster: Kubernetes, spec: str) -> bool:
    try:
        apply(cluster, GATEWAY_API, "HTTPRoute", "tried", spec)
    except ApiError:
        return True
    return False
