"""Resources as text for a person: protobuf's JSON, without what is secret.

A secret is what Envoy's API marks as sensitive, wherever it stands (Envoy leaves the same out of its own dump), and
every resource of the type Secret as a whole.
"""

import json

from envoy.config.core.v3.base_pb2 import DataSource
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor_pool import Default
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.wrappers_pb2 import StringValue
from udpa.annotations import sensitive_pb2

HIDDEN = "[not shown]"
_SECRET_TYPE = "envoy.extensions.transport_sockets.tls.v3.Secret"


def show_resource(wire: bytes) -> dict[str, object]:
    """The content of a serialised envoy.service.discovery.v3.Resource, with its type as `@type`."""
    return show_content(discovery_pb2.Resource.FromString(wire).resource)


def show_content(content: AnyMessage) -> dict[str, object]:
    """The content of a resource. What is secret in it reads `[not shown]`."""
    name = content.type_url.rpartition("/")[2]
    if name == _SECRET_TYPE:
        return {"@type": content.type_url, "content": HIDDEN}
    shown = AnyMessage()
    shown.CopyFrom(content)
    _hide_in_any(shown)
    found: dict[str, object] = json.loads(MessageToJson(shown, preserving_proto_field_name=True))
    return found


def _hide_in_any(content: AnyMessage) -> None:
    """Hide what is secret in a packed message. One that cannot be read is not shown at all."""
    name = content.type_url.rpartition("/")[2]
    try:
        message = GetMessageClass(Default().FindMessageTypeByName(name))()
        message.ParseFromString(content.value)
    except (KeyError, DecodeError):
        content.Pack(StringValue(value=f"{HIDDEN}: {name} cannot be read here"))
        return
    if name == _SECRET_TYPE:
        content.Pack(StringValue(value=HIDDEN))
        return
    _hide(message)
    content.Pack(message)


def _hide(message: Message) -> None:
    for field, value in message.ListFields():
        if field.GetOptions().Extensions[sensitive_pb2.sensitive]:
            message.ClearField(field.name)
            if field.message_type is DataSource.DESCRIPTOR and not field.is_repeated:
                getattr(message, field.name).inline_string = HIDDEN
        elif field.message_type is not None:
            is_map = field.message_type.GetOptions().map_entry
            for each in value.values() if is_map else value if field.is_repeated else [value]:
                if isinstance(each, AnyMessage):
                    _hide_in_any(each)
                elif isinstance(each, Message):
                    _hide(each)
