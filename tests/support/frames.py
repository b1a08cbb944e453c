"""Makes captures for tests of what reads them: pcap files, Ethernet frames with TCP, TLS's ServerHello."""

import struct
from collections.abc import Iterable
from ipaddress import IPv4Address

from ambit.demo.pcap import TcpEndpoint


def build_capture(frames: Iterable[bytes]) -> bytes:
    """A pcap file with these frames."""
    header = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
    return header + b"".join(struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame for frame in frames)


def build_tcp_frame(
    source: TcpEndpoint, destination: TcpEndpoint, sequence: int, payload: bytes, *, is_first: bool = False
) -> bytes:
    """An Ethernet frame with one TCP segment; checksums are not filled in."""
    flags = 0x02 if is_first else 0x10
    tcp = struct.pack(">HHIIBBHHH", source.port, destination.port, sequence, 0, 5 << 4, flags, 1024, 0, 0) + payload
    if isinstance(source.address, IPv4Address):
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0)
        kind = b"\x08\x00"
    else:
        ip = struct.pack(">IHBB", 6 << 28, len(tcp), 6, 64)
        kind = b"\x86\xdd"
    return bytes(12) + kind + ip + source.address.packed + destination.address.packed + tcp


def build_server_hello(version: int | None = 0x0304, cipher: int = 0x1302, key_share_bytes: int = 32) -> bytes:
    """A TLS record with a ServerHello; `version` None leaves supported_versions out, as TLS 1.2 does."""
    extensions = struct.pack(">HHHH", 51, key_share_bytes + 4, 0x001D, key_share_bytes) + bytes(key_share_bytes)
    if version is not None:
        extensions += struct.pack(">HHH", 43, 2, version)
    body = struct.pack(">H", 0x0303) + bytes(32) + b"\x20" + bytes(32) + struct.pack(">HB", cipher, 0)
    body += struct.pack(">H", len(extensions)) + extensions
    handshake = b"\x02" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x03" + len(handshake).to_bytes(2, "big") + handshake
