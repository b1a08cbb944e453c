import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.demo.pcap import InvalidCaptureError, TcpEndpoint, parse_tcp_frame, read_frames, read_tcp_segments
from tests.support.frames import build_capture, build_tcp_frame

CLIENT = TcpEndpoint(ip_address("192.0.2.1"), 40000)
SERVER = TcpEndpoint(ip_address("192.0.2.2"), 15008)
CLIENT_6 = TcpEndpoint(ip_address("2001:db8::1"), 40000)
SERVER_6 = TcpEndpoint(ip_address("2001:db8::2"), 15008)


@pytest.mark.parametrize(("source", "destination"), [(CLIENT, SERVER), (CLIENT_6, SERVER_6)], ids=["ipv4", "ipv6"])
def test_a_tcp_frame_gives_its_ends_and_payload(source: TcpEndpoint, destination: TcpEndpoint) -> None:
    segment = parse_tcp_frame(build_tcp_frame(source, destination, 7, b"hello"))
    assert segment is not None
    assert (segment.source, segment.destination, segment.sequence) == (source, destination, 7)
    assert segment.payload == b"hello"


def test_padding_of_a_short_frame_is_no_payload() -> None:
    segment = parse_tcp_frame(build_tcp_frame(CLIENT, SERVER, 7, b"") + bytes(6))
    assert segment is not None
    assert segment.payload == b""


def test_the_byte_after_a_syn_has_the_next_number() -> None:
    segment = parse_tcp_frame(build_tcp_frame(CLIENT, SERVER, 0xFFFFFFFF, b"", is_first=True))
    assert segment is not None
    assert segment.is_first
    assert segment.sequence == 0


def test_a_vlan_tag_is_passed_over() -> None:
    frame = build_tcp_frame(CLIENT, SERVER, 7, b"hello")
    segment = parse_tcp_frame(frame[:12] + b"\x81\x00\x00\x2a" + frame[12:])
    assert segment is not None
    assert segment.payload == b"hello"


def test_a_fragment_is_skipped() -> None:
    frame = bytearray(build_tcp_frame(CLIENT, SERVER, 7, b"hello"))
    frame[20] |= 0x20  # more fragments
    assert parse_tcp_frame(bytes(frame)) is None


def test_a_record_that_is_still_being_written_ends_the_frames() -> None:
    capture = build_capture([b"first frame", b"second frame"])
    assert list(read_frames(capture)) == [b"first frame", b"second frame"]
    for cut in range(1, 12 + 16):
        assert list(read_frames(capture[:-cut])) == [b"first frame"]


def test_what_is_no_capture_is_refused() -> None:
    with pytest.raises(InvalidCaptureError, match="no pcap file"):
        list(read_frames(b"GET / HTTP/1.1\r\nHost: example\r\n\r\n"))


def test_other_links_than_ethernet_are_refused() -> None:
    with pytest.raises(InvalidCaptureError, match="link type 113"):
        list(read_frames(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 113)))


def test_a_frame_of_a_gigabyte_is_refused() -> None:
    capture = build_capture([]) + struct.pack("<IIII", 0, 0, 1 << 30, 1 << 30)
    with pytest.raises(InvalidCaptureError, match="1073741824 bytes"):
        list(read_frames(capture))


@given(st.binary(max_size=120))
def test_any_bytes_are_a_frame_or_skipped(frame: bytes) -> None:
    parse_tcp_frame(frame)
    ethernet = bytes(12)
    parse_tcp_frame(ethernet + b"\x08\x00\x45" + frame)
    parse_tcp_frame(ethernet + b"\x86\xdd\x60" + frame)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_capture_or_refused(capture: bytes) -> None:
    for start in (b"", b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\x3c\x4d"):
        try:
            list(read_tcp_segments(start + capture))
        except InvalidCaptureError:
            pass
