"""The soak's verdict, and the length that the environment gives it."""

import pytest

from bench import soak, state
from bench.report import Row
from bench.settings import SOAK_SECONDS, read_soak_seconds
from bench.soak import Findings, Series, compare_ends
from mesh.kit.errors import InvalidInputError

FLAT = [100.0, *[10.0] * 40]
"""The first look, before all has settled, does not count."""
GROWING = [10.0 + step * 0.1 for step in range(40)]
NOTHING_WRONG: dict[str, object] = {
    "connections": 9,
    "messages": 9,
    "requests": 9,
    "bytes": 1 << 20,
    "failures": 0,
    "wrong": 0,
}


def verdict(
    load: dict[str, object], values: list[float], unexpected: tuple[str, ...] = (), certificates: int = 3
) -> list[Row]:
    """The rows of a minute that miss their aim."""
    series = {"ztunnel/node-1": Series(values, [40.0] * len(values))}
    findings = Findings(load, series, 5, 10, list(unexpected), {"ztunnel/node-1": certificates})
    rows = soak.build_rows(findings, 60)
    return [row for row in rows if row.is_met is False]


def test_flat_and_right_is_good() -> None:
    assert verdict(NOTHING_WRONG, FLAT) == []


@pytest.mark.parametrize("name", ["failures", "wrong"])
def test_one_bad_answer_is_too_many(name: str) -> None:
    (missed,) = verdict(NOTHING_WRONG | {name: 1}, FLAT)
    assert missed.ours == 1


def test_a_policy_without_its_effect_is_too_many() -> None:
    (missed,) = verdict(NOTHING_WRONG, FLAT, ("denied expected",))
    assert "policies" in missed.measure


def test_certificates_that_are_not_renewed_are_missed() -> None:
    (missed,) = verdict(NOTHING_WRONG, FLAT, certificates=1)
    assert "certificates fetched" in missed.measure


def test_a_load_without_http_is_missed() -> None:
    (missed,) = verdict(NOTHING_WRONG | {"requests": 0}, FLAT)
    assert "HTTP" in missed.measure


def test_slow_growth_is_seen() -> None:
    (missed,) = verdict(NOTHING_WRONG, GROWING)
    assert "PSS, late vs early" in missed.measure


@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0], [3.0, 2.0, 1.0]])
def test_few_looks_are_enough_to_compare(values: list[float]) -> None:
    assert compare_ends(values)


def test_the_length_is_ten_minutes_unless_told_otherwise() -> None:
    assert read_soak_seconds({}) == SOAK_SECONDS
    assert read_soak_seconds({"SOAK_SECONDS": "90"}) == 90
    for text in ("soon", "0", "-5", "nan"):
        with pytest.raises(InvalidInputError, match="SOAK_SECONDS"):
            read_soak_seconds({"SOAK_SECONDS": text})


def test_the_aims_of_a_large_mesh_are_those_of_a_hundred_thousand() -> None:
    found = {
        "count": 100_000.0,
        "added_mebibytes": 51.0,
        "apply_seconds": 2.1,
        "p99_before_us": 100.0,
        "p99_during_us": 201.0,
        "bystander_before_us": 50.0,
        "bystander_during_us": 60.0,
    }
    assert [row.is_met for row in state.build_rows(found, is_last=True)] == [False, False, False, None]
    assert [row.is_met for row in state.build_rows(found, is_last=False)] == [None, None, None, None]
    assert len(list(state.build_resources(0, 100))) == 100 + 100 // state.PODS_PER_SERVICE
