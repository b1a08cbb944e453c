"""Regular expressions as objects write them: RE2's, which every proxy here matches in linear time."""

from typing import Annotated

import re2
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

# Gateway API allows 1,024 for a path and 4,096 for a header.
MAX_CHARACTERS = 4096

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False


def check_regex(value: str) -> str:
    """Refuse what RE2 does not take: a proxy would refuse all routes that come with it. For use by validators."""
    if len(value) > MAX_CHARACTERS:
        raise PydanticCustomError("regex_value", "is longer than {most} characters", {"most": MAX_CHARACTERS})
    try:
        re2.compile(value, _OPTIONS)
    except re2.error as error:
        raise PydanticCustomError("regex_value", "is no RE2 expression: {why}", {"why": _describe(error)}) from error
    return value


def _describe(error: "re2.error") -> str:
    why = error.args[0] if error.args else ""
    return why.decode(errors="replace") if isinstance(why, bytes) else str(why)


Regex = Annotated[str, AfterValidator(check_regex)]
