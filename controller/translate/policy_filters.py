"""The policies of requests at one place, to the HTTP filters that carry them out there.

filters = build_policy_filters(find_policies(snapshot, settings, gateway))

The order is Istio's (facts of the control plane, section 10): what others decide, tokens, what is audited, what is
denied, what is allowed. They stand before all that answers requests or changes them (CORS, faults, the router).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from envoy.config.listener.v3 import listener_components_pb2
from envoy.config.rbac.v3 import rbac_pb2 as rules_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac_pb2

from controller.registry.byte_policies import judge_bytes
from controller.registry.request_policies import RequestPolicies
from controller.translate.envoy import pack
from controller.translate.external_authorization import build_authorizers
from controller.translate.jwt import translate_authentications
from controller.translate.rbac import JWT_FILTER, RBAC_FILTER, ClientIdentity, translate_policies, translate_rules

AUDIT_PREFIX = "istio_audit_"
"""Begins what the filters of rules write of the policies that audit."""
NETWORK_RBAC_FILTER = "envoy.filters.network.rbac"
_FROM_CERTIFICATE = ClientIdentity()


def build_policy_filters(
    policies: RequestPolicies, identity: ClientIdentity = _FROM_CERTIFICATE
) -> list[hcm_pb2.HttpFilter]:
    """The filters, in order; none where there is no policy. `identity` says where a client's identity is read."""
    filters = list(build_authorizers(policies, identity))
    if (tokens := translate_authentications(policies)) is not None:
        filters.append(hcm_pb2.HttpFilter(name=JWT_FILTER, typed_config=pack(tokens)))
    filters += _build_rules(policies, identity)
    return filters


def build_byte_filters(
    policies: RequestPolicies, identity: ClientIdentity = _FROM_CERTIFICATE
) -> list[listener_components_pb2.Filter]:
    """The same for a connection whose requests nobody sees."""
    return [
        listener_components_pb2.Filter(
            name=NETWORK_RBAC_FILTER,
            typed_config=pack(
                network_rbac_pb2.RBAC(
                    rules=each.rules,
                    shadow_rules=each.shadow,
                    stat_prefix=f"policies_{each.action.lower()}_",
                    shadow_rules_stat_prefix=each.shadow_prefix,
                )
            ),
        )
        for each in _list_rules(judge_bytes(policies), identity)
    ]


def _build_rules(policies: RequestPolicies, identity: ClientIdentity) -> Iterator[hcm_pb2.HttpFilter]:
    for each in _list_rules(policies, identity):
        built = rbac_pb2.RBAC(rules=each.rules, shadow_rules=each.shadow, shadow_rules_stat_prefix=each.shadow_prefix)
        yield hcm_pb2.HttpFilter(name=RBAC_FILTER, typed_config=pack(built))


@dataclass(frozen=True, slots=True)
class _Rules:
    """What is enforced and what is rehearsed of one action. Of what is audited the latter tells which policy it was."""

    action: str
    rules: rules_pb2.RBAC | None
    shadow: rules_pb2.RBAC | None

    @property
    def shadow_prefix(self) -> str:
        if self.shadow is None:
            return ""
        return AUDIT_PREFIX if self.action == "AUDIT" else f"istio_dry_run_{self.action.lower()}_"


def _list_rules(policies: RequestPolicies, identity: ClientIdentity) -> Iterator[_Rules]:
    enforced = [each for each in policies.authorizations if not each.is_dry_run]
    rehearsed = [each for each in policies.authorizations if each.is_dry_run]
    if audited := [each for each in enforced if each.spec.action == "AUDIT"]:
        noted = translate_rules(audited, "ALLOW", identity)
        yield _Rules("AUDIT", translate_rules(audited, "AUDIT", identity), noted)
    for action in ("DENY", "ALLOW"):
        rules = translate_policies(enforced, action, identity)
        shadow = translate_policies(rehearsed, action, identity)
        if rules is not None or shadow is not None:
            yield _Rules(action, rules, shadow)
