"""Who may see the admin pages, where other machines reach them: whoever has the token of a file.

Readiness, metrics and what is public anyway stay open, by name: a page that comes new is closed. The file is read at
each request, so that its token can be replaced; one that cannot be used lets nobody in.
"""

import hmac
import logging
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Middleware

from controller.callers import MAX_TOKEN_CHARACTERS, read_bearer
from mesh.kit.errors import FatalError

log = logging.getLogger(__name__)

OPEN_PATHS = frozenset({"/healthz/ready", "/metrics", "/spiffe/bundle", "/ca-crl.pem"})
# A token that could be guessed over the network is none.
MIN_TOKEN_CHARACTERS = 16


class InvalidAdminTokenError(FatalError):
    """The file with the token of the debug pages cannot be used."""

    reason = "invalid_admin_token"


def read_admin_token(path: Path) -> str:
    """The token of the file. Raises InvalidAdminTokenError, which never shows it."""
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(MAX_TOKEN_CHARACTERS + 2).strip()
    except OSError as error:
        raise InvalidAdminTokenError(f"AMBIT_ADMIN_TOKEN_FILE: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidAdminTokenError(f"AMBIT_ADMIN_TOKEN_FILE: {path} is no text") from error
    if mode & 0o007:
        raise InvalidAdminTokenError(
            f"AMBIT_ADMIN_TOKEN_FILE: mode {mode:04o} lets everybody read it: chmod 600 {path}"
        )
    if not MIN_TOKEN_CHARACTERS <= len(text) <= MAX_TOKEN_CHARACTERS or not text.isascii() or len(text.split()) != 1:
        raise InvalidAdminTokenError(
            f"AMBIT_ADMIN_TOKEN_FILE: {path} must hold one word of at least {MIN_TOKEN_CHARACTERS} characters"
        )
    return text


def demand_token(path: Path) -> Middleware:
    """Let nobody see another page than the open ones who does not carry the token of the file."""

    @web.middleware
    async def check(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.path not in OPEN_PATHS and not _is_known(path, request.headers.get("Authorization")):
            challenge = {"WWW-Authenticate": "Bearer"}
            raise web.HTTPUnauthorized(text="the token of AMBIT_ADMIN_TOKEN_FILE is needed\n", headers=challenge)
        return await handler(request)

    return check


def _is_known(path: Path, header: str | None) -> bool:
    given = read_bearer(header)
    if given is None:
        return False
    try:
        wanted = read_admin_token(path)
    except InvalidAdminTokenError as error:
        log.warning("debug pages are closed", extra={"error": error})
        return False
    return hmac.compare_digest(given.encode(), wanted.encode())
