"""One xDS client and the server's tables: each message by itself, and the clock in the test's hand."""

from collections.abc import Sequence

from envoy.service.discovery.v3 import discovery_pb2

from controller.serve.resources import (
    ADDRESS_TYPE,
    AUTHORIZATION_TYPE,
    Resource,
    ResourceChanges,
    ResourceTable,
    build_resource,
)
from controller.serve.session import (
    RequestOutcome,
    Session,
    SessionLimits,
)
from controller.serve.wire import ClientNode, DeltaRequest
from mesh.wire.workload_pb2 import Address, Workload

LIMITS = SessionLimits(ack_timeout_seconds=10, policy_wait_seconds=1)
PLAIN = ClientNode("test", "node-1")
ZTUNNEL = ClientNode("ztunnel~192.0.2.1~ztunnel.istio-system~x", "node-1")


def resource(name: str, content: str = "1", aliases: tuple[str, ...] = (), keys: tuple[str, ...] = ()) -> Resource:
    message = Address(workload=Workload(uid=name, name=content))
    return build_resource(ADDRESS_TYPE, name, message, aliases, (*aliases, *keys))


class Sent:
    """A response as the client decodes it from the wire."""

    def __init__(self, data: bytes) -> None:
        message = discovery_pb2.DeltaDiscoveryResponse.FromString(data)
        self.type_url: str = message.type_url
        self.nonce: str = message.nonce
        self.version: str = message.system_version_info
        self.versions: dict[str, str] = {each.name: each.version for each in message.resources}
        self.aliases: dict[str, list[str]] = {each.name: list(each.aliases) for each in message.resources}
        self.contents = {each.name: Address.FromString(each.resource.value).workload.name for each in message.resources}
        self.removed: list[str] = list(message.removed_resources)


class Dialogue:
    """One client and the server's tables."""

    def __init__(self, node: ClientNode = PLAIN) -> None:
        self.tables = {AUTHORIZATION_TYPE: ResourceTable(), ADDRESS_TYPE: ResourceTable()}
        self.node = node
        self.now = 100.0
        self.version = 0
        self.reconnect()

    def reconnect(self) -> None:
        self.session = Session(self.tables, LIMITS)

    def publish(self, *resources: Resource, removed: Sequence[str] = (), type_url: str = ADDRESS_TYPE) -> None:
        self.version += 1
        updated = {each.name: each for each in resources}
        changed = self.tables[type_url].apply(ResourceChanges(updated, frozenset(removed)))
        self.session.note_changes(type_url, changed)

    def send(
        self,
        type_url: str = ADDRESS_TYPE,
        subscribe: Sequence[str] = (),
        unsubscribe: Sequence[str] = (),
        versions: dict[str, str] | None = None,
        nonce: str = "",
        error: str | None = None,
        summary: int | None = None,
    ) -> RequestOutcome:
        request = DeltaRequest(type_url, self.node, subscribe, unsubscribe, versions or {}, nonce, error, summary)
        return self.session.receive(request, self.now)

    def receive(self) -> Sent | None:
        response = self.session.next_response(self.version, self.now)
        return Sent(b"".join(response.encode())) if response else None

    def expect(self) -> Sent:
        sent = self.receive()
        assert sent is not None
        return sent

    def expect_and_acknowledge(self) -> Sent:
        sent = self.expect()
        assert self.send(sent.type_url, nonce=sent.nonce) is RequestOutcome.ACK
        return sent
