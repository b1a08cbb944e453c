"""Conditions as statuses of Kubernetes' objects. Pure: the time is given.

A condition keeps the time of its last change as long as it says the same. Of a route's parents only those that we judge
are ours: entries of other controllers stay as they are.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import cast

from controller.kinds.backend_tls_policy import BackendTLSPolicy
from controller.kinds.core import Service
from controller.kinds.envoy_filter import EnvoyFilter
from controller.kinds.gateway_api import CONTROLLER, CONTROLLERS, GROUP, Gateway, GatewayClass, ParentReference
from controller.kinds.meta import KubernetesObject, ObjectKey
from controller.kinds.request_authentication import RequestAuthentication
from controller.kinds.security import AuthorizationPolicy
from controller.kinds.sidecar import Sidecar
from controller.kinds.telemetry import Telemetry
from controller.kinds.workload_group import WorkloadGroup
from controller.registry.attachment import ROUTE_KINDS, GatewayRoute, is_ours, list_kinds
from controller.registry.bindings import Binding, Traffic
from controller.registry.conditions import Condition, judge_gateway, judge_route
from controller.registry.envoy_filters import find_idle
from controller.registry.names import MeshSettings
from controller.registry.policy_conditions import judge_backend_tls
from controller.registry.request_policies import Policy
from controller.registry.sidecars import find_idle as find_idle_sidecar
from controller.registry.target_conditions import judge_selecting, judge_targeted
from controller.registry.telemetry import find_idle as find_idle_telemetry
from controller.registry.waypoints import Waypoints
from controller.registry.workload_groups import find_idle as find_idle_group
from controller.registry.workload_groups import list_unused
from controller.snapshot import Snapshot
from controller.sources.documents import PlainObject
from controller.sources.problems import Problem

WAYPOINT_BOUND = "istio.io/WaypointBound"
"""On a Service (facts of the control plane, section 5)."""


@dataclass(frozen=True, slots=True)
class StatusDocument:
    """What an object's status should be, and whether it is so already."""

    key: ObjectKey
    model: type[KubernetesObject]
    status: PlainObject
    is_written: bool


def build_statuses(
    snapshot: Snapshot,
    settings: MeshSettings,
    problems: Iterable[Problem],
    now: str,
    faults: Mapping[ObjectKey, str] = MappingProxyType({}),
) -> Iterator[StatusDocument]:
    """Of all objects that have one. `now` is RFC 3339; `faults` say what EnvoyFilters would have proxies refuse."""
    routes: list[GatewayRoute] = [route for kind in ROUTE_KINDS for route in snapshot.objects(kind)]
    for owner in snapshot.objects(GatewayClass):
        if owner.spec.controller_name in CONTROLLERS:
            yield _build(owner, {"conditions": _build_all(owner, [Condition("Accepted", True, "Accepted")], now)})
    for gateway in snapshot.objects(Gateway):
        if is_ours(snapshot, gateway):
            yield _build(gateway, _build_gateway(snapshot, gateway, routes, now))
    for route in routes:
        yield _build(route, _build_route(snapshot, settings, route, now))
    for backend in snapshot.objects(BackendTLSPolicy):
        yield _build(backend, _build_backend_tls(snapshot, backend, routes, now))
    waypoints = Waypoints(snapshot, settings)
    for service in snapshot.objects(Service):
        binding = waypoints.find_binding(service.namespace, service.name, service.labels, Traffic.SERVICE)
        yield from _build_service(service, binding, now)
    refused = {problem.key: problem for problem in problems if problem.key is not None}
    policies: list[Policy] = [*snapshot.objects(AuthorizationPolicy), *snapshot.objects(RequestAuthentication)]
    for policy in policies:
        judged = _judge_policy(snapshot, settings, policy, refused.get(policy.key))
        yield _build(policy, {"conditions": _build_all(policy, judged, now)})
    for given in snapshot.objects(EnvoyFilter):
        idle = find_idle(snapshot, settings, given)
        condition = _judge_filter(given, idle, refused.get(given.key), faults.get(given.key))
        yield _build(given, {"conditions": _build_all(given, [condition], now)})
    for sidecar in snapshot.objects(Sidecar):
        condition = _judge_idle(find_idle_sidecar(snapshot, settings, sidecar), refused.get(sidecar.key))
        yield _build(sidecar, {"conditions": _build_all(sidecar, [condition], now)})
    for telemetry in snapshot.objects(Telemetry):
        condition = _judge_idle(find_idle_telemetry(snapshot, settings, telemetry), refused.get(telemetry.key))
        yield _build(telemetry, {"conditions": _build_all(telemetry, [condition], now)})
    for group in snapshot.objects(WorkloadGroup):
        condition = _judge_idle(find_idle_group(snapshot, group), refused.get(group.key), list_unused(group))
        yield _build(group, {"conditions": _build_all(group, [condition], now)})


def show_time(time: datetime) -> str:
    """RFC 3339, to the second, as Kubernetes writes times."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _judge_policy(
    snapshot: Snapshot, settings: MeshSettings, policy: Policy, problem: Problem | None
) -> list[Condition]:
    """Of one that serves in an earlier form, why its present one does not."""
    refusal = f"{problem.path}: {problem.message}; the last valid form is enforced" if problem else ""
    judge = judge_targeted if policy.targets else judge_selecting
    return list(judge(snapshot, settings, policy, refusal))


def _judge_filter(given: EnvoyFilter, idle: Mapping[int, str], problem: Problem | None, fault: str | None) -> Condition:
    """Of one that serves in an earlier form or spoils something, why; else which of its patches reach nobody."""
    if problem is not None:
        return _judge_refused(problem)
    if fault is not None:
        return Condition("Accepted", False, "Invalid", f"{fault}; what was served before goes on")
    message = "; ".join(f"configPatches[{index}] reaches no proxy: {why}" for index, why in idle.items())
    if len(idle) == len(given.spec.config_patches):
        return Condition("Accepted", False, "NoMatchingProxy", message)
    return Condition("Accepted", True, "Accepted", message)


def _judge_idle(idle: str, problem: Problem | None, message: str = "") -> Condition:
    """`message` is for one that does something."""
    if problem is not None:
        return _judge_refused(problem)
    return Condition("Accepted", not idle, "NoMatchingProxy" if idle else "Accepted", idle or message)


def _judge_refused(problem: Problem) -> Condition:
    message = f"{problem.path}: {problem.message}; the last valid form goes on"
    return Condition("Accepted", False, "UnsupportedValue", message)


def _build(given: KubernetesObject, status: PlainObject) -> StatusDocument:
    present = _status_of(given)
    is_written = all(present.get(field) == value for field, value in status.items())
    return StatusDocument(given.key, type(given), status, is_written)


def _build_gateway(snapshot: Snapshot, gateway: Gateway, routes: Sequence[GatewayRoute], now: str) -> PlainObject:
    judged = judge_gateway(snapshot, gateway, routes)
    present = {each.get("name"): each for each in _list_of(_status_of(gateway), "listeners")}
    kinds = {
        each.name: [{"group": GROUP, "kind": kind} for kind in list_kinds(each)] for each in gateway.spec.listeners
    }
    return {
        "conditions": _build_all(gateway, judged.conditions, now),
        "listeners": [
            {
                "name": each.name,
                "attachedRoutes": each.attached_routes,
                "supportedKinds": kinds[each.name] if each.conditions[0].is_true else [],
                "conditions": _build_conditions(
                    each.conditions, _list_of(present.get(each.name, {}), "conditions"), _generation_of(gateway), now
                ),
            }
            for each in judged.listeners
        ],
    }


def _build_route(snapshot: Snapshot, settings: MeshSettings, route: GatewayRoute, now: str) -> PlainObject:
    present = _list_of(_status_of(route), "parents")
    parents: list[PlainObject] = [each for each in present if each.get("controllerName") != CONTROLLER]
    for judged in judge_route(snapshot, settings, route):
        reference = _show_reference(judged.reference)
        before = next((each for each in present if _is_entry(each, reference)), {})
        conditions = _build_conditions(judged.conditions, _list_of(before, "conditions"), _generation_of(route), now)
        parents.append({"parentRef": reference, "controllerName": CONTROLLER, "conditions": conditions})
    return {"parents": parents}


def _build_backend_tls(
    snapshot: Snapshot, policy: BackendTLSPolicy, routes: Sequence[GatewayRoute], now: str
) -> PlainObject:
    present = _list_of(_status_of(policy), "ancestors")
    ancestors: list[PlainObject] = [each for each in present if each.get("controllerName") != CONTROLLER]
    for judged in judge_backend_tls(snapshot, policy, routes):
        namespace, name = judged.gateway
        reference = {"group": GROUP, "kind": Gateway.KIND, "namespace": namespace, "name": name}
        before: PlainObject = next(
            (
                each
                for each in present
                if each.get("controllerName") == CONTROLLER and each.get("ancestorRef") == reference
            ),
            {},
        )
        conditions = _build_conditions(judged.conditions, _list_of(before, "conditions"), _generation_of(policy), now)
        ancestors.append({"ancestorRef": reference, "controllerName": CONTROLLER, "conditions": conditions})
    return {"ancestors": ancestors}


def _build_service(service: Service, binding: Binding | None, now: str) -> Iterator[StatusDocument]:
    """Of one that asks for a waypoint, or did so; other conditions are somebody else's."""
    present = [each for each in _list_of(_status_of(service), "conditions") if each.get("type") == WAYPOINT_BOUND]
    if binding is None and not present:
        return
    wanted = []
    if binding is not None:
        where = "/".join(binding.gateway)
        message = f"reached through {where}" if binding.is_accepted else f"{binding.message}: connections are refused"
        wanted = [Condition(WAYPOINT_BOUND, binding.is_accepted, binding.reason.value, message)]
    conditions = _build_conditions(wanted, present, _generation_of(service), now)
    yield StatusDocument(service.key, Service, {"conditions": conditions}, conditions == present)


def _is_entry(entry: PlainObject, reference: PlainObject) -> bool:
    return entry.get("controllerName") == CONTROLLER and entry.get("parentRef") == reference


def _show_reference(reference: ParentReference) -> PlainObject:
    shown: PlainObject = reference.model_dump(mode="json", by_alias=True, exclude_none=True)
    return shown


def _build_all(given: KubernetesObject, conditions: Sequence[Condition], now: str) -> list[PlainObject]:
    return _build_conditions(conditions, _list_of(_status_of(given), "conditions"), _generation_of(given), now)


def _build_conditions(
    conditions: Sequence[Condition], present: Sequence[PlainObject], generation: int, now: str
) -> list[PlainObject]:
    known = {each.get("type"): each for each in present}
    return [_build_condition(each, known.get(each.type, {}), generation, now) for each in conditions]


def _build_condition(condition: Condition, before: PlainObject, generation: int, now: str) -> PlainObject:
    status = "True" if condition.is_true else "False"
    is_same = before.get("status") == status and "lastTransitionTime" in before
    return {
        "type": condition.type,
        "status": status,
        "reason": condition.reason,
        "message": condition.message,
        "observedGeneration": generation,
        "lastTransitionTime": before["lastTransitionTime"] if is_same else now,
    }


def _status_of(given: KubernetesObject) -> PlainObject:
    status: object = getattr(given, "status", None)
    return cast(PlainObject, status) if isinstance(status, Mapping) else {}


def _list_of(document: PlainObject, field: str) -> list[PlainObject]:
    found = document.get(field)
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []


def _generation_of(given: KubernetesObject) -> int:
    return given.metadata.generation or 0
