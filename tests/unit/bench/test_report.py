import json

import pytest

from bench.report import (
    Aim,
    Row,
    build_document,
    ours_at_most,
    ratio_at_least,
    ratio_at_most,
    render_markdown,
    render_table,
)


@pytest.mark.parametrize(
    ("ours", "peer", "aim", "met"),
    [
        pytest.param(7.0, 6.0, ratio_at_least(1), True, id="more-is-better-and-more"),
        pytest.param(6.0, 6.0, ratio_at_least(1), True, id="the-bound-itself-is-met"),
        pytest.param(5.9, 6.0, ratio_at_least(1), False, id="more-is-better-and-less"),
        pytest.param(80.0, 100.0, ratio_at_most(1), True, id="less-is-better-and-less"),
        pytest.param(101.0, 100.0, ratio_at_most(1), False, id="less-is-better-and-more"),
        pytest.param(24.0, 40.0, ours_at_most(24), True, id="own-figure-whatever-the-peer"),
        pytest.param(24.1, 40.0, ours_at_most(24), False, id="own-figure-too-large"),
        pytest.param(1.0, None, ours_at_most(24), True, id="own-figure-without-a-peer"),
        pytest.param(1.0, None, None, None, id="no-aim"),
    ],
)
def test_row_says_whether_its_aim_is_met(ours: float, peer: float | None, aim: Aim | None, met: bool | None) -> None:
    assert Row("throughput", "Gbit/s", ours, peer, aim).is_met is met


@pytest.mark.parametrize("peer", [None, 0.0], ids=["no-peer", "peer-of-zero"])
def test_aim_on_a_ratio_that_does_not_exist_is_not_met(peer: float | None) -> None:
    row = Row("failures", "requests", 0.0, peer, ratio_at_most(1))
    assert row.ratio is None
    assert row.is_met is False


def test_document_has_exactly_the_fields_that_every_bench_writes() -> None:
    rows = [Row("latency p50", "us", 91.23456, 137.0, ratio_at_most(1)), Row("rate", "1/s", 12345.678)]

    document = json.loads(json.dumps(build_document("l4", rows)))

    assert document == {
        "bench": "l4",
        "rows": [
            {
                "measure": "latency p50",
                "unit": "us",
                "ours": 91.23,
                "peer": 137.0,
                "ratio": 0.6659,
                "aim": "ratio <= 1",
                "met": True,
            },
            {"measure": "rate", "unit": "1/s", "ours": 12350.0, "peer": None, "ratio": None, "aim": None, "met": None},
        ],
    }


def test_rounding_for_the_reader_does_not_decide_whether_an_aim_is_met() -> None:
    row = Row("throughput", "Gbit/s", 0.99999, 1.0, ratio_at_least(1))
    assert row.document()["ratio"] == 1.0
    assert row.is_met is False


def test_markdown_shows_every_row_and_where_it_was_measured() -> None:
    rows = [
        Row("new connections", "1/s", 2800.0, 910.0, ratio_at_least(1)),
        Row("PSS", "MiB", 25.0, aim=ours_at_most(24)),
    ]

    page = render_markdown("bench l4", rows, {"kernel": "Linux 6.1"})

    assert "| new connections | 1/s | 2,800 | 910 | 3.077 | ratio >= 1 | yes |" in page
    assert "| PSS | MiB | 25 | - | - | ours <= 24 | NO |" in page
    assert "- kernel: Linux 6.1" in page


def test_table_aligns_its_columns() -> None:
    lines = render_table([Row("a", "1/s", 1.0, 2.0), Row("longer", "MiB", 12345.0, 3.0)]).splitlines()
    assert len(lines) == 3
    assert lines[1].index("1/s") == lines[2].index("MiB") == lines[0].index("unit")
