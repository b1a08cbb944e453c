"""A Kubernetes API server, listed and watched: every kind of the catalogue that it serves.

Each object is a text of its own to the rest of the controller, under the name `Kind namespace/name`, so the door is the
same as for files: what is invalid is refused, and its last valid form serves on. What the API server said last stays
while it cannot be reached, is overloaded (429), or forbids what it allowed. Of a kind whose definition (CRD) is not
installed there are no objects; it is looked for again now and then.

A watch goes on where it ended; when the server no longer knows that place (410), the kind is listed anew, and only
what differs counts as a change.
"""

import asyncio
import json
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import cast

import aiohttp
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.config import ConfigException, load_incluster_config, load_kube_config

from controller.kinds.catalogue import CATALOGUE, Catalogue
from controller.kinds.meta import KubernetesObject
from controller.sources.directory import FileText
from controller.sources.documents import PlainObject
from mesh.kit.errors import FatalError

log = logging.getLogger(__name__)

IN_CLUSTER = "in-cluster"
"""In place of a kubeconfig file: the service account of the pod that we run in."""

PAGE_OBJECTS = 500
# The server ends a watch by itself after this; jitter keeps all kinds from coming back at once.
WATCH_SECONDS = (240, 300)
# Bookmarks come about every minute: a connection on which nothing comes for longer is dead.
SILENCE_SECONDS = 120.0
ANSWER_SECONDS = 60.0
RETRY_SECONDS = (0.2, 10.0)
ABSENT_SECONDS = 10.0
# Of a burst, this much is put into one batch.
BURST_SECONDS = 0.02


class _Expired(Exception):
    """The server no longer knows the place from which a watch or the next page should go on (410 Gone)."""


class _Unavailable(Exception):
    """The server did not do what was asked. `retry_after` is what it asked for in return, in seconds."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(slots=True)
class _Watch:
    """One kind. `present` are the texts' names that were told of; `version` is where the watch goes on, if known."""

    model: type[KubernetesObject]
    present: set[str] = field(default_factory=set)
    path: str = ""
    api_version: str = ""
    version: str = ""
    is_failing: bool = False
    first_look: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class _Page:
    """Some of a kind's objects, and the version of the whole list."""

    items: Sequence[PlainObject]
    version: str


class KubernetesSource:
    """The API server that `kubeconfig` names (`in-cluster` for the pod's own service account).

    `report` is told, whenever that changes, of how many kinds we know that we do not see the present state.
    """

    def __init__(self, kubeconfig: str, report: Callable[[int], None], catalogue: Catalogue = CATALOGUE) -> None:
        self._kubeconfig = kubeconfig
        self._report = report
        models = sorted(set(catalogue.values()), key=lambda model: (model.GROUP, model.__name__))
        self._watches = [_Watch(model) for model in models]
        self._batch: dict[str, FileText] = {}
        self._has_changes = asyncio.Event()

    async def follow(self) -> AsyncGenerator[Mapping[str, FileText]]:
        """Yield everything there is, once every kind has been listed; then each batch of changes.

        Waits for an API server that cannot be reached. Raises FatalError when the credentials cannot be read.
        """
        async with _connect(await _load(self._kubeconfig)) as client, asyncio.TaskGroup() as tasks:
            followers = [
                tasks.create_task(self._follow(client, watch), name=f"watch {watch.model.__name__}")
                for watch in self._watches
            ]
            try:
                for watch in self._watches:
                    await watch.first_look.wait()
                self._has_changes.set()  # also when there is nothing at all
                while True:
                    await self._has_changes.wait()
                    await asyncio.sleep(BURST_SECONDS)
                    self._has_changes.clear()
                    batch, self._batch = self._batch, {}
                    yield batch
            finally:
                for each in followers:
                    each.cancel()

    async def _follow(self, client: "_Client", watch: _Watch) -> None:
        """List and watch one kind for ever."""
        failures = 0
        while True:
            try:
                if not watch.version:
                    await self._list(client, watch)
                watch.first_look.set()
                if not watch.version:
                    self._recover(watch)
                    failures = 0
                    await asyncio.sleep(ABSENT_SECONDS)
                    continue
                async with aclosing(client.watch(watch.path, watch.version)) as events:
                    async for kind, document in events:
                        self._recover(watch)
                        failures = 0
                        self._take(watch, kind, document)
            except _Expired:
                log.info("watch has expired, listing anew", extra={"kind": watch.model.__name__})
                watch.version = ""
            except (_Unavailable, aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                failures += 1
                self._fail(watch, error)
                wait = min(RETRY_SECONDS[0] * 2 ** min(failures - 1, 16), RETRY_SECONDS[1])
                asked = error.retry_after if isinstance(error, _Unavailable) else 0.0
                await asyncio.sleep(max(wait * random.uniform(0.5, 1.0), asked))

    async def _list(self, client: "_Client", watch: _Watch) -> None:
        """Read all objects of a kind; what was there and is no more is told as gone."""
        found = await client.find(watch.model)
        watch.path, watch.api_version = found or ("", "")
        texts: dict[str, FileText] = {}
        version = ""
        if found:
            async for page in client.list(watch.path):
                texts.update(self._describe(watch, each) for each in page.items)
                version = page.version
        watch.version = version
        gone = watch.present - texts.keys()
        watch.present = set(texts)
        self._add({**dict.fromkeys(gone), **texts})
        self._recover(watch)

    def _take(self, watch: _Watch, kind: str, document: PlainObject) -> None:
        """One event of a watch."""
        metadata = cast(Mapping[str, str], document.get("metadata") or {})
        if kind in ("ADDED", "MODIFIED"):
            name, text = self._describe(watch, document)
            watch.present.add(name)
            self._add({name: text})
        elif kind == "DELETED":
            name, _ = self._describe(watch, document)
            watch.present.discard(name)
            self._add({name: None})
        watch.version = metadata.get("resourceVersion") or watch.version

    def _describe(self, watch: _Watch, document: PlainObject) -> tuple[str, PlainObject]:
        """The name of an object's text, and the object; in lists the server leaves out what the list says."""
        metadata = cast(Mapping[str, str], document["metadata"])
        place = f"{metadata['namespace']}/{metadata['name']}" if metadata.get("namespace") else metadata["name"]
        given = {"apiVersion": watch.api_version, "kind": watch.model.__name__, **document}
        return f"{watch.model.__name__} {place}", given

    def _add(self, texts: Mapping[str, FileText]) -> None:
        if texts:
            self._batch.update(texts)
            if all(watch.first_look.is_set() for watch in self._watches):
                self._has_changes.set()

    def _fail(self, watch: _Watch, error: Exception) -> None:
        if not watch.is_failing:
            self._mark(watch, is_failing=True)
            fields = {"kind": watch.model.__name__, "error": str(error) or type(error).__name__}
            log.warning("Kubernetes cannot be watched, what was read stays", extra=fields)

    def _recover(self, watch: _Watch) -> None:
        if watch.is_failing:
            self._mark(watch, is_failing=False)
            log.info("Kubernetes is watched again", extra={"kind": watch.model.__name__})

    def _mark(self, watch: _Watch, is_failing: bool) -> None:
        watch.is_failing = is_failing
        self._report(sum(each.is_failing for each in self._watches))


class _Client:
    """The calls that we make of an API server. All raise _Unavailable, _Expired, aiohttp.ClientError, OSError."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api

    async def find(self, model: type[KubernetesObject]) -> tuple[str, str] | None:
        """The path and apiVersion of a kind, in the first of our versions that is served; None where it is not."""
        for version in model.VERSIONS:
            api_version = f"{model.GROUP}/{version}" if model.GROUP else version
            root = f"/apis/{api_version}" if model.GROUP else f"/api/{api_version}"
            async with await self._get(root, {}, ANSWER_SECONDS) as answer:
                if answer.status == HTTPStatus.NOT_FOUND:
                    continue
                document = await _read(answer)
            for each in cast(list[Mapping[str, str]], document["resources"]):
                if each["kind"] == model.__name__ and "/" not in each["name"]:
                    return f"{root}/{each['name']}", api_version
        return None

    async def list(self, path: str) -> AsyncIterator[_Page]:
        """All objects of a kind."""
        token = ""
        while True:
            parameters = {"limit": str(PAGE_OBJECTS)} | ({"continue": token} if token else {})
            async with await self._get(path, parameters, ANSWER_SECONDS) as answer:
                document = await _read(answer)
            metadata = cast(Mapping[str, str], document["metadata"])
            yield _Page(cast(list[PlainObject], document.get("items") or []), metadata["resourceVersion"])
            token = metadata.get("continue") or ""
            if not token:
                return

    async def watch(self, path: str, version: str) -> AsyncGenerator[tuple[str, PlainObject]]:
        """The events since `version`, until the server ends the watch. The first is ours: the server agreed to it."""
        parameters = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(random.randint(*WATCH_SECONDS)),
        }
        async with await self._get(path, parameters, None) as answer:
            if answer.status != HTTPStatus.OK:
                await _read(answer)
            yield "BOOKMARK", {}
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    if status.get("code") == HTTPStatus.GONE:
                        raise _Expired
                    raise _Unavailable(str(status.get("message")))
                yield event["type"], event["object"]

    async def _get(self, path: str, parameters: Mapping[str, str], seconds: float | None) -> aiohttp.ClientResponse:
        headers: dict[str, str] = {"Accept": "application/json"}
        await self._api.update_params_for_auth(headers, [], ["BearerToken"])
        rest = self._api.rest_client
        return await rest.pool_manager.get(
            f"{self._api.configuration.host}{path}",
            params=parameters,
            headers=headers,
            proxy=rest.proxy,
            server_hostname=rest.server_hostname,
            timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=ANSWER_SECONDS, sock_read=SILENCE_SECONDS),
        )


async def _read(answer: aiohttp.ClientResponse) -> PlainObject:
    """What an answer says. Raises _Expired, _Unavailable when it is a refusal."""
    if answer.status == HTTPStatus.OK:
        return cast(PlainObject, await answer.json())
    if answer.status == HTTPStatus.GONE:
        raise _Expired
    text = (await answer.text())[:500]
    try:
        text = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        pass
    asked = answer.headers.get("Retry-After", "")
    raise _Unavailable(f"{answer.status} {text}".strip(), float(asked) if asked.isdigit() else 0.0)


async def _load(kubeconfig: str) -> Configuration:
    configuration = Configuration()
    try:
        if kubeconfig == IN_CLUSTER:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]  # it has no types
        else:
            if not Path(kubeconfig).is_file():
                raise FatalError(f"there is no kubeconfig file {kubeconfig}: correct AMBIT_KUBECONFIG")
            await load_kube_config(kubeconfig, client_configuration=configuration, persist_config=False)
    except ConfigException as error:
        raise FatalError(f"cannot use the Kubernetes credentials of {kubeconfig}: {error}") from error
    configuration.connection_pool_maxsize = 0  # one connection for each kind, for as long as it is watched
    return configuration


@asynccontextmanager
async def _connect(configuration: Configuration) -> AsyncIterator[_Client]:
    api = ApiClient(configuration)
    try:
        yield _Client(api)
    finally:
        await api.close()
