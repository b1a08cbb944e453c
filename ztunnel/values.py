"""How the environment's words become values: numbers, durations, switches. Every error names the variable."""

from collections.abc import Mapping

from mesh.kit.errors import InvalidInputError

UNITS = (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0))


def parse_seconds(name: str, text: str) -> float:
    """A duration such as `5s`, `1m` or `500ms`, in seconds. Raises InvalidInputError naming the variable."""
    for unit, factor in UNITS:
        number = text.removesuffix(unit)
        if number != text and number.replace(".", "", 1).isdigit():
            return float(number) * factor
    raise InvalidInputError(f"{name}={text!r} is not a duration; write a number and ms, s, m or h, like 5s")


def parse_switch(name: str, text: str) -> bool:
    """`true` or `false`, as Istio's ztunnel takes them: exactly. Raises InvalidInputError naming the variable."""
    if text not in ("true", "false"):
        raise InvalidInputError(f"{name}={text!r} is neither true nor false")
    return text == "true"


def read_seconds(env: Mapping[str, str], name: str, default: float) -> float:
    """The variable as a duration."""
    return parse_seconds(name, env[name]) if name in env else default


def read_switch(env: Mapping[str, str], name: str, default: bool) -> bool:
    """The variable as a switch."""
    return parse_switch(name, env[name]) if name in env else default


def read_number(env: Mapping[str, str], name: str, default: int, allowed: range) -> int:
    """The variable as a whole number, in decimal or with 0x. Raises InvalidInputError when it is not in `allowed`."""
    text = env.get(name)
    if text is None:
        return default
    try:
        number = int(text, 16) if text.startswith("0x") else int(text)
    except ValueError:
        number = -1
    if number not in allowed or not text.isascii():
        raise InvalidInputError(f"{name}={text!r} is not a number from {allowed.start} to {allowed.stop - 1}")
    return number
