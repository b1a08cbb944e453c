"""A client that asks for what it needs, and is told of nothing else."""

import pytest

from controller.serve.resources import (
    AUTHORIZATION_TYPE,
)
from controller.serve.wire import ClientNode
from tests.support.dialogue import Dialogue, resource


@pytest.fixture
def dialogue() -> Dialogue:
    return Dialogue()


@pytest.fixture
def on_demand(dialogue: Dialogue) -> Dialogue:
    """A client that has subscribed to nothing yet, beside a mesh of two pods and a service."""
    dialogue.publish(
        resource("uid-1", aliases=("/198.51.100.1",), keys=("demo/web", "/192.0.2.1")),
        resource("uid-2", aliases=("/198.51.100.2",), keys=("demo/web", "/192.0.2.1", "node:node-2")),
        resource("demo/web", aliases=("/192.0.2.1",)),
        resource("uid-3", aliases=("/198.51.100.3",)),
    )
    dialogue.send(subscribe=["*"], unsubscribe=["*"])
    sent = dialogue.expect_and_acknowledge()
    assert (sent.versions, sent.removed) == ({}, [])
    return dialogue


@pytest.mark.parametrize(
    ("key", "names"),
    [
        pytest.param("uid-1", {"uid-1"}, id="uid"),
        pytest.param("/198.51.100.1", {"uid-1", "/198.51.100.1"}, id="address"),
        pytest.param("demo/web", {"demo/web", "uid-1", "uid-2"}, id="host-name"),
        pytest.param("/192.0.2.1", {"demo/web", "uid-1", "uid-2", "/192.0.2.1"}, id="virtual-address"),
    ],
)
def test_key_is_answered_with_what_it_leads_to(on_demand: Dialogue, key: str, names: set[str]) -> None:
    on_demand.send(subscribe=[key])
    sent = on_demand.expect_and_acknowledge()
    assert set(sent.versions) == names
    assert sent.removed == []


def test_unknown_key_is_answered_as_removed_and_arrives_when_it_exists(on_demand: Dialogue) -> None:
    on_demand.send(subscribe=["/203.0.113.9"])
    assert on_demand.expect_and_acknowledge().removed == ["/203.0.113.9"]
    on_demand.publish(resource("uid-9", aliases=("/203.0.113.9",)))
    sent = on_demand.expect_and_acknowledge()
    assert set(sent.versions) == {"uid-9", "/203.0.113.9"}
    assert sent.aliases["uid-9"] == ["/203.0.113.9"]


def test_only_what_was_asked_for_is_followed(on_demand: Dialogue) -> None:
    on_demand.send(subscribe=["demo/web"])
    on_demand.expect_and_acknowledge()
    on_demand.publish(resource("uid-3", "2"), resource("uid-4", keys=("demo/web",)))
    assert set(on_demand.expect_and_acknowledge().versions) == {"uid-4"}
    on_demand.publish(removed=["uid-1", "uid-3"])
    assert on_demand.expect_and_acknowledge().removed == ["uid-1"]
    on_demand.send(unsubscribe=["demo/web"])
    on_demand.publish(resource("uid-2", "2"))
    assert on_demand.receive() is None


def test_removal_is_told_under_every_name_that_was_sent(on_demand: Dialogue) -> None:
    on_demand.send(subscribe=["/198.51.100.3"])
    on_demand.expect_and_acknowledge()
    on_demand.publish(removed=["uid-3"])
    assert on_demand.expect_and_acknowledge().removed == ["/198.51.100.3", "uid-3"]


def test_address_that_moves_to_another_pod_is_no_removal(on_demand: Dialogue) -> None:
    on_demand.send(subscribe=["/198.51.100.3"])
    on_demand.expect_and_acknowledge()
    on_demand.publish(resource("uid-5", aliases=("/198.51.100.3",)), removed=["uid-3"])
    sent = on_demand.expect_and_acknowledge()
    assert (set(sent.versions), sent.removed) == ({"uid-5", "/198.51.100.3"}, ["uid-3"])


def test_workloads_of_the_clients_own_node_come_unasked() -> None:
    dialogue = Dialogue(ClientNode("ztunnel~x", "node-2"))
    dialogue.publish(resource("near", keys=("node:node-2",)), resource("far", keys=("node:node-1",)))
    dialogue.send(AUTHORIZATION_TYPE)
    dialogue.expect_and_acknowledge()
    dialogue.send(subscribe=["*"], unsubscribe=["*"])
    assert set(dialogue.expect_and_acknowledge().versions) == {"near"}


def test_returning_client_on_demand_keeps_its_keys(on_demand: Dialogue) -> None:
    on_demand.send(subscribe=["/198.51.100.1", "uid-3"])
    known = on_demand.expect_and_acknowledge().versions
    on_demand.reconnect()
    on_demand.publish(resource("uid-3", "2"))
    on_demand.send(subscribe=["*"], unsubscribe=["*"], versions={**known, "gone": "1"})
    sent = on_demand.expect_and_acknowledge()
    assert (set(sent.versions), sent.removed) == ({"uid-3"}, ["gone"])
