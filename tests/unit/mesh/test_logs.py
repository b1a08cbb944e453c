"""Log lines are one line each, whatever the fields hold."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.kit.logs import PlainFormatter, configure_logs, format_value


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("controller.app", logging.INFO, "", 0, message, None, None)
    made.created = 1_700_000_000.25
    made.__dict__.update(fields)
    return made


def test_event_and_its_fields_come_out_in_the_order_given() -> None:
    line = PlainFormatter().format(record("client connected", node="node-1", clients=3, resumed=True, reason="a b"))
    assert line == (
        "2023-11-14T22:13:20.250000Z info controller.app client connected node=node-1 clients=3 resumed=true "
        'reason="a b"'
    )


@given(st.text(max_size=100))
def test_no_value_can_start_a_line_of_its_own(value: str) -> None:
    assert len(PlainFormatter().format(record("event", value=value)).splitlines()) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param("", '""', id="empty"),
        pytest.param('say "x"', '"say \\"x\\""', id="quotes"),
        pytest.param(None, "None", id="none"),
        pytest.param(0.5, "0.5", id="float"),
        pytest.param("x" * 3000, "x" * 2000 + "...", id="long"),
    ],
)
def test_value_forms(value: object, text: str) -> None:
    assert format_value(value) == text


def test_unknown_level_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="loud"):
        configure_logs("loud")
