"""What a bench says: rows of ours against a peer's, and the forms they are written in. Values, no effects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from mesh.kit.errors import AmbitError

Cell = str | float | bool | None

SIGNIFICANT_DIGITS = 4
"""More would be noise: runs on one machine differ by some percent."""


class BenchError(AmbitError):
    """Something could not be measured; the message names the program, its output and what to do."""

    reason = "bench_failed"


class Of(Enum):
    """What an aim bounds."""

    RATIO = "ratio"
    OURS = "ours"


@dataclass(frozen=True, slots=True)
class Aim:
    """A bound on the ratio or on our own figure, itself included."""

    of: Of
    bound: float
    is_upper: bool

    def is_met(self, value: float) -> bool:
        return value <= self.bound if self.is_upper else value >= self.bound

    def __str__(self) -> str:
        return f"{self.of.value} {'<=' if self.is_upper else '>='} {self.bound:g}"


def ratio_at_least(bound: float) -> Aim:
    """Ours is at least `bound` times the peer's: for what should be large."""
    return Aim(Of.RATIO, bound, is_upper=False)


def ratio_at_most(bound: float) -> Aim:
    """Ours is at most `bound` times the peer's: for what should be small."""
    return Aim(Of.RATIO, bound, is_upper=True)


def ours_at_least(bound: float) -> Aim:
    """Our own figure is at least `bound`, in the row's unit."""
    return Aim(Of.OURS, bound, is_upper=False)


def ours_at_most(bound: float) -> Aim:
    """Our own figure is at most `bound`, in the row's unit."""
    return Aim(Of.OURS, bound, is_upper=True)


@dataclass(frozen=True, slots=True)
class Row:
    """One measure: our figure, the peer's (None without one), and what we aim at (None: only reported)."""

    measure: str
    unit: str
    ours: float
    peer: float | None = None
    aim: Aim | None = None

    @property
    def ratio(self) -> float | None:
        """Ours over the peer's; None where there is nothing to divide by."""
        return self.ours / self.peer if self.peer else None

    @property
    def is_met(self) -> bool | None:
        """Whether the aim is met; None without an aim. An aim on a ratio that does not exist is not met."""
        if self.aim is None:
            return None
        value = self.ours if self.aim.of is Of.OURS else self.ratio
        return value is not None and self.aim.is_met(value)

    def document(self) -> dict[str, Cell]:
        """The row as it stands in JSON."""
        return {
            "measure": self.measure,
            "unit": self.unit,
            "ours": _rounded(self.ours),
            "peer": _rounded(self.peer),
            "ratio": _rounded(self.ratio),
            "aim": None if self.aim is None else str(self.aim),
            "met": self.is_met,
        }


def build_document(bench: str, rows: Sequence[Row]) -> dict[str, object]:
    """A bench's result in the form that `--json` writes."""
    return {"bench": bench, "rows": [row.document() for row in rows]}


def render_markdown(title: str, rows: Sequence[Row], facts: Mapping[str, str]) -> str:
    """The result as a Markdown page: the table, then where and when it was measured."""
    head = ["measure", "unit", "ours", "peer", "ratio", "aim", "met"]
    lines = [
        f"# {title}",
        "",
        _markdown_line(head),
        _markdown_line(["---", "---", "---:", "---:", "---:", "---", "---"]),
    ]
    lines += [_markdown_line(_texts(row)) for row in rows]
    lines += ["", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    return "\n".join(lines)


def render_table(rows: Sequence[Row]) -> str:
    """The result as aligned columns for a terminal."""
    cells = [["measure", "unit", "ours", "peer", "ratio", "aim", "met"], *(_texts(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    is_number = [False, False, True, True, True, False, False]
    return "\n".join(
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, is_number, strict=True)
        ).rstrip()
        for line in cells
    )


def _texts(row: Row) -> list[str]:
    met = {None: "", True: "yes", False: "NO"}[row.is_met]
    aim = "" if row.aim is None else str(row.aim)
    return [row.measure, row.unit, _number(row.ours), _number(row.peer), _number(row.ratio), aim, met]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    rounded = float(f"{value:.{SIGNIFICANT_DIGITS}g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:g}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
