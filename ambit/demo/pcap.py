"""Captures of a network: the classic pcap file, and the TCP segments in it.

Format: draft-ietf-opsawg-pcap. Only what a lab's underlay carries is decoded (Ethernet, IPv4 and IPv6 without
fragments, TCP); any other frame is skipped, because a capture holds whatever was on the wire.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from mesh.kit.errors import InvalidInputError

MAX_FRAME_BYTES = 256 << 10
"""Longer than any frame, also one that the kernel has not segmented yet (64 KiB, or 192 KiB with BIG TCP)."""

_FILE_HEADER_BYTES = 24
_RECORD_HEADER_BYTES = 16
_MAGICS = {
    b"\xa1\xb2\xc3\xd4": ">",
    b"\xd4\xc3\xb2\xa1": "<",
    b"\xa1\xb2\x3c\x4d": ">",
    b"\x4d\x3c\xb2\xa1": "<",
}
"""The first four bytes of a file, with micro- and nanoseconds, and the byte order that each stands for."""
_LINK_ETHERNET = 1
_ETHERNET_IPV4 = 0x0800
_ETHERNET_IPV6 = 0x86DD
_ETHERNET_VLAN = 0x8100
_PROTOCOL_TCP = 6
_FLAG_SYN = 0x02


class InvalidCaptureError(InvalidInputError):
    """A file is not a capture that we can read."""

    reason = "invalid_capture"


@dataclass(frozen=True, slots=True)
class TcpEndpoint:
    """One end of a TCP connection."""

    address: IPv4Address | IPv6Address
    port: int


@dataclass(frozen=True, slots=True)
class TcpSegment:
    """What one frame carried of a TCP connection. `sequence` is that of the first byte of `payload`."""

    source: TcpEndpoint
    destination: TcpEndpoint
    sequence: int
    is_first: bool
    payload: bytes


def read_frames(capture: bytes) -> Iterator[bytes]:
    """The frames of a pcap file, as far as it has been written: a record that is cut short ends it.

    Raises InvalidCaptureError when it is no such file or its records make no sense.
    """
    if len(capture) < _FILE_HEADER_BYTES:
        return
    order = _MAGICS.get(capture[:4])
    if order is None:
        raise InvalidCaptureError(f"no pcap file: it begins with {capture[:4].hex()}")
    (link,) = struct.unpack_from(f"{order}I", capture, 20)
    if link & 0xFFFF != _LINK_ETHERNET:
        raise InvalidCaptureError(f"frames of link type {link & 0xFFFF}; only Ethernet (1) is understood")
    position = _FILE_HEADER_BYTES
    while position + _RECORD_HEADER_BYTES <= len(capture):
        (length,) = struct.unpack_from(f"{order}I", capture, position + 8)
        if length > MAX_FRAME_BYTES:
            raise InvalidCaptureError(f"a frame of {length} bytes at offset {position}; at most {MAX_FRAME_BYTES}")
        start = position + _RECORD_HEADER_BYTES
        position = start + length
        if position > len(capture):
            return
        yield capture[start:position]


def read_tcp_segments(capture: bytes) -> Iterator[TcpSegment]:
    """The TCP segments of a pcap file in the order they were seen; raises InvalidCaptureError."""
    for frame in read_frames(capture):
        segment = parse_tcp_frame(frame)
        if segment is not None:
            yield segment


def parse_tcp_frame(frame: bytes) -> TcpSegment | None:
    """The TCP segment in an Ethernet frame; None when it holds something else, a fragment, or too little."""
    kind, start = _ethernet_payload(frame)
    if kind == _ETHERNET_IPV4:
        return _parse_ipv4(frame[start:])
    if kind == _ETHERNET_IPV6:
        return _parse_ipv6(frame[start:])
    return None


def _ethernet_payload(frame: bytes) -> tuple[int, int]:
    """The type of an Ethernet frame, past a VLAN tag, and where its payload begins; type 0 for what is too short."""
    at = 16 if frame[12:14] == _ETHERNET_VLAN.to_bytes(2, "big") else 12
    return (int.from_bytes(frame[at : at + 2], "big"), at + 2) if len(frame) >= at + 2 else (0, 0)


def _parse_ipv4(packet: bytes) -> TcpSegment | None:
    if len(packet) < 20 or packet[9] != _PROTOCOL_TCP:
        return None
    header_bytes = (packet[0] & 0x0F) * 4
    # More fragments, or an offset: only whole packets count.
    if header_bytes < 20 or int.from_bytes(packet[6:8], "big") & 0x3FFF:
        return None
    # A packet that the network card would have segmented may say 0 here; then the frame's own length counts.
    end = int.from_bytes(packet[2:4], "big") or len(packet)
    return _parse_tcp(packet[header_bytes:end], IPv4Address(packet[12:16]), IPv4Address(packet[16:20]))


def _parse_ipv6(packet: bytes) -> TcpSegment | None:
    # Extension headers are not followed: the kernel sends none with TCP.
    if len(packet) < 40 or packet[6] != _PROTOCOL_TCP:
        return None
    length = int.from_bytes(packet[4:6], "big")
    end = 40 + length if length else len(packet)
    return _parse_tcp(packet[40:end], IPv6Address(packet[8:24]), IPv6Address(packet[24:40]))


def _parse_tcp(
    segment: bytes, source: IPv4Address | IPv6Address, destination: IPv4Address | IPv6Address
) -> TcpSegment | None:
    if len(segment) < 20:
        return None
    source_port, destination_port, sequence = struct.unpack_from(">HHI", segment)
    header_bytes = (segment[12] >> 4) * 4
    if not 20 <= header_bytes <= len(segment):
        return None
    is_first = bool(segment[13] & _FLAG_SYN)
    return TcpSegment(
        source=TcpEndpoint(source, source_port),
        destination=TcpEndpoint(destination, destination_port),
        # The SYN takes a number of its own.
        sequence=(sequence + is_first) & 0xFFFFFFFF,
        is_first=is_first,
        payload=segment[header_bytes:],
    )
