"""Durations as Gateway API and Istio write them, in whole milliseconds here."""

import re
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

# Gateway API's GEP-2257: up to four parts, as in 1h30m. Istio takes Go's form, of which this is the part people write.
_DURATION = re.compile(r"(?:[0-9]{1,5}(?:h|m|s|ms)){1,4}")
_PART = re.compile(r"([0-9]+)(h|ms|m|s)")
_FRACTION = re.compile(r"([0-9]{1,5})?\.([0-9]{1,9})s")
_MILLISECONDS = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}


def parse_duration(value: object) -> int:
    """Parse `1h30m`, `250ms` or `1.5s` to milliseconds. For use by validators."""
    if not isinstance(value, str):
        raise PydanticCustomError("duration_type", "must be a duration as text, as in 250ms or 1m30s")
    if fraction := _FRACTION.fullmatch(value):
        return int(fraction[1] or 0) * 1_000 + int(fraction[2].ljust(3, "0")[:3])
    if not _DURATION.fullmatch(value):
        raise PydanticCustomError("duration_value", "is not a duration like 250ms, 10s or 1m30s")
    return sum(int(number) * _MILLISECONDS[unit] for number, unit in _PART.findall(value))


def _show(milliseconds: int) -> str:
    return f"{milliseconds // 1000}s{milliseconds % 1000}ms"


Duration = Annotated[int, BeforeValidator(parse_duration), PlainSerializer(_show), WithJsonSchema({"type": "string"})]
"""Milliseconds."""
