"""What a bystander can tell of TLS: the version and cipher that a server chose, from its unencrypted ServerHello."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from ambit.demo.pcap import TcpEndpoint, TcpSegment

TLS_1_3 = 0x0304

CIPHER_NAMES = {
    0x1301: "TLS_AES_128_GCM_SHA256",
    0x1302: "TLS_AES_256_GCM_SHA384",
    0x1303: "TLS_CHACHA20_POLY1305_SHA256",
}
"""TLS 1.3's cipher suites that are in use (RFC 8446, B.4)."""

GREETING_BYTES = 8 << 10
"""How much of the start of a connection is kept: a ServerHello has at most some 1.2 KiB, with a post-quantum key."""

_RECORD_HANDSHAKE = 22
_HANDSHAKE_SERVER_HELLO = 2
_EXTENSION_SUPPORTED_VERSIONS = 43


@dataclass(frozen=True, slots=True)
class ServerHello:
    """What a server chose."""

    version: int
    cipher: int

    @property
    def cipher_name(self) -> str:
        return CIPHER_NAMES.get(self.cipher, f"0x{self.cipher:04x}")


@dataclass(slots=True)
class _Start:
    """The first bytes that one end of a connection sent: segments by their distance from the first byte."""

    first_sequence: int
    pieces: dict[int, bytes] = field(default_factory=dict)

    def add(self, segment: TcpSegment) -> None:
        distance = (segment.sequence - self.first_sequence) & 0xFFFFFFFF
        # A bridge shows a frame on each of its ports, so that the same piece may come again.
        if segment.payload and distance < GREETING_BYTES and len(segment.payload) > len(self.pieces.get(distance, b"")):
            self.pieces[distance] = segment.payload[:GREETING_BYTES]

    def joined(self) -> bytes:
        """The bytes up to the first gap."""
        joined = bytearray()
        for distance, piece in sorted(self.pieces.items()):
            if distance > len(joined):
                break
            joined[distance:] = piece if distance + len(piece) > len(joined) else joined[distance:]
        return bytes(joined)


def find_server_hellos(segments: Iterable[TcpSegment], port: int) -> list[ServerHello | None]:
    """What servers on `port` chose, one entry for each connection whose beginning was seen; None where it is no TLS."""
    starts: dict[tuple[TcpEndpoint, TcpEndpoint], _Start] = {}
    for segment in segments:
        if segment.source.port != port:
            continue
        flow = (segment.source, segment.destination)
        if segment.is_first and (flow not in starts or starts[flow].first_sequence != segment.sequence):
            starts[flow] = _Start(segment.sequence)
        if flow in starts:
            starts[flow].add(segment)
    return [parse_server_hello(start.joined()) for start in starts.values() if start.pieces]


def parse_server_hello(stream: bytes) -> ServerHello | None:
    """The ServerHello at the start of what a server sent (RFC 8446, 4.1.3); None when it is no or not a whole one."""
    handshake = _read_handshake(stream)
    if len(handshake) < 4 or handshake[0] != _HANDSHAKE_SERVER_HELLO:
        return None
    length = int.from_bytes(handshake[1:4], "big")
    body = handshake[4 : 4 + length]
    # legacy_version (2), random (32), legacy_session_id_echo (1 + n), cipher_suite (2), compression (1), extensions
    if len(body) < length or length < 38:
        return None
    after_session = 35 + body[34]
    cipher = int.from_bytes(body[after_session : after_session + 2], "big")
    extensions = body[after_session + 5 :]
    if len(body) < after_session + 3:
        return None
    chosen = _find_extension(extensions, _EXTENSION_SUPPORTED_VERSIONS)
    # Without that extension the server chose an older version, in the field that TLS 1.3 keeps at 1.2.
    version = int.from_bytes(body[:2] if chosen is None else chosen, "big")
    return ServerHello(version, cipher)


def _read_handshake(stream: bytes) -> bytes:
    """The handshake messages in the leading handshake records, which may cut a message anywhere."""
    handshake = bytearray()
    position = 0
    while len(stream) >= position + 5 and stream[position] == _RECORD_HANDSHAKE:
        length = int.from_bytes(stream[position + 3 : position + 5], "big")
        handshake += stream[position + 5 : position + 5 + length]
        position += 5 + length
    return bytes(handshake)


def _find_extension(extensions: bytes, wanted: int) -> bytes | None:
    position = 0
    while len(extensions) >= position + 4:
        kind = int.from_bytes(extensions[position : position + 2], "big")
        length = int.from_bytes(extensions[position + 2 : position + 4], "big")
        if kind == wanted:
            return extensions[position + 4 : position + 4 + length]
        position += 4 + length
    return None
