"""The delta-ADS client: when to connect, what to subscribe to, whether a response is accepted, when to try again.

The transport is injected, because ztunnel's lives in the native module, where the bytes stay, and tests have one of
their own.
Facts: ztunnel.md 4.3 to 4.8.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from mesh.kit.backoff import Backoff
from mesh.kit.errors import TransientError, UnknownSummaryError

ADDRESS = "type.googleapis.com/istio.workload.Address"
AUTHORIZATION = "type.googleapis.com/istio.security.Authorization"


class Response(Protocol):
    """One response, already applied: counts of resources taken and removed, and (name, reason) of those rejected.

    `knows_summaries` says that whoever sent it understands the sum of what a client has.
    """

    @property
    def type_url(self) -> str: ...
    @property
    def nonce(self) -> str: ...
    @property
    def accepted(self) -> int: ...
    @property
    def removed(self) -> int: ...
    @property
    def rejections(self) -> Sequence[tuple[str, str]]: ...
    @property
    def knows_summaries(self) -> bool: ...


class Stream(Protocol):
    """An open stream. Both calls raise TransientError when it has ended."""

    def receive(self) -> Response: ...
    def acknowledge(self, type_url: str, nonce: str, error: str | None) -> None: ...


class Events(Protocol):
    """What the process around the client does with what happens."""

    def connected(self) -> None:
        """A stream is open."""

    def received(self, response: Response) -> None:
        """A response was applied and answered."""

    def synchronised(self) -> None:
        """Every type has had its first response accepted; said once."""

    def disconnected(self, error: TransientError, retry_seconds: float) -> None:
        """There is no stream; the last state goes on serving."""


def decide_error(response: Response) -> str | None:
    """The text of a NACK, or None to accept."""
    if not response.rejections:
        return None
    return "; ".join(f"{name}: {reason}" for name, reason in response.rejections)


class DiscoveryClient:
    """Keeps a stream to the controller open until told to stop.

    Who comes back says what it has: by a list of all versions, megabytes in a large mesh, or by a summary where the
    controller understands that (docs/decisions/0014). One that does not know the summary gets the list.
    """

    def __init__(
        self,
        open_stream: Callable[[Sequence[str], bool], Stream],
        type_urls: Sequence[str],
        events: Events,
        wait: Callable[[float], bool],
        backoff: Backoff,
    ) -> None:
        """`open_stream(types, by_summary)`; `wait(seconds)` sleeps and returns True when the process is ending."""
        self._open_stream = open_stream
        self._type_urls = type_urls
        self._events = events
        self._wait = wait
        self._backoff = backoff
        self._unsynchronised = set(type_urls)
        self._by_summary = False

    def run(self) -> None:
        """Serve until `wait` says that the process is ending. Errors of a stream end that stream only."""
        while True:
            try:
                stream = self._open_stream(self._type_urls, self._by_summary)
                self._events.connected()
                self._serve(stream)
            except TransientError as error:
                if isinstance(error, UnknownSummaryError):
                    self._by_summary = False
                delay = self._backoff.next_delay()
                self._events.disconnected(error, delay)
                if self._wait(delay):
                    return

    def _serve(self, stream: Stream) -> None:
        while True:
            response = stream.receive()
            self._by_summary = response.knows_summaries
            error = decide_error(response)
            stream.acknowledge(response.type_url, response.nonce, error)
            self._events.received(response)
            self._backoff.reset()
            if error is None:
                self._mark_synchronised(response.type_url)

    def _mark_synchronised(self, type_url: str) -> None:
        if type_url in self._unsynchronised:
            self._unsynchronised.discard(type_url)
            if not self._unsynchronised:
                self._events.synchronised()
