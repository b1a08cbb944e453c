"""The dialogue with one client: a state machine without sockets or clocks.

    per type:   QUIET --something to send--> IN FLIGHT --ACK, NACK or no answer in time--> QUIET

One response of a type is in flight at a time. What changes meanwhile gathers in the subscription, so that a client
that is slow to answer gets the latest state of what changed, once. A NACK is counted and shown; the same content is
not sent again, the next change is. A client that never answers is sent to again after `ack_timeout_seconds`.

The order between types, so that nothing is told of that names what the client has not got: what is named goes first
when it comes, and last when it ends (make before break).

    policies -> addresses                          a workload whose policy is missing refuses all connections
    clusters -> endpoints -> listeners -> routes   a route whose cluster is missing answers 503
    listeners -> secrets                           Envoy asks for a secret once a listener names it, and lets the
                                                   listener's last form serve until it has that; so only its end waits

A ztunnel asks for addresses first and for policies in the same breath; its first addresses wait `policy_wait_seconds`
for that. Envoy asks for the endpoints of a new cluster only once it has that, and has no use of it before it has them:
listeners and routes wait until it was given both, or had `ack_timeout_seconds` for it. For a cluster that has changed
it wants the endpoints told anew, and holds the change back for 15 seconds when they are not.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from controller.registry.names import (
    SIDECARS,
    name_gateway,
    name_ingress,
    name_ingress_proxy,
    name_node,
    name_proxy,
    name_sidecars,
)
from controller.serve.readers import NOBODY, ReaderTable
from controller.serve.resources import (
    ADDRESS_TYPE,
    AUTHORIZATION_TYPE,
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    LISTENER_TYPE,
    ROUTE_TYPE,
    SECRET_TYPE,
    ResourceTable,
)
from controller.serve.subscriptions import WILDCARD, Subscription
from controller.serve.wire import ClientNode, DeltaRequest, DeltaResponse
from mesh.kit.errors import RefusedError, UnknownSummaryError

# A client speaks of a handful of types; Envoy knows about a dozen.
MAX_TYPES = 32
# What is kept of a response and of why it was refused, so that a person can be told: a bound for each client and type.
MAX_TOLD_NAMES = 100
MAX_REFUSALS = 5
# Envoy quotes whole messages.
MAX_ERROR_CHARACTERS = 2_000
_ZTUNNEL_ID_PREFIX = "ztunnel~"
_SIDECAR_ID_PREFIX = "sidecar~"
_NAMED_BY: Mapping[str, tuple[str, ...]] = {
    AUTHORIZATION_TYPE: (ADDRESS_TYPE,),
    CLUSTER_TYPE: (LISTENER_TYPE, ROUTE_TYPE),
    ENDPOINT_TYPE: (CLUSTER_TYPE, LISTENER_TYPE, ROUTE_TYPE),
    SECRET_TYPE: (LISTENER_TYPE,),
}
"""By type, the types whose resources name it, and so must be told of its end first."""
_NAMES: Mapping[str, tuple[str, ...]] = {
    ADDRESS_TYPE: (AUTHORIZATION_TYPE,),
    LISTENER_TYPE: (CLUSTER_TYPE, ENDPOINT_TYPE),
    ROUTE_TYPE: (CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE),
}
"""By type, the types that its resources name."""
_SCOPED = (CLUSTER_TYPE, LISTENER_TYPE)
"""Types of which a proxy that asks for all of them means those that are for it."""


_SUMMED_UP = (ADDRESS_TYPE, AUTHORIZATION_TYPE)
"""Types of which a client that comes back may say only what it has in sum: those that ztunnels have all of."""
_PLACED = (CLUSTER_TYPE, ENDPOINT_TYPE)
"""Types whose resources may have several forms. None of them is summed up: a summary is of one form of each."""


def _find_no_keys(_: str) -> tuple[str, ...]:
    return ()


class ProtocolViolationError(RefusedError):
    """A client does what xDS does not allow; its stream ends."""

    reason = "protocol_violation"


class RequestOutcome(Enum):
    """What a request was."""

    OPENED = "opened"
    RESUMED = "resumed"
    CHANGED = "changed"
    ACK = "ack"
    NACK = "nack"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """`ack_timeout_seconds`: when an unanswered response counts as lost. It blocks nothing but this client's next one.

    `policy_wait_seconds`: both requests of a ztunnel leave it in one write, so a few round trips are plenty.
    """

    ack_timeout_seconds: float = 15.0
    policy_wait_seconds: float = 0.2


@dataclass(frozen=True, slots=True)
class Told:
    """Of what a response told: the first MAX_TOLD_NAMES names, and of how many resources in all.

    No names at all mean everything there was.
    """

    names: tuple[str, ...] = ()
    count: int = 0


@dataclass(frozen=True, slots=True)
class ClientRefusal:
    """A NACK: when it came, by the clock that requests come with, why, and what the response had told."""

    at: float
    version: int
    error: str
    told: Told


@dataclass(slots=True)
class TypeState:
    """Where the dialogue about one type stands. Versions are those of the snapshot that a response was made from.

    `told` is what the last response told; `refused` are names that were in a response which the client refused, and
    that it was not told of again.
    """

    subscription: Subscription
    opened_at: float
    in_flight: str = ""
    sent_at: float = 0.0
    sent_version: int = 0
    acked_version: int = 0
    responses: int = 0
    nacks: int = 0
    last_error: str = ""
    told: Told = Told()
    refused: set[str] = field(default_factory=set)
    refusals: deque[ClientRefusal] = field(default_factory=lambda: deque(maxlen=MAX_REFUSALS))

    def is_blocked(self, now: float, limits: SessionLimits) -> bool:
        return bool(self.in_flight) and now < self.sent_at + limits.ack_timeout_seconds


@dataclass(slots=True)
class Session:
    """One stream. `tables` are shared and only read; a type that is not among them is one of which there is nothing.

    `tells_all` says that each response about listeners or clusters must hold all that the client is to have.
    `proved_node` is the node that the client's token proves, empty for a client without one.
    `find_keys` gives the keys of a client on a node, by which it gets its form of a resource.
    """

    tables: Mapping[str, ResourceTable]
    limits: SessionLimits = field(default_factory=SessionLimits)
    tells_all: bool = False
    proved_node: str = ""
    find_keys: Callable[[str], tuple[str, ...]] = _find_no_keys
    node: ClientNode | None = None
    types: dict[str, TypeState] = field(default_factory=dict)
    nonces: int = 0

    def receive(self, request: DeltaRequest, now: float) -> RequestOutcome:
        """Take a client's message. Raises ProtocolViolationError, TooManyNamesError, UnknownSummaryError."""
        if self.node is None:
            if request.node is None:
                raise ProtocolViolationError("the first request of a stream must carry a node")
            self.node = request.node
        state = self.types.get(request.type_url)
        if state is None:
            return self._open(request, now)
        outcome = self._take_answer(state, request, now)
        if request.subscribe or request.unsubscribe:
            state.subscription.change(request.subscribe, request.unsubscribe)
            return RequestOutcome.CHANGED if outcome is RequestOutcome.STALE else outcome
        return outcome

    def move(self) -> None:
        """The client's node may stand elsewhere."""
        for type_url, state in self.types.items():
            if type_url in _PLACED:
                state.subscription.move(self._list_client_keys())

    def _list_client_keys(self) -> tuple[str, ...]:
        """Those of what this client is a proxy of, and of where it stands."""
        return (*self._list_scopes(), *self.find_keys(self.node.node_name if self.node else ""))

    @property
    def pending_count(self) -> int:
        """How many resources wait to be told of."""
        return sum(state.subscription.pending_count for state in self.types.values())

    def note_changes(self, type_url: str, changed: Iterable[str]) -> None:
        """Mark resources that changed; they go out with the next responses."""
        state = self.types.get(type_url)
        if state is not None:
            state.subscription.note_changes(changed)

    def next_response(self, version: int, now: float) -> DeltaResponse | None:
        """The next message to send, or None when there is none now.

        `version` is the snapshot's that the tables show.
        """
        for type_url, state in self.types.items():
            if state.is_blocked(now, self.limits):
                continue
            updates = not self._must_wait_for_named(type_url, now)
            removals = updates and not self._must_wait_for_naming(type_url, now)
            wanted = state.subscription
            if (updates and (wanted.must_answer or wanted.has_updates)) or (removals and wanted.has_removals):
                return self._send(type_url, state, (updates, removals), version, now)
        return None

    def next_deadline(self, now: float) -> float | None:
        """When next_response may give something without any event: an answer overdue, a wait over. None: never."""
        times = [
            state.sent_at + self.limits.ack_timeout_seconds
            for type_url, state in self.types.items()
            if state.in_flight or type_url == CLUSTER_TYPE
        ]
        times += [state.opened_at + self.limits.policy_wait_seconds for state in self.types.values()]
        return min((time for time in times if time > now), default=None)

    def _open(self, request: DeltaRequest, now: float) -> RequestOutcome:
        if len(self.types) >= MAX_TYPES:
            raise ProtocolViolationError(f"a stream may subscribe to {MAX_TYPES} types")
        table = self.tables.get(request.type_url)
        node_name = self.node.node_name if self.node else ""
        implicit = [name_node(node_name)] if request.type_url == ADDRESS_TYPE and node_name else []
        scopes = self._list_scopes() if request.type_url in _SCOPED else ()
        client_keys = self._list_client_keys() if request.type_url in _PLACED else ()
        table = table if table is not None else ResourceTable()
        if request.type_url == SECRET_TYPE:
            reader = self._find_reader()
            scopes, table = (reader,), ReaderTable(table, reader)
        subscription = Subscription(table, implicit, scopes, client_keys)
        if request.summary is not None:
            subscription.resume(_find_changed(request, request.summary, table))
        else:
            subscription.open(request.subscribe, request.unsubscribe, request.initial_versions)
        self.types[request.type_url] = TypeState(subscription, now)
        is_back = request.initial_versions or request.summary is not None
        return RequestOutcome.RESUMED if is_back else RequestOutcome.OPENED

    def _take_answer(self, state: TypeState, request: DeltaRequest, now: float) -> RequestOutcome:
        if not request.nonce:
            return RequestOutcome.CHANGED
        if request.nonce != state.in_flight:
            return RequestOutcome.STALE
        state.in_flight = ""
        if request.error is not None:
            state.nacks += 1
            state.last_error = request.error[:MAX_ERROR_CHARACTERS]
            state.refused.update(state.told.names)
            state.refusals.append(ClientRefusal(now, state.sent_version, state.last_error, state.told))
            return RequestOutcome.NACK
        state.acked_version = state.sent_version
        state.last_error = ""
        return RequestOutcome.ACK

    def _list_scopes(self) -> Sequence[str]:
        """The keys of what this client means by everything: its gateway's, or a sidecar's; of others it is nothing."""
        node = self.node or ClientNode("", "")
        if node.ingress is not None:
            return (name_ingress(node.ingress),)
        if node.id.startswith(_SIDECAR_ID_PREFIX) and not node.gateway:
            _, _, place, *_ = (*node.id.split("~"), "", "")
            return name_sidecars(place.rpartition(".")[2]), SIDECARS
        namespace, _, name = node.gateway.partition("/")
        return (name_gateway(namespace, name),)

    def _find_reader(self) -> str:
        """The key of the secrets that this client may have: its gateway's proxies', on the node that it has proved."""
        if self.node is None or not self.proved_node:
            return NOBODY
        if self.node.ingress is not None:
            return name_ingress_proxy(self.node.ingress, self.proved_node)
        namespace, _, name = self.node.gateway.partition("/")
        return name_proxy(namespace, name, self.proved_node) if name else NOBODY

    def find_withheld(self, request: DeltaRequest) -> list[str]:
        """The secrets that a request names and its sender cannot have: they are others', or not there."""
        if request.type_url != SECRET_TYPE or not request.subscribe:
            return []
        seen = ReaderTable(self.tables[SECRET_TYPE], self._find_reader())
        return [name for name in request.subscribe if name not in seen and name != WILDCARD]

    def _must_wait_for_named(self, type_url: str, now: float) -> bool:
        """Whether what is new of this type may name something that the client was not told of yet."""
        for named in _NAMES.get(type_url, ()):
            state = self.types.get(named)
            if state is not None and (state.subscription.must_answer or state.subscription.has_updates):
                return True
        if type_url == ADDRESS_TYPE and AUTHORIZATION_TYPE not in self.types:
            is_ztunnel = self.node is not None and self.node.id.startswith(_ZTUNNEL_ID_PREFIX)
            return is_ztunnel and now < self.types[ADDRESS_TYPE].opened_at + self.limits.policy_wait_seconds
        return type_url in (LISTENER_TYPE, ROUTE_TYPE) and self._has_unready_clusters(now)

    def _has_unready_clusters(self, now: float) -> bool:
        clusters, endpoints = self.types.get(CLUSTER_TYPE), self.types.get(ENDPOINT_TYPE)
        if clusters is None or not clusters.sent_at or now >= clusters.sent_at + self.limits.ack_timeout_seconds:
            return False
        if clusters.in_flight:
            return True
        known = self.tables[ENDPOINT_TYPE]
        names = [name for name in clusters.subscription.names_sent if name in known]
        return any(endpoints is None or not endpoints.subscription.is_settled(name) for name in names)

    def _must_wait_for_naming(self, type_url: str, now: float) -> bool:
        """Whether something that the client has may still name what has ended of this type."""
        for naming in _NAMED_BY.get(type_url, ()):
            state = self.types.get(naming)
            if state is not None:
                wanted = state.subscription
                has_more = wanted.must_answer or wanted.has_updates or wanted.has_removals
                if has_more or state.is_blocked(now, self.limits):
                    return True
        return False

    def _send(
        self, type_url: str, state: TypeState, phases: tuple[bool, bool], version: int, now: float
    ) -> DeltaResponse:
        is_whole = self.tells_all and type_url in _SCOPED
        delivery = state.subscription.take_all() if is_whole else state.subscription.take(*phases)
        if type_url == CLUSTER_TYPE and ENDPOINT_TYPE in self.types:
            self.types[ENDPOINT_TYPE].subscription.tell_again(delivery.news)
        self.nonces += 1
        state.in_flight = str(self.nonces)
        state.sent_at, state.sent_version = now, version
        state.responses += 1
        names = [*delivery.news, *delivery.removed]
        state.told = Told(tuple(names[:MAX_TOLD_NAMES]), delivery.count + len(delivery.removed))
        state.refused.difference_update(names)
        parts = delivery.resources, delivery.removed, delivery.framed, delivery.count
        return DeltaResponse(type_url, state.in_flight, str(version), *parts)


def _find_changed(request: DeltaRequest, summary: int, table: ResourceTable) -> Iterable[str]:
    """What is not as a client has it that has everything, and says only what that sums up to."""
    is_everything = not (request.subscribe or request.unsubscribe or request.initial_versions)
    changed = table.find_changed_since(summary) if is_everything and request.type_url in _SUMMED_UP else None
    if changed is None:
        raise UnknownSummaryError(f"the summary of {request.type_url} is not known here: list the versions instead")
    return changed
