"""The delta-ADS client's dialogue, with a transport that follows a script."""

from collections.abc import Sequence

from mesh.discovery import ADDRESS, AUTHORIZATION, DiscoveryClient, Response, Stream
from mesh.kit.backoff import Backoff
from mesh.kit.errors import TransientError, UnknownSummaryError

TYPES = (ADDRESS, AUTHORIZATION)


class ScriptedResponse:
    """A response of the script."""

    def __init__(
        self, type_url: str, nonce: str, rejections: Sequence[tuple[str, str]] = (), knows_summaries: bool = False
    ) -> None:
        self.type_url = type_url
        self.nonce = nonce
        self.rejections = rejections
        self.accepted = 1
        self.knows_summaries = knows_summaries
        self.removed = 0


class ScriptedStream:
    """Gives the script's responses, then ends."""

    def __init__(self, script: Sequence[ScriptedResponse], said: list[str]) -> None:
        self._script = list(script)
        self._said = said

    def receive(self) -> Response:
        if not self._script:
            raise TransientError("the stream ended")
        return self._script.pop(0)

    def acknowledge(self, type_url: str, nonce: str, error: str | None) -> None:
        self._said.append(f"{'ACK' if error is None else 'NACK'} {nonce}" + (f" {error}" if error else ""))


class Recorder:
    """Writes down what the client reports, in order."""

    def __init__(self, said: list[str]) -> None:
        self._said = said

    def connected(self) -> None:
        self._said.append("connected")

    def received(self, response: Response) -> None:
        self._said.append(f"received {response.nonce}")

    def synchronised(self) -> None:
        self._said.append("synchronised")

    def disconnected(self, error: TransientError, retry_seconds: float) -> None:
        self._said.append(f"disconnected, retry in {retry_seconds:g}")


def play(*scripts: Sequence[ScriptedResponse] | TransientError | None) -> list[str]:
    """Run the client over one connection per script (None: cannot connect) and return what happened."""
    said: list[str] = []
    remaining = list(scripts)

    def open_stream(type_urls: Sequence[str], by_summary: bool) -> Stream:
        assert tuple(type_urls) == TYPES
        if by_summary:
            said.append("sums up")
        script = remaining.pop(0)
        if isinstance(script, TransientError):
            raise script
        if script is None:
            raise TransientError("connection refused")
        return ScriptedStream(script, said)

    backoff = Backoff(1, 8, random=lambda: 0.5)
    DiscoveryClient(open_stream, TYPES, Recorder(said), lambda _: not remaining, backoff).run()
    return said


def test_each_response_is_acknowledged_and_the_first_of_every_type_completes_the_state() -> None:
    assert play(
        [ScriptedResponse(ADDRESS, "1"), ScriptedResponse(AUTHORIZATION, "2"), ScriptedResponse(ADDRESS, "3")]
    ) == [
        "connected",
        "ACK 1",
        "received 1",
        "ACK 2",
        "received 2",
        "synchronised",
        "ACK 3",
        "received 3",
        "disconnected, retry in 1",
    ]


def test_a_rejected_resource_is_named_in_the_nack_and_does_not_complete_the_state() -> None:
    bad = ScriptedResponse(AUTHORIZATION, "2", [("ns/p", "unknown scope"), ("ns/q", "bad cidr")])
    said = play([ScriptedResponse(ADDRESS, "1"), bad])
    assert "NACK 2 ns/p: unknown scope; ns/q: bad cidr" in said
    assert "synchronised" not in said


def test_the_state_is_complete_once_even_over_several_connections() -> None:
    first = [ScriptedResponse(ADDRESS, "1"), ScriptedResponse(AUTHORIZATION, "2")]
    said = play(first, [ScriptedResponse(ADDRESS, "3"), ScriptedResponse(AUTHORIZATION, "4")])
    assert said.count("synchronised") == 1


def test_delays_grow_while_nobody_answers_and_start_over_after_a_response() -> None:
    said = play(None, None, None, [ScriptedResponse(ADDRESS, "1")])
    assert [line for line in said if line.startswith("disconnected")] == [
        "disconnected, retry in 1",
        "disconnected, retry in 2",
        "disconnected, retry in 4",
        "disconnected, retry in 1",
    ]


def test_what_is_here_is_summed_up_for_a_controller_that_understands_that() -> None:
    understood = [ScriptedResponse(ADDRESS, "1", knows_summaries=True)]
    said = play(understood, None, UnknownSummaryError("forgotten"), [ScriptedResponse(ADDRESS, "2")], None)
    steps = [line for line in said if line in ("connected", "sums up") or line.startswith("disconnected")]
    assert [line.split(",")[0] for line in steps] == [
        *("connected", "disconnected"),
        *("sums up", "disconnected"),
        *("sums up", "disconnected"),
        *("connected", "disconnected"),
        "disconnected",
    ]
