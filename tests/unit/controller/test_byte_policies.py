"""What policies of requests mean where only bytes are seen: never more than they say, and never less protection."""

import pytest

from controller.registry.byte_policies import judge_bytes
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
