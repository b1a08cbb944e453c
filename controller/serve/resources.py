"""The resources that are served, by type and name: each serialised once, its version a hash of its content.

A version that is a hash of the content is the same after a restart and on every replica, so that a client that comes
back gets only what differs from what it has.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from hashlib import blake2b, sha256

from google.protobuf.message import Message

from controller.serve.wire import encode_resource, frame_resources

TYPE_PREFIX = "type.googleapis.com/"
ADDRESS_TYPE = TYPE_PREFIX + "istio.workload.Address"
AUTHORIZATION_TYPE = TYPE_PREFIX + "istio.security.Authorization"
CLUSTER_TYPE = TYPE_PREFIX + "envoy.config.cluster.v3.Cluster"
ENDPOINT_TYPE = TYPE_PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER_TYPE = TYPE_PREFIX + "envoy.config.listener.v3.Listener"
ROUTE_TYPE = TYPE_PREFIX + "envoy.config.route.v3.RouteConfiguration"
SECRET_TYPE = TYPE_PREFIX + "envoy.extensions.transport_sockets.tls.v3.Secret"
ROUTING_TYPES = (CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE, SECRET_TYPE)
"""Envoy's own, which are served once somebody asks for one of them."""

# What one table remembers of its changes: names, all together. A change of one pod is one or two.
REMEMBERED_NAMES = 100_000
_SUMMARY_BYTES = 16
_SUMMARIES = 1 << 8 * _SUMMARY_BYTES

# 64 bits: a collision would need two contents of one name; an attacker who can write either needs none.
_VERSION_BYTES = 8


@dataclass(frozen=True, slots=True)
class Form:
    """What goes out of a resource, and the version of that."""

    version: str
    wire: bytes = field(repr=False)  # it may be a secret


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource as it goes out.

    `wire` is what a subscriber gets: the serialised envoy.service.discovery.v3.Resource. Those get another form of it
    who have one of the keys of `forms`, which say what a client is and where it stands (docs/decisions/0015).
    `aliases` are other names of this very resource, and go out with it; `keys` are all other names under which it is
    found. `version` hashes its content.
    """

    name: str
    version: str
    wire: bytes = field(repr=False)  # it may be a secret
    aliases: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    forms: Mapping[str, Form] = field(default_factory=dict)

    def find_form(self, client_keys: Iterable[str]) -> Form:
        """What a client gets that has these keys; the first counts that there is a form for."""
        found = (self.forms[key] for key in client_keys if key in self.forms) if self.forms else ()
        return next(iter(found), None) or Form(self.version, self.wire)

    def find_version(self, client_keys: Iterable[str]) -> str:
        """The version of that."""
        return self.find_form(client_keys).version if self.forms else self.version


def name_form(name: str, key: str) -> str:
    """What a person reads as the name of the form that clients of a key get."""
    return f"{name} at {key}"


def build_resource(
    type_url: str,
    name: str,
    message: Message,
    aliases: tuple[str, ...] = (),
    keys: tuple[str, ...] = (),
    forms: Mapping[str, Message] | None = None,
) -> Resource:
    """Serialise `message`, with its maps in order so that equal content is equal bytes.

    `keys` default to the aliases. `forms` are what clients of those keys get instead: the same name, other content.
    """
    common = _build_form(type_url, name, message, aliases)
    built = {key: _build_form(type_url, name, form, aliases) for key, form in (forms or {}).items()}
    return Resource(name, common.version, common.wire, aliases, keys or aliases, built)


def _build_form(type_url: str, name: str, message: Message, aliases: tuple[str, ...]) -> Form:
    body = message.SerializeToString(deterministic=True)
    version = blake2b(body, digest_size=_VERSION_BYTES).hexdigest()
    return Form(version, encode_resource(type_url, name, version, body, aliases))


@dataclass(frozen=True, slots=True)
class ResourceChanges:
    """What a change does to the resources of one type."""

    updated: Mapping[str, Resource] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()


class ChangeGatherer:
    """Gathers the changes of one type, resource by resource."""

    def __init__(self) -> None:
        self._updated: dict[str, Resource] = {}
        self._removed: set[str] = set()

    def put(self, name: str, resource: Resource | None) -> None:
        """Note that `name` is this now, or nothing. What it is goes before what it was."""
        if resource is None:
            self._removed.add(name)
        else:
            self._updated[name] = resource

    def finish(self) -> ResourceChanges:
        """All that was noted."""
        return ResourceChanges(self._updated, frozenset(self._removed - self._updated.keys()))


class ResourceTable:
    """All resources of one type, found by name or by key. One owner; readers are on the same event loop."""

    def __init__(self) -> None:
        self._resources: dict[str, Resource] = {}
        self._names_by_key: dict[str, set[str]] = {}
        self._framed: bytes | None = None
        self._summary = 0
        self._history: deque[tuple[int, Set[str]]] = deque()
        self._remembered = 0
        self._since: dict[int, Set[str]] = {}

    def __len__(self) -> int:
        return len(self._resources)

    def __contains__(self, name: object) -> bool:
        return name in self._resources

    def find(self, name: str) -> Resource | None:
        return self._resources.get(name)

    def version(self, name: str) -> str | None:
        """The version of the resource `name`; None when there is none."""
        resource = self._resources.get(name)
        return resource.version if resource else None

    def names(self) -> Iterable[str]:
        return self._resources.keys()

    def versions(self) -> Iterator[tuple[str, str]]:
        """The name and version of each resource, and of its other forms."""
        for name, resource in self._resources.items():
            yield name, resource.version
            for key, form in resource.forms.items():
                yield name_form(name, key), form.version

    def find_differing(self, versions: Mapping[str, str], client_keys: Iterable[str] = ()) -> set[str]:
        """The names of what is not as `versions` has it: other versions, what is new, and what is no more.

        `client_keys` say in which forms.
        """
        resources = self._resources
        if not versions:
            return set(resources)  # most who come have nothing: no need to look at each
        differing = {name for name, each in resources.items() if versions.get(name) != each.find_version(client_keys)}
        differing.update(versions.keys() - resources.keys())
        return differing

    @property
    def summary(self) -> int:
        """All names with their versions, summed up in 128 bits: equal content has equal summaries, in any order.

        It is the sum of the first 16 bytes of SHA-256 of `name NUL version`, modulo 2^128 (docs/decisions/0014).
        """
        return self._summary

    def find_changed_since(self, summary: int) -> Set[str] | None:
        """The names of what has changed since the table had this summary; None where nobody remembers."""
        if summary == self._summary:
            return frozenset()
        if summary not in self._since:
            names: set[str] = set()
            for before, changed in reversed(self._history):
                names |= changed
                if before == summary:
                    self._since[summary] = names
                    break
        return self._since.get(summary)

    @property
    def framed(self) -> bytes:
        """All resources as a response carries them: put together once, however many clients come for everything."""
        if self._framed is None:
            self._framed = frame_all(self._resources.values())
        return self._framed

    def find_names(self, key: str) -> Iterator[str]:
        """The names of what `key` leads to: the resource of that name, and all that have it among their keys."""
        if key in self._resources:
            yield key
        yield from self._names_by_key.get(key, ())

    def choose_key(self, keys: Sequence[str]) -> str:
        """The first key that leads to anything; the last where none does."""
        return next((key for key in keys if key in self._names_by_key), keys[-1])

    def apply(self, changes: ResourceChanges) -> dict[str, Resource | None]:
        """Take `changes` over. Gives what really changed, with what was there before: equal content changes nothing."""
        changed: dict[str, Resource | None] = {}
        self._framed = None
        before = self._summary
        for name, resource in changes.updated.items():
            old = self._resources.get(name)
            if old == resource:
                continue
            self._forget_keys(old)
            self._resources[name] = resource
            for key in resource.keys:
                self._names_by_key.setdefault(key, set()).add(name)
            changed[name] = old
        for name in changes.removed:
            old = self._resources.pop(name, None)
            if old is not None:
                self._forget_keys(old)
                changed[name] = old
        if changed:
            self._sum_up(changed)
            self._remember(before, changed.keys())
        return changed

    def _sum_up(self, changed: Mapping[str, Resource | None]) -> None:
        for name, old in changed.items():
            for sign, resource in ((-1, old), (1, self._resources.get(name))):
                if resource is not None:
                    self._summary += sign * _sum_up_one(name, resource.version)
        self._summary %= _SUMMARIES

    def _remember(self, before: int, changed: Iterable[str]) -> None:
        names = frozenset(changed)
        self._history.append((before, names))
        self._remembered += len(names)
        self._since.clear()
        while self._remembered > REMEMBERED_NAMES:
            _, forgotten = self._history.popleft()
            self._remembered -= len(forgotten)

    def _forget_keys(self, resource: Resource | None) -> None:
        for key in resource.keys if resource else ():
            names = self._names_by_key.get(key)
            if names is not None:
                names.discard(resource.name if resource else "")
                if not names:
                    del self._names_by_key[key]


def frame_all(resources: Iterable[Resource]) -> bytes:
    """Resources as a response carries them."""
    return frame_resources(resource.wire for resource in resources)


def _sum_up_one(name: str, version: str) -> int:
    return int.from_bytes(sha256(f"{name}\0{version}".encode()).digest()[:_SUMMARY_BYTES])
