"""What is known of a client in each step of the dialogue, as an operator is told."""

import pytest

from controller.inspection.clients import HoldingState, describe_client, find_clients, list_holdings
from controller.metrics import ControllerMetrics
from controller.registry.proxies import build_ingress
from controller.serve.hub import Client, Hub
from controller.serve.resources import ADDRESS_TYPE, ResourceChanges, build_resource
from controller.serve.session import (
    MAX_ERROR_CHARACTERS,
    MAX_REFUSALS,
    MAX_TOLD_NAMES,
    ClientRefusal,
    SessionLimits,
)
from controller.serve.wire import ClientNode, DeltaRequest, DeltaResponse
from mesh.wire.workload_pb2 import Address, Workload


class World:
    """A hub with one client, on a clock in the test's hand."""

    def __init__(self) -> None:
        self.hub = Hub(ControllerMetrics(), SessionLimits(ack_timeout_seconds=10))
        self.now = 100.0

    def publish(self, *removed: str, **contents: str) -> None:
        updated = {
            name: build_resource(ADDRESS_TYPE, name, Address(workload=Workload(uid=name, name=content)))
            for name, content in contents.items()
        }
        self.hub.publish({ADDRESS_TYPE: ResourceChanges(updated, frozenset(removed))}, self.hub.version + 1)

    def send(self, client: Client, nonce: str = "", error: str | None = None, subscribe: tuple[str, ...] = ()) -> None:
        node = ClientNode("envoy-1", "", "demo/web", build_ingress("edge", {"istio": "ingress"}))
        request = DeltaRequest(ADDRESS_TYPE, node, nonce=nonce, error=error, subscribe=subscribe)
        client.session.receive(request, self.now)

    def receive(self, client: Client) -> DeltaResponse:
        response = client.session.next_response(self.hub.version, self.now)
        assert response
        return response


@pytest.fixture
def world() -> World:
    return World()


def states(client: Client) -> dict[str, HoldingState]:
    return {each.name: each.state for each in list_holdings(client)}


def refusals(client: Client) -> list[ClientRefusal]:
    return list(client.session.types[ADDRESS_TYPE].refusals)


@pytest.mark.parametrize("subscribe", [(), ("a", "b")], ids=["everything", "by-name"])
def test_each_step_of_the_dialogue_is_told(world: World, subscribe: tuple[str, ...]) -> None:
    waiting, unanswered, refused, done, ending = (
        HoldingState.WAITING,
        HoldingState.UNANSWERED,
        HoldingState.REFUSED,
        HoldingState.ACKNOWLEDGED,
        HoldingState.ENDING,
    )
    world.publish(a="1", b="1")
    with world.hub.connect("node-1", "peer", 0) as client:
        assert states(client) == {}
        world.send(client, subscribe=subscribe)
        assert states(client) == {"a": waiting, "b": waiting}
        first = world.receive(client)
        assert states(client) == {"a": unanswered, "b": unanswered}
        world.send(client, first.nonce)
        assert states(client) == {"a": done, "b": done}
        world.publish(a="2")
        assert states(client) == {"a": waiting, "b": done}
        second = world.receive(client)
        assert states(client) == {"a": unanswered, "b": done}
        world.now += 3
        world.send(client, second.nonce, error="no")
        assert states(client) == {"a": refused, "b": done}
        [refusal] = refusals(client)
        assert (refusal.error, refusal.version, refusal.told.names, refusal.told.count) == ("no", 2, ("a",), 1)
        world.publish(b="2")
        world.send(client, world.receive(client).nonce)
        assert states(client) == {"a": refused, "b": done}, "an acknowledgement is of what was sent with it only"
        world.publish(a="3")
        world.send(client, world.receive(client).nonce)
        assert states(client) == {"a": done, "b": done}
        world.publish("a")
        assert states(client) == {"a": ending, "b": done}
        world.send(client, world.receive(client).nonce)
        assert states(client) == {"b": done}


def test_what_is_kept_of_refusals_is_bounded(world: World) -> None:
    with world.hub.connect("node-1", "peer", 0) as client:
        world.send(client)
        world.send(client, world.receive(client).nonce)
        for number in range(MAX_REFUSALS + 2):
            names = {f"r{number}-{each}": "1" for each in range(MAX_TOLD_NAMES + 50)}
            world.publish(**names)
            world.send(client, world.receive(client).nonce, error="x" * (2 * MAX_ERROR_CHARACTERS))
        found = refusals(client)
        assert len(found) == MAX_REFUSALS
        assert {(len(each.error), len(each.told.names), each.told.count) for each in found} == {
            (MAX_ERROR_CHARACTERS, MAX_TOLD_NAMES, MAX_TOLD_NAMES + 50)
        }
        assert found[-1].told.names[0].startswith(f"r{MAX_REFUSALS + 1}-")
        world.publish(*(each.name for each in list_holdings(client)))
        world.send(client, world.receive(client).nonce)
        assert not client.session.types[ADDRESS_TYPE].refused, "what is no more is not kept either"


def test_who_refuses_the_first_response_refuses_all_of_it(world: World) -> None:
    world.publish(a="1", b="1")
    with world.hub.connect("node-1", "peer", 0) as client:
        world.send(client)
        world.send(client, world.receive(client).nonce, error="too much")
        [refusal] = refusals(client)
        assert (refusal.told.names, refusal.told.count) == ((), 2)
        assert set(states(client).values()) == {HoldingState.REFUSED}
        described = describe_client(client, world.now + 5)
        types = described["types"]
        assert isinstance(types, dict)
        assert types[ADDRESS_TYPE]["refusals"] == [
            {"seconds_ago": 5.0, "version": 1, "error": "too much", "resource_count": 2, "resources": []}
        ]


def test_clients_are_found_by_each_of_their_names(world: World) -> None:
    with world.hub.connect("node-1", "ipv4:192.0.2.1:5", 0) as one, world.hub.connect("node-1", "ipv4:192.0.2.1:6", 0):
        world.send(one)
        for name in ("envoy-1", "demo/web", "edge/istio=ingress", one.peer):
            assert find_clients(world.hub, name) == [one]
        assert len(find_clients(world.hub, "node-1")) == 2
        assert find_clients(world.hub, "") == []


def test_a_type_and_a_name_can_be_asked_for(world: World) -> None:
    world.publish(a="1", b="1")
    with world.hub.connect("node-1", "peer", 0) as client:
        world.send(client)
        assert [each.name for each in list_holdings(client, "ADDRESS", "b")] == ["b"]
        assert list(list_holdings(client, "Listener")) == []
        [holding] = list_holdings(client, name="a")
        shown = holding.show(has_content=True)
        assert shown["resource"] == {"@type": ADDRESS_TYPE, "workload": {"uid": "a", "name": "1"}}
        assert "resource" not in holding.show(has_content=False)
