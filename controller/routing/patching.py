"""What EnvoyFilters make of resources, and what they may not make of them.

A resource that its patches would leave as nothing that Envoy takes is withheld: the form that serves goes on (from
nothing it does not serve), and the filter that broke it has it in its status. What a filter did to each resource is
kept as long as the resource, so that it can be told which patches do nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from envoy.config.listener.v3 import listener_pb2
from google.protobuf.message import Message

from controller.envoy_api.constraints import find_violation
from controller.envoy_api.values import list_texts
from controller.kinds.envoy_filter import EnvoyFilter
from controller.kinds.meta import ObjectKey
from controller.registry.envoy_filters import Side, is_for, is_for_all, selects, sort_filters
from controller.registry.gateway_proxies import GatewayProxies
from controller.registry.http import Target
from controller.registry.names import MeshSettings, find_service_name
from controller.registry.sidecars import Visibility
from controller.routing.index import ResourceName
from controller.serve.resources import CLUSTER_TYPE, LISTENER_TYPE, Resource, build_resource
from controller.snapshot import Snapshot
from controller.translate.patches import Outcome, Prepared, find_disorder

PatchKey = tuple[ObjectKey, int]
"""A filter, and which of its patches."""
_TYPES = {"CLUSTER": CLUSTER_TYPE, "LISTENER": LISTENER_TYPE}


class Verdict(Enum):
    """What is to be done with a resource."""

    SERVE = "serve"
    REMOVE = "remove"
    WITHHOLD = "withhold"


@dataclass(frozen=True, slots=True)
class Subject:
    """A message that may be patched in place; `find_fault` says what is wrong with it beside its constraints."""

    key: ResourceName
    message: Message
    apply: Callable[[Prepared], Outcome]
    find_fault: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Effect:
    """What patches did to one resource; `fault` is what the filter `culprit` made wrong."""

    touching: frozenset[PatchKey]
    culprit: ObjectKey | None = None
    fault: str = ""


class PatchRecord:
    """What all patches did. One owner."""

    def __init__(self) -> None:
        self._effects: dict[ResourceName, Effect] = {}
        self._added: Mapping[ResourceName, Effect] = {}

    def put(self, key: ResourceName, effect: Effect | None) -> None:
        """Take over what patches did to a resource; None where they did nothing, or it is no more."""
        if effect is None:
            self._effects.pop(key, None)
        else:
            self._effects[key] = effect

    def put_added(self, added: Mapping[ResourceName, Effect]) -> set[ResourceName]:
        """Take over which resources there are only by patches; gives those that are no more."""
        before, self._added = self._added, added
        return before.keys() - added.keys()

    @property
    def touching(self) -> frozenset[PatchKey]:
        """The patches that do something."""
        effects = (*self._effects.values(), *self._added.values())
        return frozenset(key for effect in effects for key in effect.touching)

    @property
    def faults(self) -> Mapping[ObjectKey, str]:
        """By filter, what it makes that cannot be served: the first by name."""
        found: dict[ObjectKey, str] = {}
        effects = (*self._effects.items(), *self._added.items())
        for (_, name), effect in sorted(effects, key=lambda each: each[0]):
            if effect.culprit is not None:
                found.setdefault(effect.culprit, f"{name}: {effect.fault}")
        return found


class Patcher:
    """Patches what is built in one update; the values of each filter are read once."""

    def __init__(self, record: PatchRecord) -> None:
        self._record = record
        self._prepared: dict[ObjectKey, tuple[EnvoyFilter, Sequence[Prepared]]] = {}

    def prepare(self, given: EnvoyFilter) -> Sequence[Prepared]:
        """A filter's patches with their values."""
        known = self._prepared.get(given.key)
        if known is None or known[0] is not given:  # one update may look at what a filter was, too
            known = given, [Prepared(each, each.build_message()) for each in given.spec.config_patches]
            self._prepared[given.key] = known
        return known[1]

    def patch(self, subject: Subject, filters: Iterable[EnvoyFilter], side: Side) -> Verdict:
        """Let filters patch a message, each after the other."""
        touching: set[PatchKey] = set()
        for given in filters:
            before = len(touching)
            for index, prepared in enumerate(self.prepare(given)):
                outcome = subject.apply(prepared) if is_for(prepared.patch, side) else Outcome.UNTOUCHED
                if outcome is not Outcome.UNTOUCHED:
                    touching.add((given.key, index))
                if outcome is Outcome.REMOVED:
                    self._record.put(subject.key, Effect(frozenset(touching)))
                    return Verdict.REMOVE
            fault = (find_violation(subject.message) or subject.find_fault()) if len(touching) > before else ""
            if fault:
                self._record.put(subject.key, Effect(frozenset(touching), given.key, fault))
                return Verdict.WITHHOLD
        self._record.put(subject.key, Effect(frozenset(touching)) if touching else None)
        return Verdict.SERVE

    def find_references(self, filters: Iterable[EnvoyFilter], side: Side, settings: MeshSettings) -> set[Target]:
        """The services' clusters that patches for one side name: its proxies must have them."""
        texts = (
            text
            for given in filters
            for prepared in self.prepare(given)
            if is_for(prepared.patch, side)
            for text in list_texts(prepared.value)
        )
        return {target for text in texts if (target := parse_cluster_name(text, settings)) is not None}

    def build_added(
        self, snapshot: Snapshot, settings: MeshSettings, gateways: Sequence[GatewayProxies]
    ) -> tuple[Mapping[ResourceName, Resource], set[ResourceName]]:
        """The listeners and clusters that patches add, and which are no more. Of two of one name the first counts.

        `gateways` are all there are.
        """
        sidecars = Visibility(snapshot, settings).all_readers
        effects: dict[ResourceName, Effect] = {}
        messages: dict[ResourceName, Message] = {}
        readers: dict[ResourceName, list[str]] = {}
        for given in sort_filters(snapshot, settings):
            for index, prepared in enumerate(self.prepare(given)):
                if not prepared.patch.adds_resource:
                    continue
                keys: list[str] = []
                if is_for(prepared.patch, Side.GATEWAY):
                    keys += sorted(each.reader for each in gateways if selects(settings, given, each))
                if is_for(prepared.patch, Side.SIDECAR) and is_for_all(settings, given):
                    keys += sidecars
                if not keys:
                    continue
                key = (_TYPES[prepared.patch.apply_to], _name(prepared.value))
                known, effect = messages.setdefault(key, prepared.value), effects.get(key, Effect(frozenset()))
                fault = _find_fault(prepared.value) if known == prepared.value else "another one adds that name"
                touching = effect.touching | {(given.key, index)}
                if fault:
                    effects[key] = replace(effect, touching=touching, culprit=given.key, fault=fault)
                else:
                    effects[key] = replace(effect, touching=touching)
                    readers[key] = [*readers.get(key, ()), *keys]
        resources = {
            (type_url, name): build_resource(type_url, name, messages[type_url, name], keys=tuple(dict.fromkeys(keys)))
            for (type_url, name), keys in readers.items()
        }
        return resources, self._record.put_added(effects)


def _name(message: Message) -> str:
    name: str = getattr(message, "name", "")
    return name


def _find_fault(message: Message) -> str:
    return find_disorder(message) if isinstance(message, listener_pb2.Listener) else ""


def parse_cluster_name(text: str, settings: MeshSettings) -> Target | None:
    """The target whose cluster has a name like `outbound|80||web.demo.svc.cluster.local`; None for other names."""
    direction, *rest = text.split("|")
    is_secured = rest[3:] == ["tls"]
    if direction != "outbound" or len(rest) != 3 + is_secured or not (rest[0].isascii() and rest[0].isdigit()):
        return None
    port, subset, host, *_ = rest
    place = find_service_name(host, "", settings) if "." in host else None
    return Target(place[0], host, int(port[:6]), subset, is_secured) if place else None
