"""Who is calling over gRPC: what both services ask of a call before anything else."""

from collections.abc import Awaitable, Callable, Sequence

import grpc.aio

from mesh.kit.errors import RefusedError, TransientError

# A bearer token longer than this is none of ours; hashing must not become work that a stranger orders.
MAX_TOKEN_CHARACTERS = 4096

CallContext = grpc.aio.ServicerContext[bytes, bytes]
"""A call whose messages are raw bytes."""

Authenticate = Callable[[str | None], Awaitable[str | None]]
"""From an `authorization` header to the node that it proves, or None. Raises AuthenticationUnavailableError."""


class UnauthenticatedError(RefusedError):
    """The caller has no valid token, or has it no longer."""

    reason = "unauthenticated"


class AuthenticationUnavailableError(TransientError):
    """Who knows the token cannot be asked at present."""

    reason = "authentication_unavailable"


LOCAL_NODE = ""
"""Whom a call without credentials comes from: somebody on this machine."""


async def authenticate_local(_header: str | None) -> str | None:
    """Anybody who can call. For what listens on loopback only, and gives nobody anything that is secret."""
    return LOCAL_NODE


def authenticate_by_any(ways: Sequence[Authenticate]) -> Authenticate:
    """The first of these ways that knows a token decides."""

    async def authenticate(header: str | None) -> str | None:
        for way in ways:
            if (node := await way(header)) is not None:
                return node
        return None

    return authenticate


def read_bearer(header: str | None) -> str | None:
    """The token of an `authorization` header; None where there is none that can be ours."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and 0 < len(token) <= MAX_TOKEN_CHARACTERS else None


async def authenticate_node(context: CallContext, authenticate: Authenticate) -> str:
    """The node whose token the call carries. Raises UnauthenticatedError, AuthenticationUnavailableError."""
    node = await authenticate(_find_header(context, "authorization"))
    if node is None:
        raise UnauthenticatedError("no valid node token: the agent must send `authorization: Bearer TOKEN`")
    return node


def _find_header(context: CallContext, name: str) -> str | None:
    for key, value in context.invocation_metadata() or ():
        if key == name and isinstance(value, str):
            return value
    return None
