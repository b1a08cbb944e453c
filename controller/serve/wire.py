"""The delta xDS messages, as values and as bytes. The only room that knows Envoy's generated classes.

A response is put together from resources that were serialised before: a protobuf message is the concatenation of its
fields, so a repeated field needs no second serialisation.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError

from mesh.kit.errors import InvalidInputError

_LENGTH_DELIMITED = 2
_RESPONSE_RESOURCES = 2
_RESOURCE_NAME = 3


@dataclass(frozen=True, slots=True)
class ClientNode:
    """Who a client says it is. `node_name` is metadata's NODE_NAME, empty where it says none."""

    id: str
    node_name: str


@dataclass(frozen=True, slots=True)
class DeltaRequest:
    """A client's message. `node` comes with the first only; `error` is None for an ACK, the reason for a NACK."""

    type_url: str
    node: ClientNode | None = None
    subscribe: Sequence[str] = ()
    unsubscribe: Sequence[str] = ()
    initial_versions: Mapping[str, str] = field(default_factory=dict)
    nonce: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class DeltaResponse:
    """A server's message. `resources` are serialised already."""

    type_url: str
    nonce: str
    version: str
    resources: Sequence[bytes]
    removed: Sequence[str]

    def encode(self) -> bytes:
        """The message's bytes."""
        head: bytes = discovery_pb2.DeltaDiscoveryResponse(
            type_url=self.type_url, nonce=self.nonce, system_version_info=self.version, removed_resources=self.removed
        ).SerializeToString()
        return b"".join([head, *_frame_all(_RESPONSE_RESOURCES, self.resources)])


def parse_request(data: bytes) -> DeltaRequest:
    """Parse a DeltaDiscoveryRequest. Raises InvalidInputError when it is none."""
    try:
        message = discovery_pb2.DeltaDiscoveryRequest.FromString(data)
    except DecodeError as error:
        raise InvalidInputError("not a DeltaDiscoveryRequest") from error
    node = None
    if message.HasField("node"):
        value = message.node.metadata.fields.get("NODE_NAME")
        node = ClientNode(message.node.id, value.string_value if value is not None else "")
    return DeltaRequest(
        type_url=message.type_url,
        node=node,
        subscribe=tuple(message.resource_names_subscribe),
        unsubscribe=tuple(message.resource_names_unsubscribe),
        initial_versions=dict(message.initial_resource_versions),
        nonce=message.response_nonce,
        error=(message.error_detail.message or "no reason given") if message.HasField("error_detail") else None,
    )


def encode_resource(type_url: str, name: str, version: str, body: bytes, aliases: Sequence[str]) -> bytes:
    """A serialised Resource whose content is the serialised message `body`."""
    content = AnyMessage(type_url=type_url, value=body)
    message = discovery_pb2.Resource(name=name, version=version, aliases=aliases, resource=content)
    data: bytes = message.SerializeToString()
    return data


def rename_resource(resource: bytes, name: str) -> bytes:
    """The same resource under another name: of a field that occurs twice the last counts (protobuf, "Encoding")."""
    return resource + _frame(_RESOURCE_NAME, name.encode())


def _frame_all(number: int, payloads: Sequence[bytes]) -> Iterable[bytes]:
    tag = _encode_varint(number << 3 | _LENGTH_DELIMITED)
    for payload in payloads:
        yield tag
        yield _encode_varint(len(payload))
        yield payload


def _frame(number: int, payload: bytes) -> bytes:
    return b"".join(_frame_all(number, [payload]))


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
