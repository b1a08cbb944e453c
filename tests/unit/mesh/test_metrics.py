"""Metrics come out in Prometheus' text format."""

import pytest

from mesh.kit.metrics import Metrics


def test_page_has_help_type_and_every_series() -> None:
    metrics = Metrics()
    metrics.counter("requests_total", "Requests.", "code", "kind").add(2, kind="a", code="200")
    metrics.gauge("clients", "Clients.").set(3.5)
    assert metrics.render() == (
        "# HELP requests_total Requests.\n# TYPE requests_total counter\n"
        'requests_total{code="200",kind="a"} 2\n'
        "# HELP clients Clients.\n# TYPE clients gauge\nclients 3.5\n"
    )


def test_metric_without_labels_is_there_from_the_start_and_label_values_are_escaped() -> None:
    metrics = Metrics()
    metrics.counter("errors_total", "Errors.")
    named = metrics.counter("named_total", "Named.", "name")
    named.add(name='a"b\\c\nd')
    assert "errors_total 0\n" in metrics.render()
    assert 'named_total{name="a\\"b\\\\c\\nd"} 1\n' in metrics.render()
    assert named.value(name="other") == 0
    with pytest.raises(KeyError):
        named.add()
