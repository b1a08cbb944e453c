"""Structured logs on top of the standard library: one event a line, its fields as key=value.

    log = logging.getLogger(__name__)
    log.info("client connected", extra={"node": "node-1", "clients": 3})
    -> 2026-11-21T08:30:32.123456Z info controller.serve.session client connected node=node-1 clients=3

The message is constant text, so that events can be counted; what varies is a field. A field may not carry a name that
`logging` itself uses (`name`, `module`, `process`, `message`, `args`, ...): say `pod`, `source_file` instead.
"""

import logging
import sys
import time

# What logging puts on a record by itself; every other attribute came from `extra` and is a field.
_OWN_ATTRIBUTES = frozenset(logging.LogRecord("", 0, "", 0, "", None, None).__dict__) | {
    "asctime",
    "message",
    "taskName",
}
_LEVEL_WORDS = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
    logging.CRITICAL: "error",
}
# A value longer than this is cut: a log line is for people, and what a peer sent must not fill a disk.
MAX_VALUE_CHARACTERS = 2000
_NEEDS_QUOTES = frozenset(' "=\\')


class PlainFormatter(logging.Formatter):
    """One line a record: time in UTC, level, logger, message, fields. A traceback, if there is one, follows."""

    def format(self, record: logging.LogRecord) -> str:
        """Render `record`. Control characters come out escaped, so that nothing a peer sends can forge a line."""
        level = _LEVEL_WORDS.get(record.levelno, record.levelname.lower())
        parts = [format_time(record.created), level, record.name, _escape(record.getMessage())]
        parts += [f"{key}={format_value(value)}" for key, value in record_fields(record)]
        line = " ".join(parts)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def record_fields(record: logging.LogRecord) -> list[tuple[str, object]]:
    """The fields that the caller gave as `extra`, in the order given."""
    return [(key, value) for key, value in record.__dict__.items() if key not in _OWN_ATTRIBUTES]


def format_time(seconds: float) -> str:
    """Seconds since the epoch as RFC 3339 in UTC with microseconds."""
    whole, micros = divmod(int(seconds * 1_000_000), 1_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{micros:06d}Z"


def format_value(value: object) -> str:
    """A field's value as one word: quoted when it is empty or has spaces, quotes or control characters."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    if len(text) > MAX_VALUE_CHARACTERS:
        text = text[:MAX_VALUE_CHARACTERS] + "..."
    if text and text.isprintable() and _NEEDS_QUOTES.isdisjoint(text):
        return text
    return '"' + _escape(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def configure_logs(level: str = "info") -> None:
    """Send the whole process's logs to stdout. `level`: debug, info, warning or error; anything else raises ValueError.

    Replaces whatever handlers the root logger had, so calling it twice is harmless.
    """
    number = {word: code for code, word in reversed(_LEVEL_WORDS.items())}.get(level.lower())
    if number is None:
        raise ValueError(f"log level {level!r}: one of debug, info, warning, error")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(PlainFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)


def _escape(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
