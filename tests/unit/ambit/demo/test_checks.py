from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address

import pytest

from ambit.demo import checks
from ambit.demo.access_log import AccessLine
from ambit.demo.pcap import TcpEndpoint
from ambit.demo.traffic import Addressing, Answer, Placement, plan_requests, read_answer, read_client_addresses
from ambit.lab.status import LabStatus, PodStatus, ProcessStatus, ServicePortStatus, ServiceStatus
from tests.support.frames import build_capture, build_server_hello, build_tcp_frame

CLIENT = TcpEndpoint(ip_address("192.0.2.1"), 40000)
HBONE = TcpEndpoint(ip_address("192.0.2.2"), 15008)
HTTP = TcpEndpoint(ip_address("192.0.2.2"), 8080)


def pod(namespace: str, name: str, node: str, number: int, *, enrolled: bool = True) -> PodStatus:
    addresses = [f"192.0.2.{number}", f"2001:db8::{number}"]
    return PodStatus(namespace, name, node, addresses, name, "Running", True, enrolled, "", 0, "")


def service(pod: PodStatus, number: int) -> ServiceStatus:
    port = ServicePortStatus("http", 80, "TCP", 8080)
    return ServiceStatus(pod.namespace, pod.name, [f"198.51.100.{number}", f"2001:db8:1::{number}"], [port], 1)


WEB = pod("shop", "web", "node-2", 2)
LEDGER = pod("billing", "ledger", "node-1", 3)
FRONTEND = pod("shop", "frontend", "node-1", 1)
BATCH = pod("outside", "batch", "node-1", 9, enrolled=False)
STATUS = LabStatus("demo", True, "", [], [FRONTEND, LEDGER, WEB, BATCH], [service(WEB, 2), service(LEDGER, 3)], [])


@pytest.fixture
def answers() -> list[Answer]:
    """An answer to every request, as it should be; ports count from 40000."""
    numbers: Iterator[int] = iter(range(1000))
    requests = plan_requests(STATUS, lambda: f"marker{next(numbers):03}")
    return [
        Answer(one, 200, 0.004, one.client.addresses[one.family == 6], 40000 + number, "")
        for number, one in enumerate(requests)
    ]


def lines_about(answers: Sequence[Answer], direction: str) -> list[AccessLine]:
    def line(answer: Answer) -> AccessLine:
        client, server = answer.request.client, answer.request.server
        identities = [f"spiffe://cluster.local/ns/{each.namespace}/sa/{each.name}" for each in (client, server)]
        return AccessLine(
            direction, answer.client, client.name, identities[0], "", server.name, "", identities[1], 0, 0, ""
        )

    return [line(answer) for answer in answers if answer.request.is_meshed]


def test_requests_go_every_way() -> None:
    requests = plan_requests(STATUS)
    ways = {(one.placement, one.addressing, one.family) for one in requests}
    assert len(ways) == len(checks.WAYS) * 2 == len(requests)
    assert len({one.marker for one in requests}) == len(requests)
    (url,) = (
        one.url.split("?")[0]
        for one in requests
        if (one.placement, one.addressing, one.family) == (Placement.ACROSS_NODES, Addressing.SERVICE, 6)
    )
    assert url == "http://[2001:db8:1::2]:80/"


def test_a_pod_that_is_not_enrolled_fails() -> None:
    assert checks.judge_enrolment(STATUS.pods, []).ok
    assert not checks.judge_enrolment([*STATUS.pods, pod("shop", "late", "node-1", 8, enrolled=False)], []).ok
    assert not checks.judge_enrolment([pod("outside", "batch", "node-1", 9)], []).ok
    row = checks.judge_enrolment(STATUS.pods, ["ztunnel/node-1 cannot start"])
    assert not row.ok
    assert "ztunnel/node-1 cannot start" in row.measured


def test_all_answered_is_ok_and_one_that_is_not_fails_its_row_only(answers: list[Answer]) -> None:
    assert all(row.ok for row in checks.judge_answers(answers))
    answers[0] = replace(answers[0], status=0, failure="curl: (56) reset")
    rows = checks.judge_answers(answers)
    (failed,) = [row for row in rows if not row.ok]
    assert "curl: (56) reset" in failed.measured


def test_no_requests_prove_nothing() -> None:
    rows = [*checks.judge_answers([]), checks.judge_client_addresses([], {}), checks.judge_identities([], [])]
    assert not any(row.ok for row in [*rows, *checks.judge_capture(b"", 0, [], [])])


def test_curls_report_is_read(answers: list[Answer]) -> None:
    request = answers[0].request
    answer = read_answer(request, "200 0.012345 192.0.2.1 40404", "")
    assert (answer.is_ok, answer.seconds, answer.client) == (True, 0.012345, "192.0.2.1:40404")
    refused = read_answer(request, "000 0.000345  -1", "curl: (7) Failed to connect\n")
    assert (refused.is_ok, refused.failure) == (False, "curl: (7) Failed to connect")
    assert not read_answer(request, "", "curl: not found").is_ok


def test_the_servers_log_tells_who_came() -> None:
    log = (
        '::ffff:192.0.2.1 - - [21/Nov/2026 08:49:01] "GET /?marker=one HTTP/1.1" 200 -\n'
        '2001:db8::1 - - [21/Nov/2026 08:49:01] "GET /?marker=two HTTP/1.1" 200 -\n'
        '192.0.2.7 - - [21/Nov/2026 08:49:01] "GET / HTTP/1.1" 200 -\n'
    )
    assert read_client_addresses(log) == {"one": "192.0.2.1", "two": "2001:db8::1"}


def test_a_server_that_sees_another_address_fails(answers: list[Answer]) -> None:
    seen = {each.request.marker: each.client_address for each in answers}
    assert checks.judge_client_addresses(answers, seen).ok
    seen[answers[0].request.marker] = "192.0.2.99"
    row = checks.judge_client_addresses(answers, seen)
    assert not row.ok
    assert "192.0.2.99" in row.measured


def test_identities_must_stand_in_both_logs(answers: list[Answer]) -> None:
    outbound, inbound = lines_about(answers, "outbound"), lines_about(answers, "inbound")
    assert checks.judge_identities(answers, [*outbound, *inbound]).ok
    assert not checks.judge_identities(answers, outbound).ok
    assert not checks.judge_identities(answers, inbound).ok
    anonymous = [replace(line, source_identity="") for line in inbound]
    assert not checks.judge_identities(answers, [*outbound, *anonymous]).ok
    other = [replace(line, destination_identity="spiffe://cluster.local/ns/shop/sa/other") for line in outbound]
    assert not checks.judge_identities(answers, [*other, *inbound]).ok


def capture_of(*payloads: bytes) -> bytes:
    hello = build_server_hello()
    frames = [
        build_tcp_frame(HBONE, CLIENT, 1, b"", is_first=True),
        build_tcp_frame(HBONE, CLIENT, 2, hello),
        *(build_tcp_frame(CLIENT, HTTP, 1, payload) for payload in payloads),
    ]
    return build_capture(frames)


def test_a_capture_with_the_outsiders_text_alone_is_ok() -> None:
    rows = checks.judge_capture(capture_of(b"GET /?marker=outside"), 0, ["meshed"], ["outside"])
    assert [row.ok for row in rows] == [True, True, True]
    assert rows[2].measured == "1 × TLS 1.3 TLS_AES_256_GCM_SHA384"


def test_a_meshed_text_in_the_capture_fails() -> None:
    rows = checks.judge_capture(capture_of(b"outside", b"meshed"), 0, ["meshed"], ["outside"])
    assert [row.ok for row in rows] == [True, False, True]


def test_a_capture_that_misses_the_outsiders_text_fails() -> None:
    """Otherwise an empty capture would prove that nothing is readable."""
    assert [row.ok for row in checks.judge_capture(capture_of(), 0, ["meshed"], ["outside"])] == [False, True, True]


def test_a_capture_that_lost_frames_proves_no_absence() -> None:
    rows = checks.judge_capture(capture_of(b"outside"), 3, ["meshed"], ["outside"])
    assert [row.ok for row in rows] == [True, False, True]


@pytest.mark.parametrize("greeting", [build_server_hello(version=None), b"HTTP/1.1 200 OK"], ids=["tls-1.2", "no-tls"])
def test_anything_but_tls_1_3_fails(greeting: bytes) -> None:
    frames = [build_tcp_frame(HBONE, CLIENT, 1, b"", is_first=True), build_tcp_frame(HBONE, CLIENT, 2, greeting)]
    assert not checks.judge_capture(build_capture(frames), 0, ["meshed"], ["outside"])[2].ok


def test_memory_has_a_row_for_each_kind_of_process() -> None:
    def process(name: str, pss: int | None) -> ProcessStatus:
        return ProcessStatus(name, name.partition("/")[2], 1, 1, "running", 0, 0, pss)

    rows = checks.judge_memory(
        [process("controller", 1 << 20), process("ztunnel/a", 3 << 19), process("ztunnel/b", None)]
    )
    assert [(row.check, row.ok) for row in rows] == [
        ("memory (PSS) of controller", True),
        ("memory (PSS) of ztunnel", False),
    ]
    assert rows[1].measured == "a 1.5 MiB, b unknown"
