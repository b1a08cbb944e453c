"""The two forms of the dialogue, as one: each message of a client becomes a request for changes, and back.

In the delta form a client says what it wants besides, and is told what changed. In the older one, the state of the
world, it repeats all names that it wants, and listeners and clusters are told all at once: what is not among them is no
more. gRPC's own client speaks only that; Envoy either.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from controller.serve.wire import (
    DeltaRequest,
    DeltaResponse,
    encode_state_response,
    parse_request,
    parse_state_request,
)


@dataclass(frozen=True, slots=True)
class Form:
    """How one stream's messages are read and written, in parts. `is_state` says that it is the older form."""

    read: Callable[[bytes], DeltaRequest]
    write: Callable[[DeltaResponse], Sequence[bytes]]
    is_state: bool


def open_delta() -> Form:
    """A stream of DeltaAggregatedResources."""
    return Form(parse_request, DeltaResponse.encode, is_state=False)


def open_state() -> Form:
    """A stream of StreamAggregatedResources."""
    return Form(_Names().read, encode_state_response, is_state=True)


@dataclass(slots=True)
class _Names:
    """What one client wants at present, by type."""

    wanted: dict[str, frozenset[str]] = field(default_factory=dict)

    def read(self, data: bytes) -> DeltaRequest:
        """Raises InvalidInputError."""
        request = parse_state_request(data)
        before = self.wanted.get(request.type_url, frozenset())
        names = frozenset(request.names)
        if request.error is None:  # a refusal may come without them
            self.wanted[request.type_url] = names
        else:
            names = before
        return DeltaRequest(
            type_url=request.type_url,
            node=request.node,
            subscribe=sorted(names - before),
            unsubscribe=sorted(before - names),
            nonce=request.nonce,
            error=request.error,
        )
