"""What the translations to Envoy's v3 API share: packed extensions, durations, the source of everything."""

from envoy.config.core.v3 import address_pb2, config_source_pb2
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message


def pack(message: Message) -> AnyMessage:
    """An extension's configuration, with its maps in order."""
    packed = AnyMessage()
    packed.Pack(message, deterministic=True)
    return packed


def milliseconds(value: int) -> Duration:
    """A duration."""
    return Duration(seconds=value // 1000, nanos=value % 1000 * 1_000_000)


def build_ads_source() -> config_source_pb2.ConfigSource:
    """Where every resource comes from: the stream that named it."""
    return config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(), resource_api_version=config_source_pb2.V3
    )


def build_address(host: str, port: int) -> address_pb2.Address:
    """A TCP address. `::` is all of both families."""
    address = address_pb2.SocketAddress(address=host, port_value=port, ipv4_compat=host == "::")
    return address_pb2.Address(socket_address=address)
