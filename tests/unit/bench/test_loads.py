import json

import pytest

from bench.loads import HttpResult, parse_iperf, parse_wrk
from bench.report import BenchError

WRK_REPORT = """\
Running 2s test @ http://192.0.2.1:8080/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     0.94ms    1.17ms  17.58ms   90.41%
    Req/Sec    41.93k     3.10k   46.50k    75.00%
  83450 requests in 2.00s, 12.3MB read
{remarks}Requests/sec:  41702.25
Transfer/sec:      6.15MB
"""


def test_throughput_is_what_the_server_received() -> None:
    end = {"sum_sent": {"bits_per_second": 9e9}, "sum_received": {"bits_per_second": 7.5e9}}
    assert parse_iperf(json.dumps({"end": end})) == 7.5


def test_failed_iperf_run_is_an_error_that_says_why() -> None:
    with pytest.raises(BenchError, match="the server is busy"):
        parse_iperf(json.dumps({"end": {}, "error": "error - the server is busy running a test"}))


@pytest.mark.parametrize(
    ("remarks", "failures"),
    [
        pytest.param("", 0, id="none"),
        pytest.param("  Socket errors: connect 1, read 20, write 0, timeout 3\n", 24, id="socket-errors"),
        pytest.param("  Non-2xx or 3xx responses: 7\n", 7, id="other-answers"),
        pytest.param(
            "  Socket errors: connect 0, read 2, write 0, timeout 0\n  Non-2xx or 3xx responses: 7\n", 9, id="both"
        ),
    ],
)
def test_everything_that_is_not_an_answer_of_200_is_a_failure(remarks: str, failures: int) -> None:
    assert parse_wrk(WRK_REPORT.format(remarks=remarks)) == HttpResult(41702.25, failures)


def test_what_is_not_a_report_of_wrk_is_an_error_that_shows_it() -> None:
    with pytest.raises(BenchError, match="unable to connect"):
        parse_wrk("unable to connect to 192.0.2.1:8080 Connection refused")
