"""An issuer of tokens: real keys, real signatures (RFC 7515, 7517, 7519), and a server that tells its public keys."""

import base64
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import MappingProxyType

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
# 2100-01-01, and a moment long ago.
FAR, PAST = 4_102_444_800, 1_000_000_000


def make_rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def make_ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Issuer:
    """Who signs tokens, with one key."""

    name: str = "https://issuer.test"
    key: Key = field(default_factory=make_ec_key)
    key_id: str = "one"

    @cached_property
    def jwks(self) -> str:
        """Its public key, as a set."""
        return json.dumps({"keys": [{"kid": self.key_id, "alg": self._algorithm, **self._show_key()}]})

    def sign(
        self, subject: str = "someone", expires: int = FAR, claims: Mapping[str, object] = MappingProxyType({})
    ) -> str:
        """A token."""
        header = {"alg": self._algorithm, "kid": self.key_id, "typ": "JWT"}
        payload = {"iss": self.name, "sub": subject, "exp": expires, **claims}
        text = ".".join(_encode(json.dumps(each).encode()) for each in (header, payload))
        return f"{text}.{_encode(self._sign(text.encode()))}"

    @property
    def _algorithm(self) -> str:
        return "RS256" if isinstance(self.key, rsa.RSAPrivateKey) else "ES256"

    def _sign(self, text: bytes) -> bytes:
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(text, padding.PKCS1v15(), hashes.SHA256())
        r, s = decode_dss_signature(self.key.sign(text, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def _show_key(self) -> dict[str, str]:
        if isinstance(self.key, rsa.RSAPrivateKey):
            numbers = self.key.public_key().public_numbers()
            return {"kty": "RSA", "n": _encode_number(numbers.n), "e": _encode_number(numbers.e)}
        point = self.key.public_key().public_numbers()
        x, y = (_encode(each.to_bytes(32, "big")) for each in (point.x, point.y))
        return {"kty": "EC", "crv": "P-256", "x": x, "y": y}


def _encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _encode_number(value: int) -> str:
    return _encode(value.to_bytes((value.bit_length() + 7) // 8, "big"))


@dataclass(slots=True)
class KeyServer:
    """What a server of keys answers, which a test may change, and how often it was asked."""

    body: str
    status: int = 200
    location: str = ""
    encoding: str = "identity"
    port: int = 0
    asked: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/keys"


@contextmanager
def serve_keys(body: str, port: int = 0) -> Iterator[KeyServer]:
    """A server while the block runs. Port 0 lets the kernel choose."""
    told = KeyServer(body)

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # http.server's name
            told.asked += 1
            self.send_response(told.status)
            self.send_header("content-encoding", told.encoding)
            if told.location:
                self.send_header("location", told.location)
            self.end_headers()
            self.wfile.write(told.body.encode())

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = HTTPServer(("127.0.0.1", port), Answer)
    told.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="serve keys", daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
