"""Which node is calling: join tokens, kept as hashes in a file of lines `NODE SHA256-HEX`.

The file is read again when it changes, so that a node is added or cut off without a restart. A file that cannot be read
or has a broken line keeps what was read before; at the start that is nobody.
"""

import logging
import os
import stat
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from controller.authority.token_file import InvalidTokenFileError, NodeToken, parse_tokens
from controller.callers import read_bearer

log = logging.getLogger(__name__)


def find_node(tokens: Mapping[bytes, str], authorization: str | None) -> str | None:
    """The node whose token an `authorization` header carries, or None. `tokens` are nodes by the hashes of theirs.

    What a lookup's time could tell is about hashes, and whoever could choose those would have the token.
    """
    token = read_bearer(authorization)
    return tokens.get(sha256(token.encode()).digest()) if token is not None else None


class NodeTokens:
    """The file of tokens, as it is now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._signature: tuple[int, ...] | None = ()
        self._tokens: Mapping[bytes, str] = {}

    async def authenticate(self, authorization: str | None) -> str | None:
        """The node that carries this header, or None. Reads the file again if it changed (one stat(2) otherwise)."""
        return self.find(authorization)

    def find(self, authorization: str | None) -> str | None:
        """The same, which asks nobody."""
        self.refresh()
        return find_node(self._tokens, authorization)

    def refresh(self) -> None:
        """Read the file if it changed. What is wrong with it is logged, once a change."""
        signature = self._stat()
        if signature == self._signature:
            return
        self._signature = signature
        if signature is None:
            self._tokens = {}
            log.warning("node tokens are missing: no agent can connect", extra={"path": self._path})
            return
        try:
            self._tokens = {token.digest: token.node for token in self._read()}
        except (OSError, UnicodeDecodeError, InvalidTokenFileError) as error:
            log.warning("node tokens refused, the earlier ones stay", extra={"path": self._path, "error": error})
        else:
            log.info("node tokens read", extra={"path": self._path, "nodes": len(self._tokens)})

    def _stat(self) -> tuple[int, ...] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return (status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode)

    def _read(self) -> tuple[NodeToken, ...]:
        with self._path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise InvalidTokenFileError(f"mode {mode:04o} lets others read it: chmod 600 {self._path}")
            return parse_tokens(file.read())
