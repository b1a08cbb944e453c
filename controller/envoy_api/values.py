"""From JSON to Envoy's messages.

A `TypedStruct` (of udpa.type.v1 or xds.type.v3) stands for a message whose type is not known to who writes it. Here the
type is: the message takes its place, so that a field that it has not is found at once, and not by the proxy.
"""

from collections.abc import Iterator, Mapping

from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from controller.envoy_api.types import find_message_class
from mesh.kit.errors import InvalidInputError

PREFIX = "type.googleapis.com/"
_TYPED_STRUCTS = ("udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct")
_TYPED_STRUCT_FIELDS = {"@type", "type_url", "typeUrl", "value"}


class UnknownTypeError(InvalidInputError):
    """An `@type` names no message of Envoy's API."""

    reason = "unknown_envoy_type"


class UnreadableValueError(InvalidInputError):
    """A value is not of the form of its message: the text says where."""

    reason = "unreadable_envoy_value"


def parse_message(value: Mapping[str, object], into: Message) -> None:
    """Fill a message that is empty. Raises UnknownTypeError, UnreadableValueError."""
    try:
        json_format.ParseDict({name: _resolve(each) for name, each in value.items()}, into)
    except json_format.ParseError as error:
        raise UnreadableValueError(str(error)) from error
    normalise(into)


def _resolve(value: object) -> object:
    """The same with all typed structs replaced, and all types that are named loaded."""
    if isinstance(value, list):
        return [_resolve(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    if "@type" not in value:
        return {name: _resolve(each) for name, each in value.items()}
    url = value["@type"]
    if _load(url) not in _TYPED_STRUCTS:
        return {name: _resolve(each) for name, each in value.items()}
    if unknown := value.keys() - _TYPED_STRUCT_FIELDS:
        raise UnreadableValueError(f"a TypedStruct has no field {min(map(str, unknown))}")
    inner_url = value.get("type_url", value.get("typeUrl"))
    inner = _resolve(value.get("value", {}))
    _load(inner_url)
    if not isinstance(inner, dict) or "@type" in inner:
        raise UnreadableValueError(f"the value of a TypedStruct must be the fields of {inner_url}")
    return {"@type": inner_url, **inner}


def _load(url: object) -> str:
    name = url.rpartition("/")[2] if isinstance(url, str) else ""
    if not name or find_message_class(name) is None:
        raise UnknownTypeError(f"{url or '(no type)'} is no type of Envoy's API that is known here")
    return name


def unpack(packed: AnyMessage) -> Message | None:
    """What an Any holds; None where its type is not known, or its bytes are not of it."""
    found = find_message_class(packed.TypeName())
    if found is None:
        return None
    message = found()
    return message if packed.Unpack(message) else None


def repack(packed: AnyMessage, message: Message) -> None:
    """Let an Any hold a message, with its maps in order, so that equal content is equal bytes."""
    packed.Pack(message, deterministic=True)


def normalise(message: Message) -> None:
    """Pack all Anys in a message, and in them, anew: JSON's parser leaves maps in any order."""
    for each in list_children(message):
        if isinstance(each, AnyMessage):
            inner = unpack(each)
            if inner is not None:
                normalise(inner)
                repack(each, inner)
        else:
            normalise(each)


def list_children(message: Message) -> Iterator[Message]:
    """The messages that stand right in a message, those in lists and maps too."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if not field.is_repeated:
            yield value
        elif not field.message_type.GetOptions().map_entry:
            yield from value
        elif field.message_type.fields_by_name["value"].message_type is not None:
            yield from value.values()


def list_texts(message: Message) -> Iterator[str]:
    """All texts in a message that are values, those of its extensions too."""
    inner = unpack(message) if isinstance(message, AnyMessage) else message
    for field, value in inner.ListFields() if inner is not None else ():
        if field.type == field.TYPE_STRING:
            yield from value if field.is_repeated else (value,)
    for each in list_children(inner) if inner is not None else ():
        yield from list_texts(each)
