"""Counters and gauges with labels, in Prometheus' text format. Small on purpose: no histograms, no global registry.

    metrics = Metrics()
    pushes = metrics.counter("pilot_xds_pushes", "Responses sent.", "type")
    pushes.add(type="wds")
    metrics.render()

Label values come from the program, never from the network, so that the number of series is bounded.
"""

from collections.abc import Callable

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metric:
    """One name with a value for each combination of label values."""

    def __init__(self, kind: str, name: str, description: str, labels: tuple[str, ...]) -> None:
        self._kind = kind
        self._name = name
        self._description = description
        self._labels = labels
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}

    def add(self, amount: float = 1.0, **labels: str) -> None:
        """Add to the value of these labels. All labels must be given: KeyError otherwise."""
        key = tuple(labels[label] for label in self._labels)
        self._values[key] = self._values.get(key, 0.0) + amount

    def set(self, value: float, **labels: str) -> None:
        """Replace the value of these labels."""
        self._values[tuple(labels[label] for label in self._labels)] = value

    def value(self, **labels: str) -> float:
        return self._values.get(tuple(labels[label] for label in self._labels), 0.0)

    def render(self) -> str:
        lines = [f"# HELP {self._name} {self._description}", f"# TYPE {self._name} {self._kind}"]
        for key, value in sorted(self._values.items()):
            pairs = ",".join(f'{label}="{_escape(text)}"' for label, text in zip(self._labels, key, strict=True))
            lines.append(f"{self._name}{{{pairs}}} {value:.16g}" if pairs else f"{self._name} {value:.16g}")
        return "\n".join(lines) + "\n"


class ComputedGauge:
    """A gauge whose value is asked for when it is shown; none is shown where that is None."""

    def __init__(self, name: str, description: str, read: Callable[[], float | None]) -> None:
        self._gauge = Metric("gauge", name, description, ())
        self._read = read

    def render(self) -> str:
        value = self._read()
        if value is None:
            return ""
        self._gauge.set(value)
        return self._gauge.render()


class Metrics:
    """All metrics of a process, in the order in which they were made."""

    def __init__(self) -> None:
        self._metrics: list[Metric | ComputedGauge] = []

    def counter(self, name: str, description: str, *labels: str) -> Metric:
        return self._register(Metric("counter", name, description, labels))

    def gauge(self, name: str, description: str, *labels: str) -> Metric:
        return self._register(Metric("gauge", name, description, labels))

    def computed(self, name: str, description: str, read: Callable[[], float | None]) -> None:
        """A gauge whose value `read` gives at the time."""
        self._metrics.append(ComputedGauge(name, description, read))

    def render(self) -> str:
        """The page that Prometheus scrapes."""
        return "".join(metric.render() for metric in self._metrics)

    def _register(self, metric: Metric) -> Metric:
        self._metrics.append(metric)
        return metric


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
