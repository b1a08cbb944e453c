"""What a check across objects finds, before it is known which line that is."""

from dataclasses import dataclass

from controller.kinds.meta import ObjectKey

Path = tuple[str | int, ...]
"""A field as keys and indexes, as in ("spec", "rules", 0, "from")."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem of one object. `fix` is the next step where more is known than what the code's own says."""

    code: str
    key: ObjectKey
    path: Path
    message: str
    fix: str = ""
