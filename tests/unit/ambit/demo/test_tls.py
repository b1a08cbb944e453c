from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from ambit.demo.pcap import TcpEndpoint, TcpSegment
from ambit.demo.tls import TLS_1_3, ServerHello, find_server_hellos, parse_server_hello
from tests.support.frames import build_server_hello

SERVER = TcpEndpoint(ip_address("192.0.2.2"), 15008)
HELLO = build_server_hello()


def segments_of(stream: bytes, cuts: list[int], client_port: int = 40000, first: int = 1000) -> list[TcpSegment]:
    client = TcpEndpoint(ip_address("192.0.2.1"), client_port)
    found = [TcpSegment(SERVER, client, first, is_first=True, payload=b"")]
    ends = [*sorted(cuts), len(stream)]
    for start, end in zip([0, *ends], ends, strict=False):
        found.append(
            TcpSegment(SERVER, client, (first + start) & 0xFFFFFFFF, is_first=False, payload=stream[start:end])
        )
    return found


def test_tls_1_3_is_told_from_its_extension() -> None:
    hello = parse_server_hello(HELLO)
    assert hello == ServerHello(TLS_1_3, 0x1302)
    assert hello.cipher_name == "TLS_AES_256_GCM_SHA384"


def test_without_the_extension_the_old_field_counts() -> None:
    assert parse_server_hello(build_server_hello(version=None, cipher=0xC02F)) == ServerHello(0x0303, 0xC02F)


def test_plaintext_is_no_server_hello() -> None:
    assert parse_server_hello(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(100)) is None


def test_a_hello_that_is_cut_short_is_none() -> None:
    assert all(parse_server_hello(HELLO[:length]) is None for length in range(len(HELLO)))


def test_a_hello_in_two_records_is_put_together() -> None:
    handshake = HELLO[5:]
    records = b"".join(
        b"\x16\x03\x03" + len(part).to_bytes(2, "big") + part for part in (handshake[:20], handshake[20:])
    )
    assert parse_server_hello(records) == ServerHello(TLS_1_3, 0x1302)


def test_segments_out_of_order_and_seen_twice_are_put_together() -> None:
    segments = segments_of(HELLO, [10, 50])
    shuffled = [segments[0], segments[3], segments[1], segments[2], *segments]
    assert find_server_hellos(shuffled, 15008) == [ServerHello(TLS_1_3, 0x1302)]


def test_a_lost_segment_gives_no_hello() -> None:
    segments = segments_of(HELLO, [10, 50])
    assert find_server_hellos([segments[0], segments[1], segments[3]], 15008) == [None]


def test_sequence_numbers_may_wrap_around() -> None:
    segments = segments_of(HELLO, [10, 50], first=0xFFFFFFFF)
    assert find_server_hellos(segments, 15008) == [ServerHello(TLS_1_3, 0x1302)]


def test_each_connection_has_its_own_entry_and_other_ports_have_none() -> None:
    segments = segments_of(HELLO, []) + segments_of(b"HTTP/1.1 200 OK", [], client_port=40001)
    assert find_server_hellos(segments, 15008) == [ServerHello(TLS_1_3, 0x1302), None]
    assert find_server_hellos(segments, 80) == []


@given(st.binary(max_size=200), st.integers(0, len(HELLO)))
def test_any_bytes_are_a_hello_or_none(junk: bytes, cut: int) -> None:
    parse_server_hello(junk)
    parse_server_hello(HELLO[:cut] + junk)
