from hypothesis import given
from hypothesis import strategies as st

from ambit.demo.access_log import parse_access_line, read_access_lines

REFUSED = (
    "2026-11-21T08:49:00.000001Z\terror\taccess\tconnection complete\t"
    'src.addr=192.0.2.1:40000 src.workload="frontend" src.identity="spiffe://cluster.local/ns/shop/sa/frontend" '
    'dst.addr=192.0.2.2:15008 dst.hbone_addr="192.0.2.2:8080" dst.service="web.shop.svc.cluster.local" '
    'dst.workload="web" dst.identity="spiffe://cluster.local/ns/shop/sa/web" '
    'direction="inbound" bytes_sent=0 bytes_recv=12 duration="3ms" error="denied by \\"shop/no frontend\\""'
)


def test_a_line_gives_both_ends_and_the_error() -> None:
    line = parse_access_line(REFUSED)
    assert line is not None
    assert (line.direction, line.source, line.source_address) == ("inbound", "192.0.2.1:40000", "192.0.2.1")
    assert line.source_identity == "spiffe://cluster.local/ns/shop/sa/frontend"
    assert line.destination_identity == "spiffe://cluster.local/ns/shop/sa/web"
    assert (line.destination_service, line.bytes_received) == ("web.shop.svc.cluster.local", 12)
    assert line.error == 'denied by "shop/no frontend"'


def test_an_ipv6_source_loses_its_brackets() -> None:
    line = parse_access_line('t\tinfo\taccess\tconnection complete\tsrc.addr=[2001:db8::1]:40000 direction="outbound"')
    assert line is not None
    assert line.source_address == "2001:db8::1"


def test_other_lines_are_none() -> None:
    assert parse_access_line("2026-11-21T08:49:00Z\tinfo\txds\tconnected to the controller\t") is None
    assert parse_access_line("2026-11-21T08:49:00Z\tdebug\taccess\tconnection opened\tsrc.addr=192.0.2.1:1") is None


def test_a_line_that_is_still_being_written_waits() -> None:
    assert len(list(read_access_lines(f"{REFUSED}\n{REFUSED[:200]}"))) == 1


@given(st.text())
def test_any_text_is_a_line_or_none(text: str) -> None:
    parse_access_line(text)
    parse_access_line(f"t\tinfo\taccess\tconnection complete\t{text}")
