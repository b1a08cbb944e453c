"""All that is served at present, and everybody who is connected: a publication comes in, every client is woken once."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from controller.metrics import ControllerMetrics, short_type
from controller.serve.resources import (
    ADDRESS_TYPE,
    AUTHORIZATION_TYPE,
    ROUTING_TYPES,
    ResourceChanges,
    ResourceTable,
)
from controller.serve.session import Session, SessionLimits
from controller.serve.turns import Turns


@dataclass(slots=True, eq=False)
class Client:
    """One connected client. `wake` is set when there may be something to send, or the process is about to end."""

    node: str
    peer: str
    session: Session
    connected_at: float
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class Hub:
    """Owner of the resource tables. Used from one event loop only; publishing never waits for a client."""

    def __init__(self, metrics: ControllerMetrics, limits: SessionLimits) -> None:
        self._metrics = metrics
        self._limits = limits
        self._clients: set[Client] = set()
        self.version = 0
        self.is_closing = False
        self.turns = Turns()
        self.tables: dict[str, ResourceTable] = {
            type_url: ResourceTable() for type_url in (AUTHORIZATION_TYPE, ADDRESS_TYPE, *ROUTING_TYPES)
        }
        self.publish_routing: Callable[[], None] | None = None
        """Called when the first client asks for a type of which nothing is built before somebody wants it."""

        self.find_client_keys: Callable[[str], tuple[str, ...]] = lambda _: ()
        """By which a client on a node gets its form of what has several."""

    def move_clients(self) -> None:
        """Nodes may stand elsewhere: their clients get what has another form there."""
        for client in self._clients:
            client.session.move()
            client.wake.set()

    @property
    def clients(self) -> list[Client]:
        return sorted(self._clients, key=lambda client: (client.node, client.connected_at))

    def publish(self, changes: Mapping[str, ResourceChanges], version: int) -> int:
        """Take over what changed, as one step: no client sees half of it. Gives how many resources really changed."""
        self.version = version
        total = 0
        for type_url, change in changes.items():
            changed = self.tables[type_url].apply(change)
            total += len(changed)
            self._metrics.resources.set(len(self.tables[type_url]), type=short_type(type_url))
            for client in self._clients if changed else ():
                client.session.note_changes(type_url, changed)
        self._metrics.snapshot_version.set(version)
        for client in self._clients if total else ():
            client.wake.set()
        return total

    def prepare(self, type_url: str) -> None:
        """A client asks for this type."""
        if type_url in ROUTING_TYPES and self.publish_routing is not None:
            publish, self.publish_routing = self.publish_routing, None
            publish()

    @contextmanager
    def connect(self, node: str, peer: str, now: float, tells_all: bool = False) -> Iterator[Client]:
        """A client's stay."""
        client = Client(node, peer, Session(self.tables, self._limits, tells_all, self.find_client_keys), now)
        self._clients.add(client)
        self._metrics.clients.set(len(self._clients))
        try:
            yield client
        finally:
            self._clients.discard(client)
            self._metrics.clients.set(len(self._clients))

    def close(self) -> None:
        """Let every stream end."""
        self.is_closing = True
        for client in self._clients:
            client.wake.set()
