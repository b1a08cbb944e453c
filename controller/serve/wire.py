"""The delta xDS messages, as values and as bytes. The only room that knows Envoy's generated classes.

A response is put together from resources that were serialised before: a protobuf message is the concatenation of its
fields, so a repeated field needs no second serialisation.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError

from controller.kinds.gateway_api import GATEWAY_LABEL
from controller.registry.proxies import Ingress, build_ingress
from mesh.kit.errors import InvalidInputError

_LENGTH_DELIMITED = 2
_RESPONSE_RESOURCES = 2
_RESPONSE_NONCE = 5
_RESPONSE_REMOVED = 6
_RESOURCE_NAME = 3
SUMMARY_NAME = "ambit.dev/summary"
"""Stands among the versions that a client has in the place of all of them: no namespace has a dot."""
CONTROL_PLANE = "ambit"
"""Who answers: clients that know it may sum up what they have (docs/decisions/0014)."""
# Istio's word for the proxy of a gateway.
_GATEWAY_ID_PREFIX = "router~"
_SECRET = ".Secret"


@dataclass(frozen=True, slots=True)
class ClientNode:
    """Who a client says it is; what it does not say is empty.

    `node_name` is metadata's NODE_NAME; `gateway` is the Gateway whose proxy it is, as `namespace/name`, by the label
    that Gateway API gives such a pod. A gateway's proxy without that label is one of the ingress gateway `ingress`.
    """

    id: str
    node_name: str
    gateway: str = ""
    ingress: Ingress | None = None


@dataclass(frozen=True, slots=True)
class DeltaRequest:
    """A client's message. `node` comes with the first only; `error` is None for an ACK, the reason for a NACK.

    `summary` stands for `initial_versions` where it is not None.
    """

    type_url: str
    node: ClientNode | None = None
    subscribe: Sequence[str] = ()
    unsubscribe: Sequence[str] = ()
    initial_versions: Mapping[str, str] = field(default_factory=dict)
    nonce: str = ""
    error: str | None = None
    summary: int | None = None


@dataclass(frozen=True, slots=True)
class DeltaResponse:
    """A server's message. `resources` are serialised already; `framed` are more of them, put together as well.

    `count` is how many there are.
    """

    type_url: str
    nonce: str
    version: str
    resources: Sequence[bytes]
    removed: Sequence[str]
    framed: bytes = b""
    count: int = 0

    def encode(self) -> Sequence[bytes]:
        """The message's bytes, in parts, of which `framed` is one: it goes out of the memory that it is in."""
        own = b"".join(
            [
                _encode_head(self.type_url, self.version),
                _frame(_RESPONSE_NONCE, self.nonce.encode()),
                *_frame_all(_RESPONSE_REMOVED, (name.encode() for name in self.removed)),
                *_frame_all(_RESPONSE_RESOURCES, self.resources),
            ]
        )
        return (own, self.framed) if self.framed else (own,)


@functools.lru_cache(maxsize=16)
def _encode_head(type_url: str, version: str) -> bytes:
    """What all clients that are told of a change get alike."""
    data: bytes = discovery_pb2.DeltaDiscoveryResponse(
        type_url=type_url, system_version_info=version, control_plane={"identifier": CONTROL_PLANE}
    ).SerializeToString()
    return data


@dataclass(frozen=True, slots=True)
class StateRequest:
    """A client's message in the older form, in which it repeats all names that it wants, and is told all there is."""

    type_url: str
    names: Sequence[str]
    node: ClientNode | None = None
    nonce: str = ""
    error: str | None = None


def parse_state_request(data: bytes) -> StateRequest:
    """Parse a DiscoveryRequest. Raises InvalidInputError when it is none."""
    try:
        message = discovery_pb2.DiscoveryRequest.FromString(data)
    except DecodeError as error:
        raise InvalidInputError("not a DiscoveryRequest") from error
    return StateRequest(
        type_url=message.type_url,
        names=tuple(message.resource_names),
        node=_parse_node(message.node) if message.HasField("node") else None,
        nonce=message.response_nonce,
        error=_parse_error(message),
    )


def encode_state_response(response: DeltaResponse) -> Sequence[bytes]:
    """The same resources as a DiscoveryResponse."""
    framed = discovery_pb2.DeltaDiscoveryResponse.FromString(response.framed).resources
    resources = [each.resource for each in framed]
    resources += [discovery_pb2.Resource.FromString(each).resource for each in response.resources]
    data: bytes = discovery_pb2.DiscoveryResponse(
        type_url=response.type_url, nonce=response.nonce, version_info=response.version, resources=resources
    ).SerializeToString()
    return (data,)


def parse_request(data: bytes) -> DeltaRequest:
    """Parse a DeltaDiscoveryRequest. Raises InvalidInputError when it is none."""
    try:
        message = discovery_pb2.DeltaDiscoveryRequest.FromString(data)
    except DecodeError as error:
        raise InvalidInputError("not a DeltaDiscoveryRequest") from error
    versions = dict(message.initial_resource_versions)
    summary = versions.pop(SUMMARY_NAME, None)
    return DeltaRequest(
        type_url=message.type_url,
        node=_parse_node(message.node) if message.HasField("node") else None,
        subscribe=tuple(message.resource_names_subscribe),
        unsubscribe=tuple(message.resource_names_unsubscribe),
        initial_versions=versions,
        nonce=message.response_nonce,
        error=_parse_error(message),
        summary=_parse_summary(summary) if summary is not None else None,
    )


def _parse_summary(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError as error:
        raise InvalidInputError(f"{SUMMARY_NAME} is {text[:40]!r}, and no hexadecimal number") from error


def _parse_error(message: "discovery_pb2.DeltaDiscoveryRequest | discovery_pb2.DiscoveryRequest") -> str | None:
    """What Envoy says of a message that it refuses may be the whole message: of a secret it is not looked at."""
    if message.HasField("error_detail") and message.type_url.endswith(_SECRET):
        return "refused; the proxy's own log says why"
    return (message.error_detail.message or "no reason given") if message.HasField("error_detail") else None


def _parse_node(node: base_pb2.Node) -> ClientNode:
    fields = node.metadata.fields
    node_name, namespace = (fields[name].string_value if name in fields else "" for name in ("NODE_NAME", "NAMESPACE"))
    labels = fields["LABELS"].struct_value.fields if "LABELS" in fields else {}
    name = labels[GATEWAY_LABEL].string_value if GATEWAY_LABEL in labels else ""
    if namespace and name:
        return ClientNode(node.id, node_name, f"{namespace}/{name}")
    if namespace and node.id.startswith(_GATEWAY_ID_PREFIX):
        given = {key: value.string_value for key, value in labels.items()}
        return ClientNode(node.id, node_name, ingress=build_ingress(namespace, given))
    return ClientNode(node.id, node_name)


def encode_resource(type_url: str, name: str, version: str, body: bytes, aliases: Sequence[str]) -> bytes:
    """A serialised Resource whose content is the serialised message `body`."""
    content = AnyMessage(type_url=type_url, value=body)
    message = discovery_pb2.Resource(name=name, version=version, aliases=aliases, resource=content)
    data: bytes = message.SerializeToString()
    return data


def frame_resources(resources: Iterable[bytes]) -> bytes:
    """Serialised resources, one behind the other as a response has them."""
    return b"".join(_frame_all(_RESPONSE_RESOURCES, resources))


def rename_resource(resource: bytes, name: str) -> bytes:
    """The same resource under another name: of a field that occurs twice the last counts (protobuf, "Encoding")."""
    return resource + _frame(_RESOURCE_NAME, name.encode())


def _frame_all(number: int, payloads: Iterable[bytes]) -> Iterable[bytes]:
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
