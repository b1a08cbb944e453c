"""A Kubernetes API server, listed and watched: every kind of the catalogue that it serves.

Each object is a text of its own to the rest of the controller, under the name `Kind namespace/name`, so the door is the
same as for files: what is invalid is refused, and its last valid form serves on. It is parsed where it arrives, page by
page: most of what the server says of an object is nothing to us, and need not be kept until all kinds are read.

What the API server said last stays while it cannot be reached, is overloaded (429), or forbids what it allowed. Of a
kind whose definition (CRD) is not installed there are no objects; it is looked for again now and then. So it is with
Secrets that the controller may not read, and never could: who serves no TLS need not grant them.

A watch goes on where it ended; when the server no longer knows that place (410), the kind is listed anew, and only
what differs counts as a change.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast

from controller.kinds.catalogue import CATALOGUE, Catalogue
from controller.kinds.meta import KubernetesObject
from controller.sources.directory import FileText
from controller.sources.documents import PlainObject, parse_plain
from controller.sources.kubernetes_client import ExpiredError, KubernetesClient, UnavailableError
from mesh.kit.backoff import Backoff

log = logging.getLogger(__name__)

RETRY_SECONDS = (0.2, 10.0)
ABSENT_SECONDS = 10.0
# The first change after a pause is told at once; of what follows, this much is put into one batch.
BURST_SECONDS = 0.02


@dataclass(slots=True)
class _Watch:
    """One kind. `present` are the texts' names that were told of; `version` is where the watch goes on, if known."""

    model: type[KubernetesObject]
    present: set[str] = field(default_factory=set)
    path: str = ""
    api_version: str = ""
    version: str = ""
    is_failing: bool = False
    was_read: bool = False
    is_withheld: bool = False
    first_look: asyncio.Event = field(default_factory=asyncio.Event)


class KubernetesSource:
    """All objects that an API server has of the kinds of a catalogue.

    `report` is told, whenever that changes, of how many kinds we know that we do not see the present state.
    """

    def __init__(
        self, client: KubernetesClient, report: Callable[[int], None], catalogue: Catalogue = CATALOGUE
    ) -> None:
        self._client = client
        self._report = report
        self._catalogue = catalogue
        models = sorted(set(catalogue.values()), key=lambda model: (model.GROUP, model.KIND))
        self._watches = [_Watch(model) for model in models]
        self._batch: dict[str, FileText] = {}
        self._has_changes = asyncio.Event()

    async def follow(self) -> AsyncGenerator[Mapping[str, FileText]]:
        """Yield everything there is, once every kind has been listed; then each batch of changes.

        Waits for an API server that cannot be reached.
        """
        async with asyncio.TaskGroup() as tasks:
            followers = [
                tasks.create_task(self._follow(watch), name=f"watch {watch.model.KIND}") for watch in self._watches
            ]
            try:
                for watch in self._watches:
                    await watch.first_look.wait()
                self._has_changes.set()  # also when there is nothing at all
                while True:
                    await self._has_changes.wait()
                    self._has_changes.clear()
                    batch, self._batch = self._batch, {}
                    yield batch
                    await asyncio.sleep(BURST_SECONDS)
            finally:
                for each in followers:
                    each.cancel()

    async def _follow(self, watch: _Watch) -> None:
        """List and watch one kind for ever."""
        backoff = Backoff(*RETRY_SECONDS, random.random)
        while True:
            try:
                if not watch.version or await self._is_set_back(watch):
                    await self._list(watch)
                watch.first_look.set()
                if not watch.version:
                    self._recover(watch)
                    backoff.reset()
                    await asyncio.sleep(ABSENT_SECONDS)
                    continue
                async with aclosing(
                    self._client.watch(watch.path, watch.version, watch.model.FIELD_SELECTOR)
                ) as events:
                    async for kind, document in events:
                        self._recover(watch)
                        backoff.reset()
                        self._take(watch, kind, document)
                await asyncio.sleep(backoff.next_delay())  # a server, or a proxy before it, may end watches at once
            except ExpiredError:
                log.info("watch has expired, listing anew", extra={"kind": watch.model.KIND})
                watch.version = ""
            except KubernetesClient.FAILURES as error:
                if _is_withheld(watch, error):
                    self._go_without(watch)
                    await asyncio.sleep(ABSENT_SECONDS)
                    continue
                self._fail(watch, error)
                wait = backoff.next_delay()
                if isinstance(error, UnavailableError):
                    wait = max(wait, error.retry_after)
                    if error.status == HTTPStatus.NOT_FOUND:
                        watch.version = ""  # the kind may be gone
                await asyncio.sleep(wait)

    async def _is_set_back(self, watch: _Watch) -> bool:
        """Whether the server's store is older than what we have seen of it, as after a backup was restored.

        A watch would not say so: it would go on in silence until the store has caught up.
        """
        present = await self._client.read_version(watch.path, watch.model.FIELD_SELECTOR)
        # Versions are numbers that grow, as the API server itself compares them.
        is_older = present.isdigit() and watch.version.isdigit() and int(present) < int(watch.version)
        if is_older:
            log.warning("Kubernetes was set back to an earlier state, listing anew", extra={"kind": watch.model.KIND})
        return is_older

    async def _list(self, watch: _Watch) -> None:
        """Read all objects of a kind; what was there and is no more is told as gone.

        A definition that is taken away takes its objects with it, one by one, and we see each go. So a kind that is not
        served while we know of objects is a server that is not itself: what it forgot may be what denies.
        """
        found = await self._client.find(watch.model)
        if not found and watch.present:
            raise UnavailableError(f"the kind is not served any more, but {len(watch.present)} objects of it were")
        watch.path, watch.api_version = found or ("", "")
        texts: dict[str, FileText] = {}
        version = ""
        if found:
            async for page in self._client.list(watch.path, watch.model.FIELD_SELECTOR):
                texts.update(self._read(watch, each) for each in page.items)
                version = page.version
            watch.was_read, watch.is_withheld = True, False
        watch.version = version
        gone = watch.present - texts.keys()
        watch.present = set(texts)
        self._add({**dict.fromkeys(gone), **texts})
        self._recover(watch)

    def _take(self, watch: _Watch, kind: str, document: PlainObject) -> None:
        """One event of a watch."""
        metadata = cast(Mapping[str, str], document.get("metadata") or {})
        if kind in ("ADDED", "MODIFIED"):
            name, text = self._read(watch, document)
            watch.present.add(name)
            self._add({name: text})
        elif kind == "DELETED":
            name = _name(watch, document)
            watch.present.discard(name)
            self._add({name: None})
        watch.version = metadata.get("resourceVersion") or watch.version

    def _read(self, watch: _Watch, document: PlainObject) -> tuple[str, FileText]:
        """The name of an object's text, and what it says; in lists the server leaves out what the list says."""
        name = _name(watch, document)
        given = {"apiVersion": watch.api_version, "kind": watch.model.KIND, **document}
        return name, parse_plain(given, name, self._catalogue)

    def _add(self, texts: Mapping[str, FileText]) -> None:
        if texts:
            self._batch.update(texts)
            if all(watch.first_look.is_set() for watch in self._watches):
                self._has_changes.set()

    def _go_without(self, watch: _Watch) -> None:
        if not watch.is_withheld:
            watch.is_withheld = True
            log.warning("Kubernetes does not let us read these, there are none to us", extra={"kind": watch.model.KIND})
        watch.first_look.set()

    def _fail(self, watch: _Watch, error: Exception) -> None:
        if not watch.is_failing:
            self._mark(watch, is_failing=True)
            fields = {"kind": watch.model.KIND, "error": str(error) or type(error).__name__}
            log.warning("Kubernetes cannot be watched, what was read stays", extra=fields)

    def _recover(self, watch: _Watch) -> None:
        if watch.is_failing:
            self._mark(watch, is_failing=False)
            log.info("Kubernetes is watched again", extra={"kind": watch.model.KIND})

    def _mark(self, watch: _Watch, is_failing: bool) -> None:
        watch.is_failing = is_failing
        self._report(sum(each.is_failing for each in self._watches))


def _name(watch: _Watch, document: PlainObject) -> str:
    metadata = cast(Mapping[str, str], document["metadata"])
    place = f"{metadata['namespace']}/{metadata['name']}" if metadata.get("namespace") else metadata["name"]
    return f"{watch.model.KIND} {place}"


def _is_withheld(watch: _Watch, error: Exception) -> bool:
    """Whether a kind that the mesh can do without is forbidden from the beginning."""
    is_forbidden = isinstance(error, UnavailableError) and error.status == HTTPStatus.FORBIDDEN
    return is_forbidden and watch.model.IS_OPTIONAL and not watch.was_read
