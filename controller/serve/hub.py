"""All that is served at present, and everybody who is connected: a publication comes in, every client is woken once."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from controller.metrics import ControllerMetrics, short_type
from controller.registry.proxies import Ingress
from controller.serve.resources import (
    ADDRESS_TYPE,
    AUTHORIZATION_TYPE,
    ROUTING_TYPES,
    ResourceChanges,
    ResourceTable,
)
from controller.serve.session import Session, SessionLimits
from controller.serve.turns import Turns
from controller.serve.wire import DeltaRequest


@dataclass(slots=True, eq=False)
class Client:
    """One connected client. `wake` is called when there may be something to send, or the process is about to end.

    `ingress` is the ingress gateway that was opened for it.
    """

    node: str
    peer: str
    session: Session
    connected_at: float
    ingress: Ingress | None = None
    wake: Callable[[], None] = lambda: None


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
        self.open_ingress: Callable[[Ingress], None] | None = None
        """Called when the first proxy of an ingress gateway asks for such a type."""
        self.close_ingress: Callable[[Ingress], None] | None = None
        """Called when the last one has gone."""
        self._ingresses: Counter[Ingress] = Counter()

        self.find_client_keys: Callable[[str], tuple[str, ...]] = lambda _: ()
        """By which a client on a node gets its form of what has several."""

    def move_clients(self) -> None:
        """Nodes may stand elsewhere: their clients get what has another form there."""
        for client in self._clients:
            client.session.move()
            client.wake()

    @property
    def clients(self) -> list[Client]:
        return sorted(self._clients, key=lambda client: (client.node, client.connected_at))

    @property
    def ingresses(self) -> list[Ingress]:
        """The ingress gateways that have proxies here."""
        return sorted(self._ingresses)

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
            client.wake()
        return total

    def prepare(self, client: Client, request: DeltaRequest) -> None:
        """Have what a client is about to ask for."""
        if request.type_url not in ROUTING_TYPES:
            return
        if self.publish_routing is not None:
            publish, self.publish_routing = self.publish_routing, None
            publish()
        node = client.session.node or request.node
        if client.ingress is None and node is not None and node.ingress is not None:
            client.ingress = node.ingress
            self._ingresses[node.ingress] += 1
            if self._ingresses[node.ingress] == 1 and self.open_ingress is not None:
                self.open_ingress(node.ingress)

    def _release(self, ingress: Ingress) -> None:
        self._ingresses[ingress] -= 1
        if not self._ingresses[ingress]:
            del self._ingresses[ingress]
            if self.close_ingress is not None:
                self.close_ingress(ingress)

    @contextmanager
    def connect(self, node: str, peer: str, now: float, tells_all: bool = False) -> Iterator[Client]:
        """A client's stay."""
        client = Client(node, peer, Session(self.tables, self._limits, tells_all, node, self.find_client_keys), now)
        self._clients.add(client)
        self._metrics.clients.set(len(self._clients))
        try:
            yield client
        finally:
            self._clients.discard(client)
            self._metrics.clients.set(len(self._clients))
            if client.ingress is not None:
                self._release(client.ingress)

    def close(self) -> None:
        """Let every stream end."""
        self.is_closing = True
        for client in self._clients:
            client.wake()
