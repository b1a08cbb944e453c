"""Fields that exist and are not carried out: refused by name, because ignoring them would change what was meant."""

from typing import Annotated

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError


def _refuse(value: object) -> object:
    if value is None:
        return None
    raise PydanticCustomError("unsupported", "is not carried out: take it out")


NOT_CARRIED_OUT = BeforeValidator(_refuse)
Unsupported = Annotated[None, NOT_CARRIED_OUT]
