"""A ztunnel's `/config_dump`, ours or a stock one's, as rows for a person. Pure: no I/O.

The names of what is read here are those of facts/ztunnel.md section 8.1.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Object = dict[str, Json]

NOTHING = "-"


class Kind(StrEnum):
    """What can be looked at."""

    WORKLOADS = "workloads"
    SERVICES = "services"
    POLICIES = "policies"
    CERTIFICATES = "certificates"
    CONNECTIONS = "connections"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Table:
    """One kind of things, sorted."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def select(dump: Object, kind: Kind, namespace: str | None = None) -> Json:
    """The part of a dump that is of a kind, as it stands there, of one namespace only if one is given."""
    match kind:
        case Kind.ALL:
            return dump
        case Kind.CERTIFICATES:
            return [one for one in _objects(dump, "certificates") if namespace in (None, _namespace_of_identity(one))]
        case Kind.CONNECTIONS:
            states = _object(dump.get("workloadState"))
            wanted = {uid: _object(state) for uid, state in states.items()}
            return {
                uid: state
                for uid, state in wanted.items()
                if namespace in (None, _object(state.get("info")).get("namespace"))
            }
        case _:
            return [one for one in _objects(dump, kind) if namespace in (None, one.get("namespace"))]


def tabulate(dump: Object, kind: Kind, namespace: str | None = None) -> list[Table]:
    """What `select` finds, one table per kind."""
    if kind is Kind.ALL:
        return [table for one in Kind if one is not Kind.ALL for table in tabulate(dump, one, namespace)]
    columns, rows_of = _TABLES[kind]
    found = select(dump, kind, namespace)
    return [Table(kind.title(), columns, sorted(tuple(row) for row in rows_of(found)))]


def _workloads(found: Json) -> Iterator[Iterable[str]]:
    for one in _items(found):
        yield (
            _text(one, "namespace"),
            _text(one, "name"),
            _join(one.get("workloadIps")),
            _text(one, "node"),
            _gateway(one.get("waypoint")),
            _text(one, "protocol"),
            _text(one, "status"),
        )


def _services(found: Json) -> Iterator[Iterable[str]]:
    for one in _items(found):
        endpoints = [_object(endpoint) for endpoint in _object(one.get("endpoints")).values()]
        healthy = sum(endpoint.get("status") == "Healthy" for endpoint in endpoints)
        yield (
            _text(one, "namespace"),
            _text(one, "name"),
            _join(_without_network(vip) for vip in _list(one.get("vips"))),
            _join(f"{port}:{target}" for port, target in _object(one.get("ports")).items()),
            _gateway(one.get("waypoint")),
            f"{healthy}/{len(endpoints)}",
        )


def _policies(found: Json) -> Iterator[Iterable[str]]:
    for one in _items(found):
        action = f"{_text(one, 'action')}{' (dry run)' if one.get('dryRun') else ''}"
        yield (
            _text(one, "namespace"),
            _text(one, "name"),
            action,
            _text(one, "scope"),
            str(len(_list(one.get("rules")))),
            _text(one, "defect"),
        )


def _certificates(found: Json) -> Iterator[Iterable[str]]:
    for one in _items(found):
        parts = [("leaf", part) for part in _items(one.get("certChain"))[:1]]
        parts += [("intermediate", part) for part in _items(one.get("certChain"))[1:]]
        parts += [("root", part) for part in _items(one.get("rootCerts"))]
        for role, part in parts or [(NOTHING, {})]:
            yield (
                _text(one, "identity"),
                role,
                _text(one, "state"),
                _text(part, "serialNumber"),
                _text(part, "validFrom"),
                _text(part, "expirationTime"),
            )


def _connections(found: Json) -> Iterator[Iterable[str]]:
    for state in map(_object, _object(found).values()):
        info = _object(state.get("info"))
        for direction in ("inbound", "outbound"):
            for one in _items(_object(state.get("connections")).get(direction)):
                yield (
                    _text(info, "namespace"),
                    _text(info, "name"),
                    direction,
                    _text(one, "src"),
                    _text(one, "originalDst"),
                    _text(one, "actualDst"),
                    _text(one, "protocol"),
                    _text(one, "bytesToServer"),
                    _text(one, "bytesToClient"),
                )


_TABLES = {
    Kind.WORKLOADS: (("namespace", "name", "addresses", "node", "waypoint", "protocol", "status"), _workloads),
    Kind.SERVICES: (("namespace", "name", "addresses", "ports", "waypoint", "healthy endpoints"), _services),
    Kind.POLICIES: (("namespace", "name", "action", "scope", "rules", "defect"), _policies),
    Kind.CERTIFICATES: (("identity", "role", "state", "serial", "valid from", "valid until"), _certificates),
    Kind.CONNECTIONS: (
        (
            "namespace",
            "pod",
            "direction",
            "source",
            "asked for",
            "destination",
            "protocol",
            "bytes to server",
            "bytes to client",
        ),
        _connections,
    ),
}


def _namespace_of_identity(certificate: Object) -> str:
    """That of `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`."""
    parts = _text(certificate, "identity").split("/")
    return parts[4] if len(parts) > 4 else ""


def _gateway(value: Json) -> str:
    return _without_network(_object(value).get("destination")) or NOTHING


def _without_network(address: Json) -> str:
    """`network/address` or `namespace/hostname`, the former without an empty network."""
    return str(address or "").removeprefix("/")


def _objects(dump: Object, key: str) -> list[Object]:
    return _items(dump.get(key))


def _items(value: Json) -> list[Object]:
    return [_object(item) for item in _list(value)]


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _object(value: Json) -> Object:
    return value if isinstance(value, dict) else {}


def _text(one: Object, key: str) -> str:
    value = one.get(key)
    return NOTHING if value is None or value == "" else str(value)


def _join(values: Json | Iterable[str]) -> str:
    parts = [str(value) for value in values] if isinstance(values, Iterable) else []
    return " ".join(parts) or NOTHING
