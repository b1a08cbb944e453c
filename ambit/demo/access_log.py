"""ztunnel's access log: one line a connection, in Istio's plain format (fields separated by spaces, `key=value`)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_FIELD = re.compile(r'([a-z][a-z_.]*)=("(?:[^"\\]|\\.)*"|\S*)')
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class AccessLine:
    """One connection, as one side's ztunnel tells it. What it did not tell is empty."""

    direction: str
    source: str
    """The client's address and port."""
    source_workload: str
    source_identity: str
    """Proven by a certificate; empty on plaintext."""
    destination: str
    destination_workload: str
    destination_service: str
    destination_identity: str
    bytes_sent: int
    bytes_received: int
    error: str

    @property
    def source_address(self) -> str:
        """The client's address without its port and brackets."""
        return self.source.rpartition(":")[0].strip("[]")


def parse_access_line(line: str) -> AccessLine | None:
    """Parse a line of a ztunnel's log; None when it is not one about a connection that has ended."""
    if "\taccess\t" not in line or ("\tconnection complete" not in line and "\tconnection failed" not in line):
        return None
    fields = {key: _unquote(value) for key, value in _FIELD.findall(line)}
    return AccessLine(
        direction=fields.get("direction", ""),
        source=fields.get("src.addr", ""),
        source_workload=fields.get("src.workload", ""),
        source_identity=fields.get("src.identity", ""),
        destination=fields.get("dst.addr", ""),
        destination_workload=fields.get("dst.workload", ""),
        destination_service=fields.get("dst.service", ""),
        destination_identity=fields.get("dst.identity", ""),
        bytes_sent=_number(fields.get("bytes_sent", "")),
        bytes_received=_number(fields.get("bytes_recv", "")),
        error=fields.get("error", ""),
    )


def read_access_lines(log: str) -> Iterator[AccessLine]:
    """The access lines in a whole log, in order; a last line that is still being written is left out."""
    for line in log[: log.rfind("\n") + 1].splitlines():
        parsed = parse_access_line(line)
        if parsed is not None:
            yield parsed


def _unquote(value: str) -> str:
    if not value.startswith('"'):
        return value
    return _ESCAPE.sub(lambda escaped: {"n": "\n", "t": "\t"}.get(escaped[1], escaped[1]), value[1:-1])


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
