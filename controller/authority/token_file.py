"""The file of node tokens: who may speak for which node, as lines `NODE SHA256-HEX`. Tokens themselves are nowhere.

A node may have several tokens, so that a new one can be brought to it before the old one is revoked.
"""

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from mesh.kit.errors import InvalidInputError

_DIGEST_CHARACTERS = 64
_SECRET_BYTES = 32
_NODE_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


class InvalidTokenFileError(InvalidInputError):
    """The file of tokens cannot be used as it is."""

    reason = "invalid_token_file"


@dataclass(frozen=True, slots=True)
class NodeToken:
    """A node's name and the SHA-256 of its token."""

    node: str
    digest: bytes

    @property
    def id(self) -> str:
        """The beginning of the digest, by which a person tells a node's tokens apart."""
        return self.digest.hex()[:8]

    @property
    def line(self) -> str:
        """What stands in the file."""
        return f"{self.node} {self.digest.hex()}"


def parse_tokens(text: str) -> tuple[NodeToken, ...]:
    """Parse the file's text; empty lines and lines that begin with `#` count for nothing.

    Raises InvalidTokenFileError, which names the line and never shows its second word.
    """
    tokens = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or len(words[1]) != _DIGEST_CHARACTERS:
            raise InvalidTokenFileError(f"line {number}: expected a node's name and 64 hexadecimal digits (SHA-256)")
        try:
            tokens.append(NodeToken(words[0], bytes.fromhex(words[1])))
        except ValueError:
            raise InvalidTokenFileError(f"line {number}: the SHA-256 of {words[0]!r} is not hexadecimal") from None
    return tuple(tokens)


class UnknownTokenError(InvalidInputError):
    """There is no such token to revoke."""

    reason = "unknown_token"


class InvalidNodeNameError(InvalidInputError):
    """No node can have this name."""

    reason = "invalid_node_name"


def mint_token(node: str) -> tuple[str, NodeToken]:
    """A new random token, to be brought to the node, and what is kept of it. Raises InvalidNodeNameError."""
    if not _NODE_NAME.fullmatch(node):
        raise InvalidNodeNameError(f"{node!r} is no node's name: lower-case letters, digits, '-' and '.'")
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    return secret, NodeToken(node, sha256(secret.encode()).digest())


def read_tokens(path: Path) -> tuple[NodeToken, ...]:
    """The tokens of a file; none when there is no file. Raises InvalidTokenFileError, OSError."""
    try:
        return parse_tokens(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()


def add_token(path: Path, token: NodeToken) -> None:
    """Write a token down beside the others. Raises InvalidTokenFileError, OSError."""
    with _changing(path) as lines:
        lines.append(token.line)


def revoke_tokens(path: Path, node: str, token_id: str = "") -> int:
    """Take away all tokens of a node, or the one with an id; gives how many. Raises UnknownTokenError, OSError,
    InvalidTokenFileError."""
    with _changing(path) as lines:
        gone = [each for each in lines for token in parse_tokens(each) if _is_meant(token, node, token_id)]
        if not gone:
            what = f"{node} has no token {token_id}" if token_id else f"{node} has no token"
            raise UnknownTokenError(f"{what}; `ambit token list` shows those that there are")
        lines[:] = [each for each in lines if each not in gone]
    return len(gone)


def _is_meant(token: NodeToken, node: str, token_id: str) -> bool:
    return token.node == node and token_id in ("", token.id)


@contextmanager
def _changing(path: Path) -> Iterator[list[str]]:
    """The file's lines, to change: written back at once (0600) when nothing was raised, and one by one. The file stays
    its owner's, who may be the controller's user and not ours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f".{path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            text, status = path.read_text(encoding="utf-8"), path.stat()
        except FileNotFoundError:
            text, status = "", None
        parse_tokens(text)
        lines = text.splitlines()
        yield lines
        draft = path.with_name(f".{path.name}.new")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if status is not None:
                os.fchown(descriptor, status.st_uid, status.st_gid)
            file.writelines(f"{line}\n" for line in lines)
        draft.replace(path)
