"""What has become of objects, as conditions and as statuses of Kubernetes' objects; and who may write them."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from controller.kinds.key_set import build_key_set
from controller.kinds.meta import KubernetesObject
from controller.registry.names import MeshSettings
from controller.snapshot import Snapshot
from controller.sources.directory import Directory
from controller.sources.documents import PlainObject
from controller.status.documents import StatusDocument, build_statuses, show_time
from controller.status.leadership import LEASE_SECONDS, Election, build_lease, spec_of
from tests.support.objects import build_snapshot, parse, service, waypoint

GATEWAY_API = "gateway.networking.k8s.io/v1"
NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
MESH = MeshSettings()


def made(kind: str, spec: str, name: str = "web", status: str = "", generation: int = 3) -> KubernetesObject:
    metadata = f"{{name: {name}, namespace: demo, generation: {generation}}}"
    return parse(
        f"{{apiVersion: {GATEWAY_API}, kind: {kind}, metadata: {metadata}, spec: {{{spec}}}, status: {{{status}}}}}"
    )


GATEWAY = made("Gateway", "gatewayClassName: ambit, listeners: [{name: http, port: 80, protocol: HTTP}]")
ROUTE = "parentRefs: [{name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]"


def statuses(snapshot: Snapshot, now: str = NOW) -> dict[str, StatusDocument]:
    return {str(each.key): each for each in build_statuses(snapshot, MESH, [], now)}


def conditions(status: PlainObject, *path: str | int) -> dict[str, tuple[str, str]]:
    """By type, the status and reason of the conditions that are at a place."""
    found: object = status
    for step in path:
        found = found[step]  # type: ignore[index]  # the path through a status as it is built
    given = cast(list[Mapping[str, str]], cast(Mapping[str, object], found)["conditions"])
    return {each["type"]: (each["status"], each["reason"]) for each in given}


def test_a_route_says_whether_it_attaches_and_whether_its_backends_are_there() -> None:
    route = made("HTTPRoute", ROUTE)
    found = statuses(build_snapshot(GATEWAY, route))["HTTPRoute demo/web"].status
    assert conditions(found, "parents", 0) == {
        "Accepted": ("True", "Accepted"),
        "ResolvedRefs": ("False", "BackendNotFound"),
    }
    found = statuses(build_snapshot(GATEWAY, route, service()))["HTTPRoute demo/web"].status
    assert conditions(found, "parents", 0)["ResolvedRefs"] == ("True", "ResolvedRefs")
    [parent] = cast(list[Mapping[str, object]], found["parents"])
    assert parent["controllerName"] == "ambit.dev/gateway-controller"
    assert parent["parentRef"] == {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "web"}


def test_nothing_is_said_of_a_parent_that_is_not_ours() -> None:
    theirs = made("Gateway", "gatewayClassName: theirs, listeners: [{name: http, port: 80, protocol: HTTP}]")
    found = statuses(build_snapshot(theirs, made("HTTPRoute", ROUTE)))
    assert found["HTTPRoute demo/web"].status == {"parents": []}
    assert "Gateway demo/web" not in found


def test_a_gateway_counts_the_routes_of_each_listener() -> None:
    gateway = made(
        "Gateway",
        "gatewayClassName: ambit, listeners: [{name: a, port: 80, protocol: HTTP}, "
        "{name: b, port: 81, protocol: HTTP}, {name: udp, port: 443, protocol: UDP}]",
    )
    route = made("HTTPRoute", "parentRefs: [{name: web, sectionName: a}]")
    found = statuses(build_snapshot(gateway, route))["Gateway demo/web"].status
    listeners = cast(list[Mapping[str, object]], found["listeners"])
    assert [each["attachedRoutes"] for each in listeners] == [1, 0, 0]
    assert conditions(found)["Accepted"] == ("True", "Accepted")
    assert conditions(found, "listeners", 2)["Accepted"] == ("False", "UnsupportedProtocol")
    assert listeners[2]["supportedKinds"] == []


def test_a_grpc_route_says_the_same() -> None:
    route = made("GRPCRoute", ROUTE)
    found = statuses(build_snapshot(GATEWAY, route, service()))
    assert conditions(found["GRPCRoute demo/web"].status, "parents", 0)["Accepted"] == ("True", "Accepted")
    listeners = cast(list[Mapping[str, object]], found["Gateway demo/web"].status["listeners"])
    assert listeners[0]["attachedRoutes"] == 1


def follow(route: KubernetesObject, *others: KubernetesObject, now: str) -> tuple[KubernetesObject, StatusDocument]:
    """The status of a route, and the route once it is written."""
    document = statuses(build_snapshot(route, *others), now)["HTTPRoute demo/web"]
    return route.model_copy(update={"status": document.status}), document


def test_a_condition_keeps_its_time_while_it_says_the_same() -> None:
    route, first = follow(made("HTTPRoute", ROUTE), GATEWAY, now=NOW)
    assert not first.is_written
    route, again = follow(route, GATEWAY, now=LATER)
    assert again.is_written
    _, resolved = follow(route, GATEWAY, service(), now=LATER)
    assert not resolved.is_written
    [parent] = cast(list[Mapping[str, list[Mapping[str, object]]]], resolved.status["parents"])
    times = {each["type"]: each["lastTransitionTime"] for each in parent["conditions"]}
    assert times == {"Accepted": NOW, "ResolvedRefs": LATER}
    assert {each["observedGeneration"] for each in parent["conditions"]} == {3}


def test_what_other_controllers_say_of_a_route_stays() -> None:
    theirs = "{parentRef: {name: web}, controllerName: example.com/other, conditions: []}"
    found = statuses(build_snapshot(GATEWAY, made("HTTPRoute", ROUTE, status=f"parents: [{theirs}]")))
    parents = cast(list[Mapping[str, object]], found["HTTPRoute demo/web"].status["parents"])
    assert [each["controllerName"] for each in parents] == ["example.com/other", "ambit.dev/gateway-controller"]


def test_a_policy_whose_last_change_was_refused_says_so() -> None:
    head = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: demo}\n"
    directory = Directory()
    directory.apply({"p.yaml": head + "spec: {action: DENY}\n"})
    directory.apply({"p.yaml": head + "spec: {rules: [{to: [{operation: {methods: [GET]}}]}]}\n"})
    [found] = build_statuses(Snapshot().apply(directory.objects), MESH, directory.problems, NOW)
    assert conditions(found.status) == {"ZtunnelAccepted": ("False", "UnsupportedValue")}
    [condition] = cast(list[Mapping[str, str]], found.status["conditions"])
    assert condition["message"].startswith("spec.rules[0].to[0].operation.methods: ")


def attached(kind: str, targets: str, rest: str = "", namespace: str = "demo") -> KubernetesObject:
    head = f"apiVersion: security.istio.io/v1, kind: {kind}, metadata: {{name: p, namespace: {namespace}}}"
    return parse(f"{{{head}, spec: {{targetRefs: [{targets}], {rest}}}}}")


OF_GATEWAY, OF_SERVICE = "{group: gateway.networking.k8s.io, kind: Gateway, name: web}", "{kind: Service, name: web}"
OF_CLASS = "{group: gateway.networking.k8s.io, kind: GatewayClass, name: ambit}"
THEIRS = made("Gateway", "gatewayClassName: theirs, listeners: [{name: http, port: 80, protocol: HTTP}]")


@pytest.mark.parametrize("kind", ["AuthorizationPolicy", "RequestAuthentication"])
@pytest.mark.parametrize(
    ("targets", "others", "namespace", "expected"),
    [
        (OF_GATEWAY, [GATEWAY], "demo", ("True", "Accepted")),
        (OF_GATEWAY, [], "demo", ("False", "TargetNotFound")),
        (OF_GATEWAY, [GATEWAY], "other", ("False", "TargetNotFound")),
        (OF_GATEWAY, [THEIRS], "demo", ("False", "AncestorNotBound")),
        (OF_SERVICE, [service()], "demo", ("False", "AncestorNotBound")),
        (OF_SERVICE, [], "demo", ("False", "TargetNotFound")),
        (f"{OF_SERVICE}, {OF_GATEWAY}", [GATEWAY, service()], "demo", ("True", "PartiallyInvalid")),
        (OF_CLASS, [GATEWAY], "istio-system", ("True", "Accepted")),
        (OF_CLASS, [], "istio-system", ("False", "AncestorNotBound")),
        (OF_CLASS.replace("ambit", "none"), [], "istio-system", ("False", "TargetNotFound")),
        (OF_CLASS, [GATEWAY], "demo", ("False", "Invalid")),
    ],
)
def test_a_policy_with_targets_says_where_it_is_bound(
    kind: str, targets: str, others: list[KubernetesObject], namespace: str, expected: tuple[str, str]
) -> None:
    found = statuses(build_snapshot(attached(kind, targets, namespace=namespace), *others))
    assert conditions(found[f"{kind} {namespace}/p"].status) == {"WaypointAccepted": expected}


def test_a_policy_with_targets_whose_last_change_was_refused_says_so() -> None:
    directory = Directory()
    text = (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: demo}\n"
        f"spec: {{targetRefs: [{OF_GATEWAY}], action: ALLOW}}\n"
    )
    directory.apply({"p.yaml": text})
    directory.apply({"p.yaml": text.replace("ALLOW", "LOG")})
    [found] = build_statuses(Snapshot().apply(directory.objects), MESH, directory.problems, NOW)
    assert conditions(found.status) == {"WaypointAccepted": ("False", "Invalid")}


def test_rules_about_tokens_say_whether_their_keys_are_had() -> None:
    url = "https://issuer.test/keys"
    policy = attached("RequestAuthentication", OF_GATEWAY, f"jwtRules: [{{issuer: x, jwksUri: '{url}'}}]")
    expected = {
        None: ("False", "KeysNotFetched"),
        build_key_set(url, "", "is away"): ("False", "KeysNotFetched"),
        build_key_set(url, "keys", "is away"): ("True", "KeysAreOld"),
        build_key_set(url, "keys"): ("True", "KeysFetched"),
    }
    for keys, condition in expected.items():
        found = statuses(build_snapshot(GATEWAY, policy, *([keys] if keys else [])))
        assert conditions(found["RequestAuthentication demo/p"].status)["KeysFetched"] == condition


# Who writes ----------------------------------------------------------------------------------------------------------

WALL = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_lease_that_is_renewed_is_not_taken_and_one_that_is_not_is_taken_when_it_has_run_out() -> None:
    candidate = Election("b")
    lease = build_lease(None, "istio-system", "a", WALL)
    assert not candidate.may_take(lease, 100.0)
    assert not candidate.may_take(lease, 100.0 + LEASE_SECONDS - 1)
    renewed = build_lease(lease, "istio-system", "a", WALL + timedelta(seconds=10))
    assert not candidate.may_take(renewed, 100.0 + LEASE_SECONDS)
    assert candidate.may_take(renewed, 100.0 + 2 * LEASE_SECONDS)


@pytest.mark.parametrize("holder", ["", "b"])
def test_a_lease_of_nobody_or_of_our_own_is_taken_at_once(holder: str) -> None:
    assert Election("b").may_take({"spec": {"holderIdentity": holder, "renewTime": "x"}}, 0.0)
    assert Election("b").may_take(None, 0.0)


def test_a_lease_counts_who_held_it() -> None:
    first = build_lease(None, "istio-system", "a", WALL)
    renewed = build_lease(first, "istio-system", "a", WALL + timedelta(seconds=2))
    assert spec_of(renewed)["acquireTime"] == spec_of(first)["acquireTime"]
    taken = build_lease(renewed, "istio-system", "b", WALL + timedelta(seconds=60))
    assert [spec_of(each)["leaseTransitions"] for each in (first, renewed, taken)] == [0, 0, 1]
    assert spec_of(taken)["renewTime"] == "2026-01-01T00:01:00.000000Z"


def test_times_are_shown_in_utc() -> None:
    assert show_time(WALL) == NOW


def test_a_service_says_whether_it_is_reached_through_its_waypoint() -> None:
    asks = "labels: {istio.io/use-waypoint: waypoint}"
    assert "Service demo/web" not in statuses(build_snapshot(service()))
    found = statuses(build_snapshot(service(metadata=asks)))["Service demo/web"]
    assert conditions(found.status) == {"istio.io/WaypointBound": ("False", "WaypointIsNotReady")}
    found = statuses(build_snapshot(service(metadata=asks), waypoint()))["Service demo/web"]
    assert conditions(found.status) == {"istio.io/WaypointBound": ("True", "WaypointAccepted")}


def test_a_service_keeps_the_conditions_of_others_and_loses_ours_with_its_label() -> None:
    ours = "{type: istio.io/WaypointBound, status: 'True', reason: WaypointAccepted}"
    theirs = "{type: example.com/Other, status: 'True', reason: Other}"
    status = f"status: {{conditions: [{theirs}, {ours}]}}"
    spec = "spec: {ports: [{port: 80}]}"
    given = parse(f"{{apiVersion: v1, kind: Service, metadata: {{name: web, namespace: demo}}, {spec}, {status}}}")
    found = statuses(build_snapshot(given))["Service demo/web"]
    assert (found.status, found.is_written) == ({"conditions": []}, False)
