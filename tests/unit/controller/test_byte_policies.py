"""What policies of requests mean where only bytes are seen: never more than they say, and never less protection."""

import pytest

from controller.registry.byte_policies import is_for_ztunnel, judge_bytes, judge_for_ztunnel
from controller.registry.request_policies import RequestPolicies
from tests.support import objects

TARGET = "targetRefs: [{kind: Service, name: web}]"
CLIENT = "principals: [cluster.local/ns/demo/sa/client]"


@pytest.mark.parametrize(
    ("rule", "allowed", "denied"),
    [
        pytest.param(f"from: [{{source: {{{CLIENT}}}}}]", True, (True, False), id="of connections"),
        pytest.param("to: [{operation: {methods: [GET]}}]", False, (False, False), id="of requests only"),
        pytest.param(
            f"from: [{{source: {{{CLIENT}}}}}], to: [{{operation: {{paths: [/x]}}}}]",
            False,
            (True, False),
            id="of both: the client is left",
        ),
        pytest.param(
            "to: [{operation: {ports: ['80'], methods: [GET]}}, {operation: {methods: [PUT]}}]",
            False,
            (False, False),
            id="one operation is left, the other is any",
        ),
        pytest.param(
            "when: [{key: 'request.headers[x-user]', values: [a]}, {key: source.ip, values: [192.0.2.1]}]",
            False,
            (False, True),
            id="conditions",
        ),
    ],
)
def test_a_rule_keeps_what_it_asks_of_connections(rule: str, allowed: bool, denied: tuple[bool, bool]) -> None:
    """`denied` is whether sources and conditions are left of a rule that denies."""
    for action in ("ALLOW", "DENY"):
        policy = objects.authorization(f"{TARGET}, action: {action}, rules: [{{{rule}}}]")
        [judged] = judge_bytes(RequestPolicies((policy,))).authorizations
        rules = judged.spec.rules or ()
        if action == "ALLOW":
            assert bool(rules) is allowed
        else:
            [kept] = rules
            assert (bool(kept.from_), bool(kept.when)) == denied
            assert not kept.to


@pytest.mark.parametrize(
    ("rule", "is_left"),
    [
        pytest.param("to: [{operation: {paths: [/x]}}]", False, id="paths"),
        pytest.param("from: [{source: {remoteIpBlocks: [192.0.2.1]}}]", False, id="remote addresses"),
        pytest.param("from: [{source: {trustDomains: [other]}}]", False, id="trust domains"),
        pytest.param("when: [{key: connection.sni, values: [a]}]", False, id="names of servers"),
        pytest.param(f"from: [{{source: {{{CLIENT}, requestPrincipals: ['*']}}}}]", True, id="with a client"),
    ],
)
def test_a_ztunnel_is_told_no_more_than_it_can_judge(rule: str, is_left: bool) -> None:
    """Of a rule that denies the rest is told, and of one that allows nothing."""
    selector = "selector: {matchLabels: {app: web}}"
    allow, deny = (
        objects.authorization(f"{selector}, action: {action}, rules: [{{{rule}}}]") for action in ("ALLOW", "DENY")
    )
    assert not is_for_ztunnel(allow)
    assert list(judge_for_ztunnel(allow).spec.rules or ()) == []
    [kept] = judge_for_ztunnel(deny).spec.rules or ()
    assert bool(kept.from_ or kept.to or kept.when) is is_left


def test_a_policy_that_a_ztunnel_can_judge_stays_as_it_is() -> None:
    policy = objects.authorization(f"action: DENY, rules: [{{from: [{{source: {{{CLIENT}}}}}]}}, {{}}]")
    assert is_for_ztunnel(policy)
    assert judge_for_ztunnel(policy) == policy
