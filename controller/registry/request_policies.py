"""Which policies hold for the requests that an Envoy serves, and what each policy is bound to.

A policy is attached by name (facts of the control plane, section 10): to a Gateway or a Service of its own namespace,
or from the root namespace to a GatewayClass, which stands for all Gateways of that class. Or it selects the proxies of
gateways by their labels, of its own namespace, from the root namespace of all; never those of waypoints. An
AuthorizationPolicy without targets and selector is for ztunnels alone, a RequestAuthentication for all gateways.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from controller.kinds.core import Service
from controller.kinds.gateway_api import CLASSES, Gateway, GatewayClass
from controller.kinds.key_set import KeySet, name_key_set
from controller.kinds.policy_targets import GATEWAY, GATEWAY_CLASS, SERVICE, PolicyTargetReference
from controller.kinds.request_authentication import RequestAuthentication
from controller.kinds.security import AuthorizationPolicy
from controller.registry.attachment import is_ours
from controller.registry.authorizers import ServedAuthorizer
from controller.registry.bindings import Traffic
from controller.registry.gateway_proxies import (
    GatewayProxies,
    assume_ingresses,
    describe_ingress,
    list_gateways,
)
from controller.registry.names import MeshSettings
from controller.registry.policies import matches
from controller.registry.services import is_served
from controller.registry.waypoints import Waypoints
from controller.snapshot import Snapshot

Policy = AuthorizationPolicy | RequestAuthentication
_Kind = TypeVar("_Kind", AuthorizationPolicy, RequestAuthentication)


@dataclass(frozen=True, slots=True)
class RequestPolicies:
    """What holds for the requests at one place, by namespace and name.

    `keys` has, by URL, the keys that were fetched; `authorizers`, by provider, who is asked by policies with action
    CUSTOM.
    """

    authorizations: tuple[AuthorizationPolicy, ...] = ()
    authentications: tuple[RequestAuthentication, ...] = ()
    keys: Mapping[str, str] = field(default_factory=dict)
    authorizers: Mapping[str, ServedAuthorizer] = field(default_factory=dict)

    @property
    def has_audits(self) -> bool:
        """Whether requests are logged by policies."""
        return any(each.spec.action == "AUDIT" for each in self.authorizations)


NO_POLICIES = RequestPolicies()


class BindingReason(Enum):
    """Why a policy is enforced at a target, or at some of several, or is not. Istio's words."""

    ACCEPTED = "Accepted"
    INVALID = "Invalid"
    PARTIALLY_INVALID = "PartiallyInvalid"
    TARGET_NOT_FOUND = "TargetNotFound"
    ANCESTOR_NOT_BOUND = "AncestorNotBound"


@dataclass(frozen=True, slots=True)
class Binding:
    """What has become of one target of a policy."""

    target: PolicyTargetReference
    reason: BindingReason
    message: str


def find_policies(
    snapshot: Snapshot, settings: MeshSettings, gateway: Gateway, service: Service | None = None
) -> RequestPolicies:
    """The policies of a waypoint's requests; with a `service`, of those that it has for that Service."""
    places = {gateway.namespace, settings.root_namespace, *([service.namespace] if service else [])}
    return _find(snapshot, places, lambda policy: _is_attached(policy, settings, gateway, service))


def find_gateway_policies(
    snapshot: Snapshot, settings: MeshSettings, proxies: GatewayProxies, gateway: Gateway | None = None
) -> RequestPolicies:
    """The policies of the requests to a gateway; `gateway` is the Gateway that it carries out, if it does so."""

    def is_meant(policy: Policy) -> bool:
        is_attached = gateway is not None and _is_attached(policy, settings, gateway, None)
        return is_attached or selects(settings, policy, proxies)

    return _find(snapshot, {proxies.namespace, settings.root_namespace}, is_meant)


def selects(settings: MeshSettings, policy: Policy, proxies: GatewayProxies) -> bool:
    """Whether a policy is for the proxies of a gateway without naming it."""
    if policy.targets or (isinstance(policy, AuthorizationPolicy) and not policy.match_labels):
        return False
    is_near = policy.namespace in (proxies.namespace, settings.root_namespace)
    return is_near and matches(policy.match_labels, proxies.labels)


def _find(snapshot: Snapshot, places: Iterable[str], is_meant: Callable[[Policy], bool]) -> RequestPolicies:
    """Those of these namespaces that are meant."""
    order = sorted(places)
    authentications = _list(snapshot, RequestAuthentication, order, is_meant)
    urls = {url for each in authentications for url in each.key_urls}
    found = {url: snapshot.find(KeySet, "", name_key_set(url)) for url in sorted(urls)}
    return RequestPolicies(
        _list(snapshot, AuthorizationPolicy, order, is_meant),
        authentications,
        {url: keys.jwks for url, keys in found.items() if keys is not None and keys.jwks},
    )


def _list(
    snapshot: Snapshot, kind: type[_Kind], places: Iterable[str], is_meant: Callable[[Policy], bool]
) -> tuple[_Kind, ...]:
    policies = (policy for place in places for policy in snapshot.objects_in(kind, place) if is_meant(policy))
    return tuple(sorted(policies, key=lambda each: (each.namespace, each.name)))


def _is_attached(policy: Policy, settings: MeshSettings, gateway: Gateway, service: Service | None) -> bool:
    for target in policy.targets:
        if target.kind == GATEWAY:
            is_meant = (policy.namespace, target.name) == (gateway.namespace, gateway.name)
        elif target.kind == GATEWAY_CLASS:
            is_meant = policy.namespace == settings.root_namespace and target.name == gateway.spec.gateway_class_name
        else:
            is_meant = service is not None and (policy.namespace, target.name) == (service.namespace, service.name)
        if is_meant:
            return True
    return False


def find_gateways(snapshot: Snapshot, settings: MeshSettings, policy: Policy) -> Iterator[Gateway]:
    """The Gateways that a policy is attached to, by their own name or by that of their class."""
    for target in policy.targets:
        yield from _find_gateways_of(snapshot, settings, policy, target)


def _find_gateways_of(
    snapshot: Snapshot, settings: MeshSettings, policy: Policy, target: PolicyTargetReference
) -> Iterator[Gateway]:
    if target.kind == GATEWAY and (gateway := snapshot.find(Gateway, policy.namespace, target.name)) is not None:
        yield gateway
    elif target.kind == GATEWAY_CLASS and policy.namespace == settings.root_namespace:
        yield from (each for each in snapshot.objects(Gateway) if each.spec.gateway_class_name == target.name)


def find_selected(snapshot: Snapshot, settings: MeshSettings, policy: Policy) -> Iterator[GatewayProxies]:
    """The gateways that it is for without naming them: those of Gateways, and ingress gateways that there may be."""
    assumed = assume_ingresses(snapshot, policy.namespace, policy.match_labels)
    for each in (*list_gateways(snapshot), *map(describe_ingress, sorted(assumed))):
        if selects(settings, policy, each):
            yield each


def find_services(snapshot: Snapshot, policy: Policy) -> Iterator[Service]:
    """The Services that a policy is attached to."""
    for target in policy.targets:
        if target.kind == SERVICE and (found := snapshot.find(Service, policy.namespace, target.name)) is not None:
            yield found


def find_bindings(snapshot: Snapshot, settings: MeshSettings, policy: Policy) -> Iterator[Binding]:
    """What has become of each target of a policy."""
    for target in policy.targets:
        reason, message = _judge_target(snapshot, settings, policy, target)
        yield Binding(target, reason, message)


def _judge_target(
    snapshot: Snapshot, settings: MeshSettings, policy: Policy, target: PolicyTargetReference
) -> tuple[BindingReason, str]:
    if target.kind == GATEWAY:
        return _judge_gateway(snapshot, policy, target)
    if target.kind == GATEWAY_CLASS:
        return _judge_class(snapshot, settings, policy, target)
    service = snapshot.find(Service, policy.namespace, target.name)
    if service is None or not is_served(service):
        return BindingReason.TARGET_NOT_FOUND, f"there is no Service {policy.namespace}/{target.name}"
    waypoint = Waypoints(snapshot, settings).find_binding(
        service.namespace, service.name, service.labels, Traffic.SERVICE
    )
    if waypoint is None or not waypoint.is_accepted:
        return BindingReason.ANCESTOR_NOT_BOUND, f"Service {policy.namespace}/{target.name} has no waypoint"
    place = "/".join(waypoint.gateway)
    gateway = snapshot.find(Gateway, *waypoint.gateway)
    if gateway is None or not is_ours(snapshot, gateway):
        return BindingReason.ANCESTOR_NOT_BOUND, f"waypoint {place} is carried out by somebody else"
    return BindingReason.ACCEPTED, f"bound to Service {policy.namespace}/{target.name}, at waypoint {place}"


def _judge_gateway(snapshot: Snapshot, policy: Policy, target: PolicyTargetReference) -> tuple[BindingReason, str]:
    place = f"Gateway {policy.namespace}/{target.name}"
    gateway = snapshot.find(Gateway, policy.namespace, target.name)
    if gateway is None:
        return BindingReason.TARGET_NOT_FOUND, f"there is no {place}"
    if not is_ours(snapshot, gateway):
        return BindingReason.ANCESTOR_NOT_BOUND, f"{place} is carried out by somebody else"
    return BindingReason.ACCEPTED, f"bound to {place}"


def _judge_class(
    snapshot: Snapshot, settings: MeshSettings, policy: Policy, target: PolicyTargetReference
) -> tuple[BindingReason, str]:
    if policy.namespace != settings.root_namespace:
        return BindingReason.INVALID, f"only policies of {settings.root_namespace} are attached to a GatewayClass"
    if snapshot.find(GatewayClass, "", target.name) is None and target.name not in CLASSES:
        return BindingReason.TARGET_NOT_FOUND, f"there is no GatewayClass {target.name}"
    count = sum(is_ours(snapshot, each) for each in _find_gateways_of(snapshot, settings, policy, target))
    if not count:
        return BindingReason.ANCESTOR_NOT_BOUND, f"GatewayClass {target.name} has no Gateway of ours"
    return BindingReason.ACCEPTED, f"bound to GatewayClass {target.name}, with {count} Gateways"
