"""Discovery over the real transport, with a hub that a test feeds: who is told together, and who holds up nobody."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from unittest.mock import patch

import grpc
import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2

from controller.callers import Authentication
from controller.metrics import ControllerMetrics
from controller.serve.discovery_service import METHOD_NAME, SERVICE_NAME, DiscoveryService
from controller.serve.fan_out import LARGE_RESPONSE_RESOURCES
from controller.serve.hub import Hub
from controller.serve.resources import ADDRESS_TYPE, Resource, ResourceChanges, build_resource
from controller.serve.session import Session, SessionLimits
from controller.serve.wire import DeltaResponse
from controller.transport.server import Server, TransportSettings
from mesh.wire.workload_pb2 import Address
from tests.support.controller_process import build_node_metadata
from tests.support.waiting import until

ACK_TIMEOUT_SECONDS = 0.02
PATIENCE_SECONDS = 20.0
LARGE_BYTES = 4 * 1024 * 1024
Stream = grpc.aio.StreamStreamCall[bytes, bytes]


class Tokens:
    """Tokens that are known at once, and others that somebody has to be asked about. A node's token is its name."""

    def __init__(self) -> None:
        self.valid: set[str] = set()
        self.asked = 0
        self.must_ask = False

    def recall(self, header: str | None) -> str | None:
        return None if self.must_ask else self._find(header)

    async def ask(self, header: str | None) -> str | None:
        self.asked += 1
        await asyncio.sleep(0)
        return self._find(header)

    def _find(self, header: str | None) -> str | None:
        return header if header in self.valid else None


@dataclass(slots=True)
class World:
    """A service, and what feeds it."""

    hub: Hub
    tokens: Tokens
    metrics: ControllerMetrics
    address: str

    def publish(self, content: str, size: int = 1) -> None:
        """Let the one resource be this."""
        self._publish({"a": build(content, size)})

    def publish_many(self, count: int) -> None:
        """So many others besides."""
        self._publish({str(number): build(str(number), name=str(number)) for number in range(count)})

    def _publish(self, resources: dict[str, Resource]) -> None:
        self.hub.publish({ADDRESS_TYPE: ResourceChanges(resources)}, self.hub.version + 1)

    def connect(self) -> grpc.aio.Channel:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        return grpc.aio.insecure_channel(self.address, options)

    async def open(self, channel: grpc.aio.Channel, node: str) -> Stream:
        """A stream of everything, whose first answer was not read yet."""
        self.tokens.valid.add(node)
        call = channel.stream_stream(f"/{SERVICE_NAME}/{METHOD_NAME}", None, None)
        stream: Stream = call(None, metadata=(("authorization", node),), timeout=PATIENCE_SECONDS)
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=ADDRESS_TYPE)
        request.node.id = node
        request.node.metadata.CopyFrom(build_node_metadata(node))
        await stream.write(request.SerializeToString())
        return stream


def build(content: str, size: int = 1, name: str = "a") -> Resource:
    message = Address()
    message.workload.name, message.workload.hostname = content, "x" * size
    return build_resource(ADDRESS_TYPE, name, message)


@asynccontextmanager
async def serving(ack_timeout_seconds: float = ACK_TIMEOUT_SECONDS) -> AsyncIterator[World]:
    metrics = ControllerMetrics()
    hub, tokens = Hub(metrics, SessionLimits(ack_timeout_seconds, 0.0)), Tokens()
    service = DiscoveryService(hub, Authentication(tokens.ask, tokens.recall), metrics)
    server = Server(service.build_handlers(), TransportSettings(100_000))
    port = server.listen("127.0.0.1", 0)
    async with asyncio.timeout(60), server.serving():
        try:
            yield World(hub, tokens, metrics, f"127.0.0.1:{port}")
        finally:
            hub.close()
            await server.stop(0)


async def receive(stream: Stream, is_acknowledged: bool = True) -> list[str]:
    """The contents of the next response."""
    data = await stream.read()
    assert isinstance(data, bytes)
    response = discovery_pb2.DeltaDiscoveryResponse.FromString(data)
    if is_acknowledged:
        answer = discovery_pb2.DeltaDiscoveryRequest(type_url=ADDRESS_TYPE, response_nonce=response.nonce)
        await stream.write(answer.SerializeToString())
    return [Address.FromString(each.resource.value).workload.name for each in response.resources]


async def test_all_clients_are_told_of_a_change() -> None:
    async with serving() as world, world.connect() as channel:
        world.publish("first")
        streams = [await world.open(channel, f"node-{number}") for number in range(50)]
        for each in streams:
            assert await receive(each) == ["first"]
        world.publish("second")
        for each in streams:
            assert await receive(each) == ["second"]
        assert world.metrics.pushes.value(type="Address") == 100
        assert world.metrics.pushed_resources.value(type="Address", change="updated") == 100


async def test_who_does_not_read_is_sent_no_more_and_holds_up_nobody() -> None:
    async with serving() as world, world.connect() as one, world.connect() as other:
        world.publish("first", LARGE_BYTES)
        slow = await world.open(one, "slow")
        fast = await world.open(other, "fast")
        assert await receive(fast) == ["first"]
        for number in range(20):
            world.publish(str(number), LARGE_BYTES)
            assert await receive(fast) == [str(number)]
        # Its answers are long overdue by now; only what it reads makes room.
        [client] = [each for each in world.hub.clients if each.node == "slow"]
        sent = client.session.types[ADDRESS_TYPE].responses
        assert sent <= 2, "one that is on its way, and one that its windows and the sockets had room for"
        told = [await receive(slow) for _ in range(sent)]
        assert told[0] == ["first"]
        assert await receive(slow) == ["19"]


async def test_many_changes_wait_for_an_answer_without_being_looked_at_again_and_again() -> None:
    async with serving(ack_timeout_seconds=60.0) as world, world.connect() as channel:
        world.publish("first")
        stream = await world.open(channel, "node-1")
        assert await receive(stream, is_acknowledged=False) == ["first"]
        [client] = world.hub.clients
        looked = 0
        next_response = client.session.next_response

        def count(version: int, now: float) -> DeltaResponse | None:
            nonlocal looked
            looked += 1
            return next_response(version, now)

        with patch.object(Session, "next_response", staticmethod(count)):
            world.publish_many(LARGE_RESPONSE_RESOURCES + 1)
            await asyncio.sleep(0.05)
        assert looked <= 2
        await stream.write(
            discovery_pb2.DeltaDiscoveryRequest(type_url=ADDRESS_TYPE, response_nonce="1").SerializeToString()
        )
        assert len(await receive(stream)) == LARGE_RESPONSE_RESOURCES + 1


async def test_an_answer_that_does_not_come_is_waited_for_so_long() -> None:
    async with serving() as world, world.connect() as channel:
        world.publish("first")
        stream = await world.open(channel, "node-1")
        assert await receive(stream, is_acknowledged=False) == ["first"]
        world.publish("second")
        assert await receive(stream) == ["second"]


async def test_a_token_is_asked_about_where_that_is_due_and_a_withdrawn_one_ends_its_stream() -> None:
    async with serving() as world, world.connect() as channel:
        stream = await world.open(channel, "node-1")
        assert await receive(stream) == []
        assert world.tokens.asked == 1
        world.tokens.must_ask = True
        world.publish("first")
        assert await receive(stream) == ["first"]
        assert world.tokens.asked == 2
        world.tokens.valid.clear()
        world.publish("second")
        assert await stream.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_client_that_ends_its_side_gets_what_there_is_and_goes() -> None:
    async with serving() as world, world.connect() as channel:
        world.publish("first")
        stream = await world.open(channel, "node-1")
        await stream.done_writing()
        data = await stream.read()
        assert isinstance(data, bytes)
        assert not isinstance(await stream.read(), bytes)
        assert await stream.code() is grpc.StatusCode.OK
        await until(lambda: not world.hub.clients)


async def test_what_is_no_request_ends_its_stream_only() -> None:
    async with serving() as world, world.connect() as channel:
        stream, other = await world.open(channel, "node-1"), await world.open(channel, "node-2")
        for each in (stream, other):
            assert await receive(each) == []
        await stream.write(b"\xff\xff")
        assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT
        world.publish("first")
        assert await receive(other) == ["first"]
