"""A hand-made HBONE client for tests of what ztunnel refuses: real TLS (Python's ssl), HTTP/2 frames byte by byte.

    python mesh_hbone.py < ORDER        ORDER is one JSON object; prints one JSON object

The order: `host`, `port`; `certificate`, `key`, `root` (PEM, the first two may be empty: no client certificate);
`authority` to CONNECT to; `endless` to send a header block that never ends, of up to so many bytes; `alpn`.
The result: `tls` (version, or the error), `status` (HTTP's, 0 without an answer), `error` and `sent` bytes.
Standard library only. Frames: RFC 9113; header fields: RFC 7541, literals without Huffman coding.
"""

import json
import socket
import ssl
import struct
import sys
import tempfile
from typing import Any  # JSON

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY, CONTINUATION = 0, 1, 3, 4, 7, 9
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
CHUNK_BYTES = 16_384
TIMEOUT_SECONDS = 15.0

# Static table entries (RFC 7541, appendix A) that a status can be.
INDEXED_STATUS = {0x88: 200, 0x89: 204, 0x8A: 206, 0x8B: 304, 0x8C: 400, 0x8D: 404, 0x8E: 500}
# Huffman codes of digits (RFC 7541, appendix B): code, bits.
HUFFMAN_DIGITS = [
    (0x0, 5),
    (0x1, 5),
    (0x2, 5),
    (0x19, 6),
    (0x1A, 6),
    (0x1B, 6),
    (0x1C, 6),
    (0x1D, 6),
    (0x1E, 6),
    (0x1F, 6),
]


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A field without indexing, its name spelt out; both shorter than 127 bytes."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def connect_head(authority: str) -> bytes:
    return literal(b":method", b"CONNECT") + literal(b":authority", authority.encode())


def read_status(block: bytes) -> int:
    """The status at the start of a response's header block."""
    if block[0] & 0xE0 == 0x20:  # a change of the dynamic table's size comes first
        block = block[1:]
    if block[0] & 0x80:
        return INDEXED_STATUS.get(block[0], 0)
    # :status has the static indexes 8 to 14, in literals of any kind.
    length, text = block[1] & 0x7F, block[2 : 2 + (block[1] & 0x7F)]
    assert length == len(text)
    return int(_read_huffman_digits(text) if block[1] & 0x80 else text)


def _read_huffman_digits(text: bytes) -> str:
    bits = "".join(f"{byte:08b}" for byte in text)
    digits = ""
    while len(digits) < 3:
        for digit, (code, width) in enumerate(HUFFMAN_DIGITS):
            if bits.startswith(f"{code:0{width}b}"):
                digits += str(digit)
                bits = bits[width:]
                break
        else:
            raise ValueError(f"no digits: {text.hex()}")
    return digits


def receive_exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionError("closed")
        data += part
    return data


def wait_for_status(connection: socket.socket) -> int:
    """Read frames until the response, or an end of its stream or connection (then ConnectionError)."""
    while True:
        head = receive_exactly(connection, 9)
        kind, flags = head[3], head[4]
        payload = receive_exactly(connection, int.from_bytes(head[:3], "big"))
        if kind == SETTINGS and not flags & ACK:
            connection.sendall(frame(SETTINGS, ACK, 0, b""))
        elif kind == HEADERS:
            return read_status(payload)
        elif kind in (RST_STREAM, GOAWAY):
            raise ConnectionError("reset" if kind == RST_STREAM else "goaway")


def send_endless_head(connection: socket.socket, limit: int, result: dict[str, Any]) -> None:
    """Send one header block of `limit` bytes; raises OSError when the server has had enough."""
    head = connect_head("192.0.2.1:80")
    connection.sendall(frame(HEADERS, 0, 1, head))
    filler = literal(b"x-filler", b"x" * 100)
    chunk = filler * (CHUNK_BYTES // len(filler))
    while result["sent"] < limit:
        connection.sendall(frame(CONTINUATION, 0, 1, chunk))
        result["sent"] += len(chunk)


def tls_context(order: dict[str, Any]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The server's name is its SPIFFE identity, which ssl cannot check; it is not what is being tested.
    context.check_hostname = False
    context.load_verify_locations(cadata=order["root"])
    context.set_alpn_protocols([order.get("alpn", "h2")])
    if order.get("certificate"):
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(order["key"] + order["certificate"])
            file.flush()
            context.load_cert_chain(file.name)
    return context


def carry_out(order: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {"tls": "", "status": 0, "error": "", "sent": 0}
    try:
        plain = socket.create_connection((order["host"], order["port"]), TIMEOUT_SECONDS)
        with plain, tls_context(order).wrap_socket(plain) as connection:
            result["tls"] = connection.version()
            connection.sendall(PREFACE + frame(SETTINGS, 0, 0, b""))
            if order.get("endless"):
                send_endless_head(connection, order["endless"], result)
            else:
                connection.sendall(frame(HEADERS, END_HEADERS, 1, connect_head(order["authority"])))
            result["status"] = wait_for_status(connection)
    except OSError as error:
        result["error"] = f"{type(error).__name__}: {error}"
    return result


if __name__ == "__main__":
    json.dump(carry_out(json.load(sys.stdin)), sys.stdout)
