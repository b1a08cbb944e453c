"""What one client wants of one type of resource, and what of it has not been sent yet.

Two kinds: a *wildcard* gets everything; of it we keep no list of what it has, for that would be the mesh once more per
client: a removal is told to it whether it had the thing or not, which is harmless. An *explicit* one names keys (a
resource's name, an address, a service's host name); of it we keep the keys and what was sent.

What changes is kept as a set of names, not as a queue of states: what goes out is the state at the time of sending.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from controller.serve.resources import Resource, ResourceTable
from controller.serve.wire import rename_resource
from mesh.kit.errors import RefusedError

WILDCARD = "*"
# Explicit names that a client may hold, per type: a bound on what one client can make us keep (about 20 MiB). A node
# that needs more addresses than this is served better by the wildcard.
MAX_NAMES = 100_000
# One response; stock ztunnels take messages up to 200 MiB, and readiness opens with the first one.
MAX_RESPONSE_BYTES = 64 * 1024 * 1024


class TooManyNamesError(RefusedError):
    """A client subscribed to more names than a client may."""

    reason = "too_many_names"


@dataclass(frozen=True, slots=True)
class Delivery:
    """What goes out in one response. `news` are the names of what the client does not have so, unless it gets all.

    `framed` are resources that are put together already.
    """

    news: list[str]
    resources: list[bytes]
    removed: list[str]
    framed: bytes = b""
    count: int = 0


class Subscription:
    """One client's subscription to one type. The table is the type's; it is read, never changed.

    `scopes` are keys of all that a client may mean by everything, where that is less than the whole table: of these the
    first counts that leads to anything. `client_keys` say which form of a resource is this client's.
    """

    def __init__(
        self,
        table: ResourceTable,
        implicit_keys: Iterable[str] = (),
        scopes: Sequence[str] = (),
        client_keys: tuple[str, ...] = (),
    ) -> None:
        self._table = table
        self._implicit = frozenset(implicit_keys)
        self._scopes = scopes
        self._scope = table.choose_key(scopes) if scopes else ""
        self._client_keys = client_keys
        self._keys: set[str] = set(self._implicit)
        self._sent: dict[str, tuple[str, ...]] = {}
        self._pending: set[str] = set()
        self._missing: set[str] = set()
        self.is_wildcard = False
        self.must_answer = True
        self._has_nothing = False

    @property
    def key_count(self) -> int:
        return len(self._keys - self._implicit - {self._scope})

    @property
    def pending_count(self) -> int:
        return len(self._table) if self._has_nothing else len(self._pending)

    @property
    def has_updates(self) -> bool:
        """Whether something new or changed waits to be sent."""
        return (self._has_nothing and len(self._table) > 0) or any(self._find_wanted(name) for name in self._pending)

    @property
    def has_removals(self) -> bool:
        """Whether the end of something waits to be told."""
        return bool(self._missing) or any(self._find_wanted(name) is None for name in self._pending)

    @property
    def names_sent(self) -> Iterable[str]:
        """What the client has; not known of a client that has everything."""
        return self._sent.keys()

    def list_names(self) -> list[str]:
        """All that the client has or is about to be told of, sorted."""
        return sorted({*(self._table.names() if self.is_wildcard else self._sent), *self._pending})

    def find(self, name: str) -> Resource | None:
        """The resource as it is now, which the client has unless it waits to be told of it, in the client's form."""
        resource = self._find_wanted(name)
        if resource is None or not resource.forms:
            return resource
        form = resource.find_form(self._client_keys)
        return replace(resource, version=form.version, wire=form.wire, forms={})

    def is_waiting(self, name: str) -> bool:
        """Whether the client is to be told of it, and was not yet."""
        return name in self._pending or self._has_nothing

    def is_settled(self, name: str) -> bool:
        """Whether the client has asked for `name`, and has been told what there is to tell of it."""
        return name in self._keys and name not in self._pending and name not in self._missing

    def open(self, subscribe: Iterable[str], unsubscribe: Iterable[str], versions: Mapping[str, str]) -> None:
        """The first request. `versions` is what the client has from an earlier connection: it is not sent again.

        No names at all means everything; `*` subscribed and unsubscribed at once means nothing yet, and keys to come.
        """
        keys = set(subscribe)
        self.is_wildcard = not keys or WILDCARD in keys
        if WILDCARD in unsubscribe:
            self.is_wildcard = False
        if self.is_wildcard and self._scope:
            self.is_wildcard = False
            self._keys.add(self._scope)
            self._want(self._scope, versions)
            self._missing.update(versions.keys() - set(self._table.find_names(self._scope)))
        elif self.is_wildcard:
            self._has_nothing = not versions
            # A thousand clients that come at once and have nothing are not a thousand sets of all names.
            self._pending = self._table.find_differing(versions, self._client_keys) if versions else set()
        elif not self._scope:
            keys.update(versions)
        self.change(keys - {WILDCARD}, set(unsubscribe) - {WILDCARD}, versions)
        for key in () if self.is_wildcard else self._implicit:
            self._want(key, versions)

    def resume(self, changed: Iterable[str]) -> None:
        """The first request of a client that has everything as it was before these changed."""
        self.is_wildcard = True
        self._pending.update(changed)

    def change(
        self, subscribe: Iterable[str], unsubscribe: Iterable[str], versions: Mapping[str, str] | None = None
    ) -> None:
        """A later request. Each key asked for is answered, with what it leads to or as removed."""
        for key in subscribe:
            if key == WILDCARD and self._scope:
                self._keys.add(self._scope)
                self._want(self._scope, {})
            elif key == WILDCARD:
                self.is_wildcard = True
                self._pending.update(self._table.names())
            else:
                self._keys.add(key)
                self._want(key, versions or {})
            self.must_answer = True
        if len(self._keys) > MAX_NAMES:
            raise TooManyNamesError(f"a client may subscribe to {MAX_NAMES} names; use the wildcard")
        for key in unsubscribe:
            if key == WILDCARD:
                self.is_wildcard = False
            self._keys.discard(key)
            self._missing.discard(key)
        if unsubscribe:
            self._forget_unwanted()

    def note_changes(self, changed: Iterable[str]) -> None:
        """Mark what has changed in the table, as far as this client is concerned."""
        if self.is_wildcard:
            self._pending.update(changed)
            return
        if len(self._scopes) > 1:
            self._follow_scope()
        self._pending.update(name for name in changed if name in self._sent or self._wants(self._table.find(name)))

    def _follow_scope(self) -> None:
        """What this client means by everything may be something else now: all that it has or gets is looked at."""
        before, self._scope = self._scope, self._table.choose_key(self._scopes)
        if before != self._scope and before in self._keys:
            self._keys.discard(before)
            self._keys.add(self._scope)
            self._pending.update(self._sent, self._table.find_names(self._scope))

    def take(self, updates: bool = True, removals: bool = True) -> Delivery:
        """Take out what is to be sent now, at most MAX_RESPONSE_BYTES of it; the rest stays pending."""
        has_all = self._has_nothing and not self._client_keys
        if has_all and updates and len(self._table.framed) <= MAX_RESPONSE_BYTES:
            self._has_nothing = self.must_answer = False
            self._pending.clear()
            self._missing.clear()
            return Delivery([], [], [], self._table.framed, len(self._table))
        if self._has_nothing:
            self._has_nothing = False
            self._pending.update(self._table.names())
        news: list[str] = []
        resources: list[bytes] = []
        removed: set[str] = set()
        size, sent_aliases = 0, set[str]()
        for name in sorted(self._pending):
            resource = self._find_wanted(name)
            if resource is None and removals:
                self._pending.discard(name)
                removed.update((name, *self._sent.pop(name, ())))
            elif resource is not None and updates and size < MAX_RESPONSE_BYTES:
                self._pending.discard(name)
                news.append(name)
                aliases = self._remember(resource)
                wire = resource.find_form(self._client_keys).wire
                forms = [wire, *(rename_resource(wire, alias) for alias in aliases)]
                size += sum(map(len, forms))
                resources += forms
                sent_aliases.update(aliases)
        if removals:
            removed |= self._missing
            self._missing.clear()
        self.must_answer = False
        # An address that went from one pod to another in between is no removal.
        return Delivery(news, resources, sorted(removed - sent_aliases), count=len(resources))

    def take_all(self) -> Delivery:
        """Take out all that the client is to have, whether it was sent before or not: the older form's answer."""
        names = (
            self._table.names()
            if self.is_wildcard
            else {name for key in self._keys for name in self._table.find_names(key)}
        )
        found = [resource for name in sorted(names) if (resource := self._table.find(name)) is not None]
        news = [each.name for each in found if each.name in self._pending]
        self._sent = {each.name: () for each in found}
        self._pending.clear()
        self._missing.clear()
        self.must_answer = False
        wires = [each.find_form(self._client_keys).wire for each in found]
        return Delivery(news, wires, [], count=len(found))

    def tell_again(self, names: Iterable[str]) -> None:
        """Let these go out once more, as far as this client asked for them."""
        self._pending.update(name for name in names if name in self._sent)

    def move(self, client_keys: tuple[str, ...]) -> None:
        """The client stands elsewhere: what has another form there goes out once more."""
        before, self._client_keys = self._client_keys, client_keys
        for name in self._table.names() if self.is_wildcard else list(self._sent):
            resource = self._table.find(name)
            if resource and resource.find_form(before) != resource.find_form(client_keys):
                self._pending.add(name)

    def _want(self, key: str, versions: Mapping[str, str]) -> None:
        names = set(self._table.find_names(key))
        for name in names:
            resource = self._table.find(name)
            if resource and versions.get(name) == resource.find_version(self._client_keys):
                self._remember(resource)
            else:
                self._pending.add(name)
        if not names and key not in self._implicit and key != self._scope:
            self._missing.add(key)

    def _wants(self, resource: Resource | None) -> bool:
        if resource is None:
            return False
        self._missing.difference_update((resource.name, *resource.keys))
        return self._is_named(resource)

    def _is_named(self, resource: Resource) -> bool:
        return resource.name in self._keys or not self._keys.isdisjoint(resource.keys)

    def _find_wanted(self, name: str) -> Resource | None:
        """The resource, unless it is no more, or none of this client's any more."""
        resource = self._table.find(name)
        return resource if resource is not None and (self.is_wildcard or self._is_named(resource)) else None

    def _remember(self, resource: Resource | None) -> tuple[str, ...]:
        """Note that the client has it; gives the aliases under which it asked for it.

        Under each of those it goes out once more: a stock ztunnel that waits for an address is released only by a
        resource of exactly that name (facts of ztunnel, 4.3); others look at the aliases.
        """
        if resource is None or self.is_wildcard:
            return ()
        aliases = tuple(alias for alias in resource.aliases if alias in self._keys)
        self._sent[resource.name] = aliases
        return aliases

    def _forget_unwanted(self) -> None:
        if self.is_wildcard:
            return
        kept = {name for name in {*self._sent, *self._pending} if self._wants(self._table.find(name))}
        self._sent = {name: aliases for name, aliases in self._sent.items() if name in kept}
        self._pending &= kept
