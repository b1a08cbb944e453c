"""Reading untyped YAML with the path of each field at hand, so that a refusal can name it."""

from dataclasses import dataclass

from ambit.lab.control import Json
from mesh.kit.errors import InvalidInputError


class InvalidFieldError(InvalidInputError):
    """A field of a manifest is missing or wrong; the text is `path: reason`."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Fields:
    """A mapping and where it stands in its document. Every reader raises InvalidFieldError on a wrong type."""

    value: dict[str, Json]
    path: str = ""

    def at(self, name: str) -> str:
        """The path of one of this mapping's fields."""
        return f"{self.path}.{name}" if self.path else name

    def has(self, name: str) -> bool:
        return self.value.get(name) is not None

    def child(self, name: str) -> "Fields":
        """A nested mapping, empty when it is not there."""
        return as_fields(self.value.get(name) or {}, self.at(name))

    def children(self, name: str) -> list["Fields"]:
        """A list of mappings, empty when it is not there."""
        return [as_fields(item, f"{self.at(name)}[{index}]") for index, item in enumerate(self._list(name))]

    def items(self, name: str) -> list[tuple[str, Json]]:
        """A list's items, each with its path."""
        return [(f"{self.at(name)}[{index}]", item) for index, item in enumerate(self._list(name))]

    def text(self, name: str, default: str = "") -> str:
        value = self.value.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise InvalidFieldError(self.at(name), f"must be a string, not {_type_name(value)}")
        return value

    def required_text(self, name: str) -> str:
        text = self.text(name)
        if not text:
            raise InvalidFieldError(self.at(name), "is required")
        return text

    def integer(self, name: str, default: int | None, lowest: int, highest: int) -> int:
        """An integer within bounds, `default` when it is not there; without a default it is required."""
        value = self.value.get(name, default)
        if value is None:
            raise InvalidFieldError(self.at(name), "is required")
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvalidFieldError(self.at(name), f"must be an integer, not {_type_name(value)}")
        if not lowest <= value <= highest:
            raise InvalidFieldError(self.at(name), f"must lie between {lowest} and {highest}, not {value}")
        return value

    def choice(self, name: str, allowed: tuple[str, ...], default: str) -> str:
        text = self.text(name, default)
        if text not in allowed:
            raise InvalidFieldError(self.at(name), f"must be one of {', '.join(allowed)}, not {text!r}")
        return text

    def texts(self, name: str) -> tuple[str, ...]:
        for path, item in self.items(name):
            if not isinstance(item, str):
                raise InvalidFieldError(path, f"must be a string, not {_type_name(item)} (put it in quotes)")
        return tuple(str(item) for item in self._list(name))

    def labels(self, name: str) -> dict[str, str]:
        """A mapping of strings to strings, empty when it is not there."""
        fields = self.child(name)
        return {key: fields.text(key) for key in fields.value}

    def only(self, *known: str) -> None:
        """Refuse fields that are not `known`."""
        for name in self.value:
            if name not in known:
                raise InvalidFieldError(self.at(name), f"is not a field of the lab; known: {', '.join(known)}")

    def _list(self, name: str) -> list[Json]:
        value = self.value.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise InvalidFieldError(self.at(name), f"must be a list, not {_type_name(value)}")
        return value


def as_fields(value: Json, path: str) -> Fields:
    """`value` as a mapping; raises InvalidFieldError when it is something else."""
    if not isinstance(value, dict):
        raise InvalidFieldError(path, f"must be a mapping, not {_type_name(value)}")
    return Fields(value, path)


def _type_name(value: Json) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "a mapping"}
    return names.get(type(value), "null")
