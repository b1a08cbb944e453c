"""The process's log. It goes through the native module, which writes the access log to the same place, line by line;
importing `logging` for it would cost a megabyte on every node."""

import dataplane


class Log:
    """Events of one part of the process."""

    def __init__(self, scope: str) -> None:
        self._scope = scope

    def debug(self, event: str, **fields: object) -> None:
        """We do."""
        self._write("debug", event, fields)

    def info(self, event: str, **fields: object) -> None:
        """An operator wants it."""
        self._write("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Someone must act."""
        self._write("warn", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """We failed."""
        self._write("error", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, object]) -> None:
        dataplane.log(level, self._scope, event, {key: str(value) for key, value in fields.items()})
