"""Who is calling over gRPC: what both services ask of a call before anything else."""

from collections.abc import Callable

import grpc.aio

from mesh.kit.errors import RefusedError

CallContext = grpc.aio.ServicerContext[bytes, bytes]
"""A call whose messages are raw bytes."""

Authenticate = Callable[[str | None], str | None]
"""From an `authorization` header to the node that it proves, or None."""


class UnauthenticatedError(RefusedError):
    """The caller has no valid token, or has it no longer."""

    reason = "unauthenticated"


def authenticate_node(context: CallContext, authenticate: Authenticate) -> str:
    """The node whose token the call carries. Raises UnauthenticatedError."""
    node = authenticate(_find_header(context, "authorization"))
    if node is None:
        raise UnauthenticatedError("no valid node token: the agent must send `authorization: Bearer TOKEN`")
    return node


def _find_header(context: CallContext, name: str) -> str | None:
    for key, value in context.invocation_metadata() or ():
        if key == name and isinstance(value, str):
            return value
    return None
