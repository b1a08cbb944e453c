"""Which endpoints a client prefers, by where it stands."""

from ipaddress import ip_address

import pytest

from controller.kinds.destination_rule import DestinationRule, LocalityLbSetting
from controller.registry.localities import (
    Group,
    ServingEndpoint,
    Standpoint,
    arrange,
    find_preference,
    list_client_keys,
    list_standpoints,
)
from controller.registry.services import Spreading
from controller.registry.workloads import Locality
from tests.support import objects
from tests.support.objects import parse

HERE = Locality("north", "a", "rack-1")
PLACES = {
    "rack": (HERE, "node-1"),
    "zone": (Locality("north", "a", "rack-2"), "node-2"),
    "region": (Locality("north", "b", "rack-1"), "node-3"),
    "far": (Locality("south", "a", "rack-1"), "node-4"),
    "farther": (Locality("west", "a", "rack-1"), "node-5"),
}
ENDPOINTS = [
    ServingEndpoint(name, 80, locality, True, 1, node, {"tier": "best"} if name == "farther" else {})
    for name, (locality, node) in PLACES.items()
]


def setting(text: str) -> LocalityLbSetting:
    rule = parse(
        "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: d}, spec: {host: s, "
        f"trafficPolicy: {{loadBalancer: {{localityLbSetting: {{{text}}}}}}}}}}}"
    )
    assert isinstance(rule, DestinationRule)
    policy = rule.spec.traffic_policy
    assert policy
    assert policy.load_balancer
    assert policy.load_balancer.locality_lb_setting
    return policy.load_balancer.locality_lb_setting


def show(groups: list[Group]) -> list[list[str]]:
    """The names by priority."""
    last = max((each.priority for each in groups), default=-1)
    by_priority: list[list[str]] = [[] for _ in range(last + 1)]
    for group in groups:
        by_priority[group.priority] += (str(each.address) for each in group.endpoints)
    return [sorted(names) for names in by_priority]


EVERYBODY = [sorted(PLACES)]


@pytest.mark.parametrize(
    ("text", "spreading", "detects", "expected"),
    [
        pytest.param(None, Spreading.ANYWHERE, False, EVERYBODY, id="nothing"),
        pytest.param(
            None, Spreading.ANYWHERE, True, [["rack"], ["zone"], ["region"], ["far", "farther"]], id="default"
        ),
        pytest.param("enabled: false", Spreading.ANYWHERE, True, EVERYBODY, id="off"),
        pytest.param("enabled: false", Spreading.PREFER_CLOSE, True, EVERYBODY, id="off-goes-before-the-service"),
        pytest.param("enabled: true", Spreading.ANYWHERE, False, EVERYBODY, id="without-outlier-detection"),
        pytest.param(
            "failover: [{from: north, to: west}]",
            Spreading.ANYWHERE,
            True,
            [["rack"], ["zone"], ["region"], ["farther"], ["far"]],
            id="regions",
        ),
        pytest.param(
            "failoverPriority: [topology.kubernetes.io/zone, tier=best]",
            Spreading.ANYWHERE,
            True,
            [["farther"], ["far", "rack", "zone"], ["region"]],
            id="priorities",
        ),
        pytest.param(
            None, Spreading.PREFER_CLOSE, False, [["rack", "zone"], ["region"], ["far", "farther"]], id="close"
        ),
        pytest.param(
            None,
            Spreading.PREFER_SAME_NODE,
            False,
            [["rack"], ["zone"], ["region"], ["far", "farther"]],
            id="same-node-first",
        ),
        pytest.param(None, Spreading.SAME_NODE_ONLY, False, [["rack"]], id="same-node-only"),
    ],
)
def test_the_nearest_are_asked_first(
    text: str | None, spreading: Spreading, detects: bool, expected: list[list[str]]
) -> None:
    preference = find_preference(setting(text) if text else None, spreading, detects=detects)
    assert show(arrange(ENDPOINTS, preference, Standpoint(HERE, "node-1"))) == expected


def test_the_mesh_may_have_no_default() -> None:
    assert find_preference(None, Spreading.ANYWHERE, detects=True, by_default=False) is None
    assert find_preference(setting("enabled: true"), Spreading.ANYWHERE, detects=True, by_default=False)


def test_shares_are_of_places_and_who_is_named_nowhere_gets_nothing() -> None:
    preference = find_preference(
        setting('distribute: [{from: north/a/*, to: {north/a/*: 60, "south/*": 40}}]'),
        Spreading.ANYWHERE,
        detects=False,
    )
    groups = arrange(ENDPOINTS, preference, Standpoint(HERE))
    shares = {str(each.endpoints[0].address): each.weight for each in groups}
    assert shares == {"rack": 30, "zone": 30, "far": 40}
    assert show(arrange(ENDPOINTS, preference, Standpoint(Locality("north", "b")))) == EVERYBODY, "no share is for them"


def test_nobody_is_on_the_node_of_a_client_of_whom_nobody_knows_where_it_stands() -> None:
    strict = find_preference(None, Spreading.SAME_NODE_ONLY, detects=False)
    assert arrange(ENDPOINTS, strict) == []
    assert show(arrange(ENDPOINTS, find_preference(None, Spreading.PREFER_CLOSE, detects=False))) == EVERYBODY


def test_clients_are_told_apart_by_node_only_where_that_matters() -> None:
    close = find_preference(None, Spreading.PREFER_CLOSE, detects=False)
    node = find_preference(None, Spreading.PREFER_SAME_NODE, detects=False)
    assert close
    assert node
    assert set(list_standpoints(close, [HERE], ENDPOINTS)) == {"locality:north/a/rack-1"}
    keys = set(list_standpoints(node, [HERE], ENDPOINTS))
    assert keys == {"locality:north/a/rack-1", *(f"node:node-{number}" for number in range(1, 6))}
    standing = objects.node(labels="topology.kubernetes.io/region: north, topology.kubernetes.io/zone: a")
    assert list_client_keys(standing, "node-1") == ("node:node-1", "locality:north/a/")
    assert list_client_keys(None, "node-1") == ("node:node-1",)


def test_endpoints_are_sorted_by_address() -> None:
    given = [ServingEndpoint(ip_address(each), 80, HERE, True) for each in ("192.0.2.10", "2001:db8::1", "192.0.2.9")]
    [group] = arrange(given)
    assert [str(each.address) for each in group.endpoints] == ["192.0.2.9", "192.0.2.10", "2001:db8::1"]
