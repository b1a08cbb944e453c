"""When to fetch which certificate: at once when a pod or a connection wants one, at half of its lifetime, and with
growing delays while fetching fails (ztunnel.md 5.4).

`RenewalSchedule` decides and knows no clock; `run` performs.
"""

from collections.abc import Callable

from dataplane import CertificateFailed, CertificateFetched, CertificateWanted, Ztunnel
from mesh.kit.backoff import Backoff
from ztunnel.log import Log

FIRST_RETRY_SECONDS = 1.0
# Stock ztunnel lets this grow to 150 s, and an identity stays dark that long after the authority is back
# (ztunnel.md 12.1, 20).
RETRY_CAP_SECONDS = 15.0
# How long `run` waits for an event before it looks whether the process is ending.
PATIENCE_SECONDS = 1.0


class RenewalSchedule:
    """Which identities are due when. Times are seconds since 1970."""

    def __init__(self, random: Callable[[], float]) -> None:
        """`random` draws from [0, 1), for the retries' jitter."""
        self._random = random
        self._due: dict[str, float] = {}
        self._backoffs: dict[str, Backoff] = {}

    def want(self, identity: str, now: float) -> None:
        """Somebody needs it: it is due now."""
        self._due[identity] = now

    def fetched(self, identity: str, not_before: float, not_after: float) -> None:
        """It is there: due again at half of its lifetime."""
        self._backoffs.pop(identity, None)
        self._due[identity] = not_before + (not_after - not_before) / 2

    def failed(self, identity: str, now: float) -> float:
        """It could not be had: due again after a delay, which is returned in seconds."""
        backoff = self._backoffs.get(identity)
        if backoff is None:
            backoff = self._backoffs[identity] = Backoff(FIRST_RETRY_SECONDS, RETRY_CAP_SECONDS, self._random)
        delay = backoff.next_delay()
        self._due[identity] = now + delay
        return delay

    def take_due(self, now: float) -> list[str]:
        """The identities to fetch now, each of them once."""
        due = [identity for identity, when in self._due.items() if when <= now]
        for identity in due:
            del self._due[identity]
        return due

    def seconds_until_next(self, now: float) -> float:
        """How long until the next identity is due; infinite when none is."""
        return max(0.0, min(self._due.values(), default=float("inf")) - now)


def run(ztunnel: Ztunnel, schedule: RenewalSchedule, clock: Callable[[], float], ending: Callable[[], bool]) -> None:
    """Serve certificate events until `ending()`."""
    log = Log("identities")
    while not ending():
        for identity in schedule.take_due(clock()):
            ztunnel.fetch_certificate(identity)
        patience = min(PATIENCE_SECONDS, schedule.seconds_until_next(clock()))
        match ztunnel.next_certificate_event(patience):
            case CertificateWanted() as event:
                schedule.want(event.identity, clock())
            case CertificateFetched() as event:
                schedule.fetched(event.identity, event.not_before, event.not_after)
                log.info("certificate fetched", identity=event.identity, lifetime=f"{event.not_after - clock():.0f}s")
            case CertificateFailed() as event:
                delay = schedule.failed(event.identity, clock())
                log.warning("no certificate", identity=event.identity, error=event.reason, retry_in=f"{delay:.1f}s")
