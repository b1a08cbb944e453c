"""Which of a service's endpoints a client prefers, by where it stands.

Istio's rules: what a DestinationRule says goes before the Service's traffic distribution, and that before the mesh's
default. By order a client goes to those that have most in common with it, and to others as far as these are not
healthy; from a DestinationRule or by default that takes outlier detection. By shares, each place gets its part.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from controller.kinds.core import IpAddress, Node
from controller.kinds.destination_rule import Distribution, LocalityLbSetting
from controller.registry.names import name_node
from controller.registry.services import Spreading
from controller.registry.workloads import Locality, find_locality


@dataclass(frozen=True, slots=True)
class ServingEndpoint:
    """Somebody who serves a target, by address or by name. A weight of 0 counts as 1."""

    address: IpAddress | str
    port: int
    locality: Locality
    is_healthy: bool
    weight: int = 0
    node: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def order(self) -> tuple[int, int, str, int]:
        """Sorts them."""
        if isinstance(self.address, str):
            return 0, 0, self.address, self.port
        return self.address.version, int(self.address), "", self.port


class Nearness(Enum):
    """What an endpoint may have in common with a client; the values are the labels of a Node that say so."""

    REGION = "topology.kubernetes.io/region"
    ZONE = "topology.kubernetes.io/zone"
    SUBZONE = "topology.istio.io/subzone"
    NODE = "kubernetes.io/hostname"


@dataclass(frozen=True, slots=True)
class LabelCriterion:
    """A label that an endpoint is preferred for, wherever the client stands."""

    key: str
    value: str


Criterion = Nearness | LabelCriterion
BY_LOCALITY: tuple[Criterion, ...] = (Nearness.REGION, Nearness.ZONE, Nearness.SUBZONE)
_SPREADING: Mapping[Spreading, tuple[Criterion, ...]] = {
    Spreading.PREFER_CLOSE: BY_LOCALITY[:2],
    Spreading.PREFER_SAME_NODE: (*BY_LOCALITY, Nearness.NODE),
    Spreading.SAME_NODE_ONLY: (Nearness.NODE,),
}


@dataclass(frozen=True, slots=True)
class Preference:
    """The more of `order` an endpoint meets, from its beginning on, the sooner it is asked.

    `regions` says which region stands in for another first. `shares` are told for clients of places, and exclude the
    rest. `is_strict` leaves out all that do not meet all of the order.
    """

    order: tuple[Criterion, ...] = ()
    regions: Mapping[str, str] = field(default_factory=dict)
    shares: tuple[Distribution, ...] = ()
    is_strict: bool = False


@dataclass(frozen=True, slots=True)
class Standpoint:
    """Where a client stands; a node without a name is any of the locality."""

    locality: Locality
    node: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Endpoints of one locality that are asked alike: those of priority 0 first. Within one, by weight."""

    locality: Locality
    priority: int
    weight: int
    endpoints: Sequence[ServingEndpoint]


def find_preference(
    setting: LocalityLbSetting | None, spreading: Spreading, *, detects: bool, by_default: bool = True
) -> Preference | None:
    """What counts for a service. None is no preference.

    `detects` says whether outliers are detected, `by_default` whether that is enough where nothing else is said.
    """
    if spreading is Spreading.SAME_NODE_ONLY:
        return Preference(_SPREADING[spreading], is_strict=True)
    if setting is not None and setting.enabled is False:
        return None
    if setting is None and spreading in _SPREADING:
        return Preference(_SPREADING[spreading])
    if setting is not None and setting.distribute:
        return Preference(shares=tuple(setting.distribute))
    if not detects:
        return None
    if setting is None:
        return Preference(BY_LOCALITY) if by_default else None
    order = tuple(map(_parse_criterion, setting.failover_priority or ()))
    return Preference(order or BY_LOCALITY, {each.from_: each.to for each in setting.failover or ()})


def _parse_criterion(text: str) -> Criterion:
    key, is_fixed, value = text.partition("=")
    return LabelCriterion(key, value) if is_fixed else Nearness(key)


def list_standpoints(
    preference: Preference, localities: Iterable[Locality], endpoints: Iterable[ServingEndpoint]
) -> Mapping[str, Standpoint]:
    """Where clients may stand whose preferences differ, by the key of a client that stands there."""
    found = {name_locality(each): Standpoint(each) for each in localities}
    if Nearness.NODE in preference.order:
        nodes = {each.node: each.locality for each in endpoints if each.node}
        found |= {name_node(node): Standpoint(locality, node) for node, locality in nodes.items()}
    return found


def name_locality(locality: Locality) -> str:
    """The key of clients that stand there."""
    return f"locality:{locality.region}/{locality.zone}/{locality.subzone}"


def list_client_keys(node: Node | None, name: str) -> tuple[str, ...]:
    """The keys of a client on the node of that name, the first of which counts that there is something for."""
    locality = find_locality(node)
    return (name_node(name), *((name_locality(locality),) if locality.region else ()))


def arrange(
    endpoints: Iterable[ServingEndpoint], preference: Preference | None = None, standpoint: Standpoint | None = None
) -> list[Group]:
    """The endpoints for clients that stand there; without a standpoint for those of whom nobody knows where."""
    preference = preference or Preference()
    if standpoint is None:
        return _group(() if preference.is_strict else endpoints, lambda _: 0)
    if preference.shares:
        return _share(_group(endpoints, lambda _: 0), preference.shares, standpoint)
    given = list(endpoints)
    ranked = {_rank(each, preference, standpoint) for each in given}
    places = {rank: place for place, rank in enumerate(sorted(ranked))}
    if preference.is_strict:
        given = [each for each in given if _rank(each, preference, standpoint) == 0]
    return _group(given, lambda each: places[_rank(each, preference, standpoint)])


def _rank(endpoint: ServingEndpoint, preference: Preference, standpoint: Standpoint) -> int:
    order = preference.order
    met = next((at for at, each in enumerate(order) if not _meets(endpoint, each, standpoint)), len(order))
    wanted = preference.regions.get(standpoint.locality.region)
    is_elsewhere = endpoint.locality.region != standpoint.locality.region
    return len(order) - met + bool(wanted and is_elsewhere and endpoint.locality.region != wanted)


def _meets(endpoint: ServingEndpoint, criterion: Criterion, standpoint: Standpoint) -> bool:
    match criterion:
        case Nearness.REGION:
            return endpoint.locality.region == standpoint.locality.region
        case Nearness.ZONE:
            return endpoint.locality.zone == standpoint.locality.zone
        case Nearness.SUBZONE:
            return endpoint.locality.subzone == standpoint.locality.subzone
        case Nearness.NODE:
            return bool(standpoint.node) and endpoint.node == standpoint.node
        case LabelCriterion():
            return endpoint.labels.get(criterion.key) == criterion.value


def _group(endpoints: Iterable[ServingEndpoint], find_priority: Callable[[ServingEndpoint], int]) -> list[Group]:
    found: dict[tuple[int, Locality], list[ServingEndpoint]] = {}
    for each in endpoints:
        found.setdefault((find_priority(each), each.locality), []).append(each)
    return [
        Group(locality, priority, sum(each.weight or 1 for each in some), sorted(some, key=lambda each: each.order))
        for (priority, locality), some in sorted(found.items(), key=lambda item: (item[0][0], _show(item[0][1])))
    ]


def _share(groups: Sequence[Group], shares: Iterable[Distribution], standpoint: Standpoint) -> list[Group]:
    """By the first share that is for clients from there; a place that it does not name gets nothing."""
    share = next((each for each in shares if _covers(each.from_, standpoint.locality)), None)
    if share is None:
        return list(groups)
    left, placed = list(groups), []
    for pattern, part in sorted(share.to.items(), key=lambda item: (-len(item[0]), item[0])):
        meant = [each for each in left if _covers(pattern, each.locality)]
        left = [each for each in left if each not in meant]
        total = sum(each.weight for each in meant)
        for each in meant:
            placed.append(Group(each.locality, 0, -(-each.weight * part // total), each.endpoints))
    return sorted(placed, key=lambda each: _show(each.locality))


def _covers(pattern: str, locality: Locality) -> bool:
    """Whether a locality is one of `region/zone/subzone`, in which the last part may be `*` or left out."""
    parts = [part for part in pattern.split("/") if part != "*"]
    return list(_show(locality)[: len(parts)]) == parts


def _show(locality: Locality) -> tuple[str, str, str]:
    return locality.region, locality.zone, locality.subzone
