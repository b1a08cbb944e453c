"""A part of a message into the whole.

As protobuf merges, with what that gets wrong for configuration put right: a wrapper or a duration is one value and
takes the place of the other, also where it is false or zero, and extensions of one type are merged within.
"""

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from controller.envoy_api.values import repack, unpack

_VALUES = "google.protobuf."


def merge(value: Message, into: Message) -> None:
    """What `value` sets is set in `into`: lists are appended to, of maps each key is set, other messages are merged."""
    for field, part in value.ListFields():
        whole = getattr(into, field.name)
        if field.message_type is None and not field.is_repeated:
            setattr(into, field.name, part)
        elif field.is_repeated and field.message_type is not None and field.message_type.GetOptions().map_entry:
            whole.MergeFrom(part)
        elif field.is_repeated:
            whole.extend(part)
        elif isinstance(part, AnyMessage):
            _merge_any(part, whole)
        elif field.message_type is not None and field.message_type.full_name.startswith(_VALUES):
            whole.CopyFrom(part)
        else:
            whole.SetInParent()
            merge(part, whole)


def _merge_any(part: AnyMessage, whole: AnyMessage) -> None:
    inner, given = unpack(whole), unpack(part)
    if inner is None or given is None or inner.DESCRIPTOR is not given.DESCRIPTOR:
        whole.CopyFrom(part)
        return
    merge(given, inner)
    repack(whole, inner)
