"""Who is calling over gRPC: what both services ask of a call before anything else."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from mesh.kit.errors import RefusedError, TransientError

# A bearer token longer than this is none of ours; hashing must not become work that a stranger orders.
MAX_TOKEN_CHARACTERS = 4096
HEADER = "authorization"


@dataclass(frozen=True, slots=True)
class Authentication:
    """How callers are told apart by their `authorization` header.

    `ask` gives the node that it proves, or None; raises AuthenticationUnavailableError. `recall` gives the same at
    once, and None as well where that takes asking somebody.
    """

    ask: Callable[[str | None], Awaitable[str | None]]
    recall: Callable[[str | None], str | None]


class UnauthenticatedError(RefusedError):
    """The caller has no valid token, or has it no longer."""

    reason = "unauthenticated"


class AuthenticationUnavailableError(TransientError):
    """Who knows the token cannot be asked at present."""

    reason = "authentication_unavailable"


LOCAL_NODE = ""
"""Whom a call without credentials comes from: somebody on this machine."""


async def _ask_nobody(_header: str | None) -> str | None:
    return LOCAL_NODE


LOCAL = Authentication(_ask_nobody, lambda _: LOCAL_NODE)
"""Anybody who can call. For what listens on loopback only, and gives nobody anything that is secret."""


def authenticate_by_any(ways: Sequence[Authentication]) -> Authentication:
    """The first of these ways that knows a token decides."""

    async def ask(header: str | None) -> str | None:
        for way in ways:
            if (node := await way.ask(header)) is not None:
                return node
        return None

    def recall(header: str | None) -> str | None:
        return next((node for way in ways if (node := way.recall(header)) is not None), None)

    return Authentication(ask, recall)


def read_bearer(header: str | None) -> str | None:
    """The token of an `authorization` header; None where there is none that can be ours."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and 0 < len(token) <= MAX_TOKEN_CHARACTERS else None


async def authenticate_node(header: str | None, authentication: Authentication) -> str:
    """The node whose token a call carries. Raises UnauthenticatedError, AuthenticationUnavailableError."""
    node = await authentication.ask(header)
    if node is None:
        raise UnauthenticatedError("no valid node token: the agent must send `authorization: Bearer TOKEN`")
    return node
