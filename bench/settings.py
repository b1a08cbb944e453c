"""What the environment sets of a bench."""

import os
from collections.abc import Mapping

from mesh.kit.errors import InvalidInputError

SOAK_SECONDS = 600.0


def read_soak_seconds(environment: Mapping[str, str] = os.environ) -> float:
    """SOAK_SECONDS; raises InvalidInputError when it is no number of seconds."""
    text = environment.get("SOAK_SECONDS", "")
    if not text:
        return SOAK_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds >= 1:
        raise InvalidInputError(f"SOAK_SECONDS={text!r}: write a number of seconds, at least 1")
    return seconds
