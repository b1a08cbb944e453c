"""Keeps the statuses of Kubernetes' objects as they should be."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable

from controller.kinds.meta import KubernetesObject, ObjectKey
from controller.sources.documents import PlainObject
from controller.status.documents import StatusDocument
from mesh.kit.backoff import Backoff

log = logging.getLogger(__name__)

# Of a burst of changes one round of writing is made of.
GATHER_SECONDS = 0.2
RETRY_SECONDS = (0.5, 30.0)

WriteStatus = Callable[[type[KubernetesObject], ObjectKey, PlainObject], Awaitable[None]]
"""Makes the status of an object what it should be, by server-side apply."""


class StatusWriter:
    """Writes what `read_statuses` says, where it is not so already. `failures` are those of `write`."""

    def __init__(
        self,
        write: WriteStatus,
        failures: tuple[type[Exception], ...],
        read_statuses: Callable[[], Iterable[StatusDocument]],
    ) -> None:
        self._write = write
        self._failures = failures
        self._read_statuses = read_statuses
        self._is_failing = False
        self._wake = asyncio.Event()

    def note_changes(self, keys: Iterable[ObjectKey]) -> None:
        """Objects have changed. What pods do changes no status."""
        if any(key.group or key.kind in ("Service", "Namespace") for key in keys):
            self._wake.set()

    async def run(self) -> None:
        """Write for ever."""
        backoff = Backoff(*RETRY_SECONDS, random.random)
        while True:
            self._wake.clear()
            if await self._write_all():
                backoff.reset()
                await self._wake.wait()
                await asyncio.sleep(GATHER_SECONDS)
            else:
                await asyncio.sleep(backoff.next_delay())

    async def _write_all(self) -> bool:
        """Gives whether all is written."""
        is_complete = True
        for document in list(self._read_statuses()):
            if document.is_written:
                continue
            try:
                await self._write(document.model, document.key, document.status)
            except self._failures as error:
                is_complete = False
                if not self._is_failing:
                    fields = {"object": document.key, "error": str(error) or type(error).__name__}
                    log.warning("statuses cannot be written, trying again", extra=fields)
                    self._is_failing = True
        if is_complete:
            self._is_failing = False
        return is_complete
