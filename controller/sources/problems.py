"""What is wrong with what somebody wrote, and where."""

from dataclasses import dataclass
from enum import StrEnum

from controller.kinds.meta import ObjectKey


class ProblemReason(StrEnum):
    """Why something was refused: stable words, used as metric labels."""

    UNREADABLE = "unreadable"
    SYNTAX = "syntax"
    TOO_LARGE = "too_large"
    DUPLICATE_KEY = "duplicate_key"
    NOT_AN_OBJECT = "not_an_object"
    UNKNOWN_KIND = "unknown_kind"
    UNKNOWN_FIELD = "unknown_field"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    INVALID_VALUE = "invalid_value"
    UNSUPPORTED = "unsupported"
    DUPLICATE_OBJECT = "duplicate_object"

    @property
    def code(self) -> str:
        """The code of a problem about which no more is known than this."""
        return self.value.replace("_", "-")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that was refused.

    `line` and `column` count from 1, 0 where there is none (an unreadable file); `key` is None when the text does not
    say which object it is about; `path` is the field, as in `spec.rules[0].from[1].source.principals`; `value` is what
    was written there, shortened. `code` is a stable word for exactly this problem: the type of
    the check that refused it, as in `pattern-star`, or the reason's where that check has none of its own.
    """

    file: str
    line: int
    column: int
    key: ObjectKey | None
    path: str
    value: str
    reason: ProblemReason
    message: str
    code: str

    def __str__(self) -> str:
        parts = [f"{self.file}:{self.line}:{self.column}" if self.line else self.file]
        parts += [str(self.key)] if self.key else []
        parts += [self.path] if self.path else []
        shown = f" (got {self.value})" if self.value else ""
        return ": ".join([*parts, self.message + shown])
