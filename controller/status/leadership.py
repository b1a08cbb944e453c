"""Which of several controllers writes: the one that holds a Lease (coordination.k8s.io).

As Kubernetes' own controllers do it: who holds the Lease renews it; who does not watches the one that does, by its own
clock, and takes over when nothing was renewed for as long as the Lease says. Two that try at once are told apart by the
version that each had read: the server lets one of them write.

    WAITING --nobody holds it, or it was not renewed in time--> LEADING --not renewed in time--> WAITING
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol, cast

from controller.sources.documents import PlainObject

log = logging.getLogger(__name__)

NAME = "ambit-controller-leader"
# Kubernetes' own for its controllers.
LEASE_SECONDS, RENEW_SECONDS, RETRY_SECONDS = 15.0, 10.0, 2.0
# Of the time that a controller has to end.
RELEASE_SECONDS = 1.0

Work = Callable[[], Coroutine[None, None, None]]
"""What only the leader does, until it is cancelled."""


class LeaseStore(Protocol):
    """Where the Lease is. Each raises what `failures` of Leadership names."""

    async def read(self) -> PlainObject | None:
        """The Lease; None where there is none."""

    async def create(self, document: PlainObject) -> None:
        """Make it, unless somebody else just did."""

    async def replace(self, document: PlainObject) -> None:
        """Change it, unless somebody else did since it was read."""


@dataclass(slots=True)
class Election:
    """What one candidate has seen. Times are of its own clock, in seconds."""

    identity: str
    seen: object = None
    seen_at: float = field(default=float("-inf"))

    def may_take(self, lease: PlainObject | None, now: float) -> bool:
        """Whether the Lease is ours, nobody's, or was not renewed for too long while we watched."""
        spec = spec_of(lease)
        if lease is None or spec.get("holderIdentity") in (None, "", self.identity):
            return True
        record = (spec.get("holderIdentity"), spec.get("renewTime"))
        if record != self.seen:
            self.seen, self.seen_at = record, now
        seconds = spec.get("leaseDurationSeconds")
        return now >= self.seen_at + (seconds if isinstance(seconds, int) else LEASE_SECONDS)


def spec_of(lease: PlainObject | None) -> Mapping[str, object]:
    """A Lease's spec; empty where there is none."""
    spec = (lease or {}).get("spec")
    return cast(Mapping[str, object], spec) if isinstance(spec, Mapping) else {}


def build_lease(before: PlainObject | None, namespace: str, identity: str, wall: datetime) -> PlainObject:
    """The Lease as its holder writes it."""
    time = wall.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = spec_of(before)
    is_ours = spec.get("holderIdentity") == identity
    transitions = spec.get("leaseTransitions")
    count = transitions if isinstance(transitions, int) else 0
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": before["metadata"] if before else {"name": NAME, "namespace": namespace},
        "spec": {
            "holderIdentity": identity,
            "leaseDurationSeconds": int(LEASE_SECONDS),
            "acquireTime": spec.get("acquireTime") if is_ours else time,
            "renewTime": time,
            "leaseTransitions": count if is_ours or before is None else count + 1,
        },
    }


class Leadership:
    """Does `work` while it holds the Lease."""

    def __init__(
        self,
        store: LeaseStore,
        failures: tuple[type[Exception], ...],
        namespace: str,
        identity: str,
        work: Sequence[Work],
    ) -> None:
        self._store = store
        self._failures = failures
        self._namespace = namespace
        self._election = Election(identity)
        self._work = work
        self.is_leader = False

    async def run(self, clock: Callable[[], float], read_wall: Callable[[], datetime]) -> None:
        """Run for ever."""
        while True:
            if await self._try(clock, read_wall):
                await self._lead(clock, read_wall)
            await asyncio.sleep(RETRY_SECONDS)

    async def _lead(self, clock: Callable[[], float], read_wall: Callable[[], datetime]) -> None:
        log.info("leading: statuses and roots are written from here", extra={"identity": self._election.identity})
        self.is_leader = True
        try:
            async with asyncio.TaskGroup() as tasks:
                working = [tasks.create_task(work(), name="work of the leader") for work in self._work]
                renewed_at = clock()
                # Ours ends before anybody else may believe that it has.
                while clock() < renewed_at + RENEW_SECONDS:
                    await asyncio.sleep(RETRY_SECONDS)
                    if await self._try(clock, read_wall):
                        renewed_at = clock()
                for task in working:
                    task.cancel()
        except asyncio.CancelledError:
            await self._release()
            raise
        finally:
            self.is_leader = False
            log.info("leading no more", extra={"identity": self._election.identity})

    async def _release(self) -> None:
        """We are to end: let another one lead at once."""
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                lease = await self._store.read()
                if lease is not None and spec_of(lease).get("holderIdentity") == self._election.identity:
                    await self._store.replace({**lease, "spec": {**spec_of(lease), "holderIdentity": ""}})
        except self._failures as error:
            log.debug("the lease was not given back, and runs out", extra={"error": error})

    async def _try(self, clock: Callable[[], float], read_wall: Callable[[], datetime]) -> bool:
        """Take or renew the Lease; gives whether it is ours now."""
        try:
            lease = await self._store.read()
            if not self._election.may_take(lease, clock()):
                return False
            document = build_lease(lease, self._namespace, self._election.identity, read_wall())
            await (self._store.create(document) if lease is None else self._store.replace(document))
        except self._failures as error:
            log.debug("the lease cannot be had", extra={"error": error})
            return False
        return True
