"""What Envoy's API demands of its messages, by the rules that its own definitions carry (protoc-gen-validate's).

Envoy refuses a resource that breaks one, as a whole; here it is found before it is sent. These are all rules that occur
in Envoy's v3 API (xds-protos 1.85).
"""

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import re2
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from validate import validate_pb2

from controller.envoy_api.values import unpack

if TYPE_CHECKING:
    from google._upb import _message

    Field = FieldDescriptor | _message.FieldDescriptor

_Violation = tuple[str, str]
"""Where, and what."""
_WRAPPERS = "google.protobuf."
_HEADER_NAME = re.compile(r":?[0-9a-zA-Z!#$%&'*+\-.^_|~`]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_LENIENT = re.compile(r"[^\x00\x0a\x0d]*")
_COMPARISONS: Mapping[str, tuple[str, Callable[[float, float], bool]]] = {
    "gt": ("greater than", operator.gt),
    "gte": ("at least", operator.ge),
    "lt": ("less than", operator.lt),
    "lte": ("at most", operator.le),
}


def find_violation(message: Message) -> str:
    """The first rule that a message breaks, with its field, as in `filters[0].name: is required`; empty if none."""
    return next((f"{path}: {what}" if path else what for path, what in _check_message(message, "")), "")


def _check_message(message: Message, path: str) -> Iterator[_Violation]:
    if isinstance(message, AnyMessage):
        inner = unpack(message) if message.type_url else None
        if inner is not None:
            yield from _check_message(inner, path)
        return
    descriptor = message.DESCRIPTOR
    for oneof in descriptor.oneofs:
        if oneof.GetOptions().Extensions[validate_pb2.required] and message.WhichOneof(oneof.name) is None:
            yield path, f"needs one of {', '.join(field.name for field in oneof.fields)}"
    for field in descriptor.fields:
        yield from _check_field(message, field, f"{path}.{field.name}" if path else field.name)


def _check_field(message: Message, field: "Field", path: str) -> Iterator[_Violation]:
    rules = field.GetOptions().Extensions[validate_pb2.rules]
    value = getattr(message, field.name)
    kind = rules.WhichOneof("type")
    own = getattr(rules, kind) if kind else None
    if field.is_repeated:
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        yield from _check_map(field, value, own, path) if is_map else _check_list(field, value, own, path)
        return
    if field.has_presence and not message.HasField(field.name):
        is_wanted = rules.message.required or (own is not None and kind in ("any", "duration") and own.required)
        if is_wanted and field.containing_oneof is None:  # of a oneof only what was chosen is judged
            yield path, "is required"
        return
    if own is not None:
        yield from _check_value(field, value, kind, own, path)
    if field.message_type is not None and not rules.message.skip:
        yield from _check_message(value, path)


def _check_list(
    field: "Field", values: Sequence[object], rules: "validate_pb2.RepeatedRules | None", path: str
) -> Iterator[_Violation]:
    if rules is not None:
        yield from _check_count(len(values), rules.min_items, rules.max_items, path)
        if rules.unique and len({str(each) for each in values}) < len(values):
            yield path, "must not hold anything twice"
    kind = rules.items.WhichOneof("type") if rules is not None else None
    for index, value in enumerate(values):
        if rules is not None and kind:
            yield from _check_value(field, value, kind, getattr(rules.items, kind), f"{path}[{index}]")
        if isinstance(value, Message):
            yield from _check_message(value, f"{path}[{index}]")


def _check_map(
    field: "Field", values: "dict[str, object]", rules: "validate_pb2.MapRules | None", path: str
) -> Iterator[_Violation]:
    entry = field.message_type
    assert entry is not None, "a map's entries are messages"
    key_field, value_field = entry.fields_by_name["key"], entry.fields_by_name["value"]
    if rules is not None:
        yield from _check_count(len(values), rules.min_pairs, 0, path)
    for key in values:
        value = values[key]
        if rules is not None:
            for each, its, which in ((key_field, rules.keys, key), (value_field, rules.values, value)):
                if kind := its.WhichOneof("type"):
                    yield from _check_value(each, which, kind, getattr(its, kind), f"{path}[{key}]")
        if isinstance(value, Message):
            yield from _check_message(value, f"{path}[{key}]")


def _check_count(count: int, least: int, most: int, path: str) -> Iterator[_Violation]:
    if count < least:
        yield path, f"must have at least {least} {'item' if least == 1 else 'items'}"
    if most and count > most:
        yield path, f"must have at most {most} items"


def _check_value(
    field: "Field", value: object, kind: str, rules: "validate_pb2.FieldRules", path: str
) -> Iterator[_Violation]:
    """Rules of a kind (`string`, `uint32`, ...) on one value, which may be a wrapper of such a one."""
    if isinstance(value, Duration):
        yield from _check_bounds(_seconds(value), rules, path)
        return
    if isinstance(value, Message):
        if field.message_type is None or not field.message_type.full_name.startswith(_WRAPPERS) or kind == "any":
            return
        value = getattr(value, "value", None)
    match kind:
        case "string":
            yield from _check_string(str(value), rules, path)
        case "bytes" if isinstance(value, bytes):
            yield from _check_length(len(value), rules, ("min_len", "max_len"), "bytes", path)
        case "enum" if isinstance(value, int):
            yield from _check_enum(field, value, rules, path)
        case "bool":
            if rules.HasField("const") and value is not rules.const:
                yield path, f"must be {str(rules.const).lower()}"
        case _ if isinstance(value, int | float):
            yield from _check_bounds(value, rules, path)


def _check_bounds(value: float, rules: "validate_pb2.DoubleRules", path: str) -> Iterator[_Violation]:
    for name, (words, holds) in _COMPARISONS.items():
        if rules.HasField(name):
            bound = getattr(rules, name)
            number = _seconds(bound) if isinstance(bound, Duration) else bound
            if not holds(value, number):
                yield path, f"must be {words} {number:g}{'s' if isinstance(bound, Duration) else ''}"


def _seconds(value: Duration) -> float:
    return value.seconds + value.nanos / 1e9


def _check_enum(field: "Field", value: int, rules: "validate_pb2.EnumRules", path: str) -> Iterator[_Violation]:
    known = field.enum_type.values_by_number if field.enum_type is not None else {}
    if rules.defined_only and value not in known:
        yield path, f"{value} is none of its values"
    if value in rules.not_in:
        yield path, f"{known[value].name if value in known else value} is not allowed"


def _check_string(value: str, rules: "validate_pb2.StringRules", path: str) -> Iterator[_Violation]:
    if rules.ignore_empty and not value:
        return
    yield from _check_length(len(value), rules, ("min_len", "max_len"), "characters", path)
    yield from _check_length(len(value.encode()), rules, ("min_bytes", "max_bytes"), "bytes", path)
    if rules.prefix and not value.startswith(rules.prefix):
        yield path, f"must begin with {rules.prefix}"
    if rules.suffix and not value.endswith(rules.suffix):
        yield path, f"must end with {rules.suffix}"
    if rules.pattern and not re2.search(rules.pattern, value):
        yield path, f"must match {rules.pattern}"
    allowed = getattr(rules, "in")
    if allowed and value not in allowed:
        yield path, f"must be one of {', '.join(map(repr, allowed))}"
    if (form := _find_form(rules)) and not form.fullmatch(value):
        yield path, "has a character that no header may have"


def _find_form(rules: "validate_pb2.StringRules") -> re.Pattern[str] | None:
    if rules.well_known_regex == validate_pb2.UNKNOWN:
        return None
    if not rules.strict:
        return _LENIENT
    return _HEADER_NAME if rules.well_known_regex == validate_pb2.HTTP_HEADER_NAME else _HEADER_VALUE


def _check_length(length: int, rules: Message, names: tuple[str, str], unit: str, path: str) -> Iterator[_Violation]:
    least, most = (getattr(rules, name) if rules.HasField(name) else None for name in names)
    if least is not None and length < least:
        yield path, "must not be empty" if least == 1 else f"must have at least {least} {unit}"
    if most is not None and length > most:
        yield path, f"must have at most {most} {unit}"
