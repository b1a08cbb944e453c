"""When to fetch which certificate: at once when a pod or a connection wants one, at half of its time, and with
growing delays while fetching fails (ztunnel.md 5.4).

`RenewalSchedule` decides and knows no clock; `run` performs.
"""

from collections.abc import Callable

from dataplane import CertificateDiscarded, CertificateFailed, CertificateFetched, CertificateWanted, Ztunnel
from mesh.kit.backoff import Backoff
from ztunnel.log import Log

FIRST_RETRY_SECONDS = 1.0
# Stock ztunnel lets this grow to 150 s, and an identity stays dark that long after the authority is back
# (ztunnel.md 12.1, 20). Traffic does not wait even for this: see `RenewalSchedule.want`.
RETRY_CAP_SECONDS = 15.0
# Stock's number (ztunnel.md 5.4): a node with hundreds of identities must not flood the authority when it starts.
MAX_FETCHES = 8
# How long `run` waits for an event before it looks whether the process is ending.
PATIENCE_SECONDS = 1.0

# What is fetched first among what is due: what a connection waits for, then new pods', then renewals.
TRAFFIC, POD, RENEWAL = range(3)


class RenewalSchedule:
    """Which identities are due when. Times are seconds of a clock that runs evenly, which the wall's need not."""

    def __init__(self, random: Callable[[], float]) -> None:
        """`random` draws from [0, 1), for the retries' jitter."""
        self._random = random
        self._due: dict[str, tuple[float, int]] = {}
        self._backoffs: dict[str, Backoff] = {}
        self._failed_at: dict[str, float] = {}
        self._fetching: set[str] = set()

    def want(self, identity: str, now: float, for_traffic: bool) -> None:
        """Somebody needs it: it is due now. While fetches fail, only traffic shortens the delay, to the first one."""
        if identity in self._fetching:
            return
        when, priority = self._due.get(identity, (float("inf"), RENEWAL))
        soonest = self._failed_at.get(identity, float("-inf")) + FIRST_RETRY_SECONDS
        if for_traffic:
            self._due[identity] = min(when, max(now, soonest)), TRAFFIC
        elif identity not in self._failed_at:
            self._due[identity] = min(when, now), min(priority, POD)

    def fetched(self, identity: str, now: float, remaining: float, lifetime: float) -> None:
        """It is there, valid for `remaining` of its `lifetime` by the wall: due again at half of what remains.

        Half of the lifetime itself, as stock ztunnel has it, may be over already: authorities date certificates back,
        so that peers with other clocks accept them. Where our clock is behind, more may seem to remain than ever was.
        """
        self.discarded(identity)
        self._due[identity] = now + max(min(remaining, lifetime) / 2, FIRST_RETRY_SECONDS), RENEWAL

    def failed(self, identity: str, now: float, remaining: float | None) -> float:
        """It could not be had: due again after a delay, which is returned in seconds.

        `remaining` is how long an older certificate is still valid: the next attempt comes no later than its end.
        """
        self._fetching.discard(identity)
        backoff = self._backoffs.get(identity)
        if backoff is None:
            backoff = self._backoffs[identity] = Backoff(FIRST_RETRY_SECONDS, RETRY_CAP_SECONDS, self._random)
        delay = backoff.next_delay()
        if remaining is not None:
            delay = min(delay, max(remaining, FIRST_RETRY_SECONDS))
        self._failed_at[identity] = now
        self._due[identity] = now + delay, POD if remaining is None else RENEWAL
        return delay

    def discarded(self, identity: str) -> None:
        """Nobody needs it any more; or a new beginning."""
        self._fetching.discard(identity)
        self._backoffs.pop(identity, None)
        self._failed_at.pop(identity, None)
        self._due.pop(identity, None)

    def take_due(self, now: float) -> list[str]:
        """The identities to fetch now, the most urgent first, no more than may be fetched at once."""
        due = [(priority, when, identity) for identity, (when, priority) in self._due.items() if when <= now]
        taken = [identity for _, _, identity in sorted(due)[: MAX_FETCHES - len(self._fetching)]]
        for identity in taken:
            del self._due[identity]
        self._fetching.update(taken)
        return taken

    def seconds_until_next(self, now: float) -> float:
        """How long until `take_due` can return something without an event; infinite when it cannot."""
        if len(self._fetching) >= MAX_FETCHES:
            return float("inf")
        return max(0.0, min((when for when, _ in self._due.values()), default=float("inf")) - now)


def run(
    ztunnel: Ztunnel,
    schedule: RenewalSchedule,
    clock: Callable[[], float],
    wall: Callable[[], float],
    ending: Callable[[], bool],
) -> None:
    """Serve certificate events until `ending()`. `clock` runs evenly; `wall` is what certificates are dated by."""
    log = Log("identities")
    while not ending():
        for identity in schedule.take_due(clock()):
            ztunnel.fetch_certificate(identity)
        patience = min(PATIENCE_SECONDS, schedule.seconds_until_next(clock()))
        match ztunnel.next_certificate_event(patience):
            case CertificateWanted() as event:
                schedule.want(event.identity, clock(), event.for_traffic)
            case CertificateFetched() as event:
                now = wall()
                remaining = event.not_after - now
                schedule.fetched(event.identity, clock(), remaining, event.not_after - event.not_before)
                if now < event.not_before:
                    log.warning(
                        "certificate begins in the future; compare this node's clock with the authority's",
                        identity=event.identity,
                        begins_in=f"{event.not_before - now:.0f}s",
                    )
                log.info("certificate fetched", identity=event.identity, lifetime=f"{remaining:.0f}s")
            case CertificateFailed() as event:
                left = None if event.valid_until is None else event.valid_until - wall()
                delay = schedule.failed(event.identity, clock(), left)
                kept = "" if left is None else f"{left:.0f}s"
                log.warning(
                    "no certificate",
                    identity=event.identity,
                    error=event.reason,
                    retry_in=f"{delay:.1f}s",
                    old_one_valid_for=kept,
                )
            case CertificateDiscarded() as event:
                schedule.discarded(event.identity)
