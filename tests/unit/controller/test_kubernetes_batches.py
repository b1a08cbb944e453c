"""What the Kubernetes source puts into one batch, and when."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from controller.kinds.catalogue import build_catalogue
from controller.kinds.core import Namespace
from controller.kinds.meta import KubernetesObject
from controller.sources import kubernetes
from controller.sources.directory import FileText
from controller.sources.documents import Parsed, PlainObject
from controller.sources.kubernetes import KubernetesSource
from controller.sources.kubernetes_client import KubernetesClient, Page

BURST_SECONDS = 1.0


def namespace(name: str) -> PlainObject:
    return {"metadata": {"name": name, "resourceVersion": "1", "managedFields": [{"manager": "kubectl"}]}}


class Server(KubernetesClient):
    """Has one Namespace, and tells of changes as they are put in."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[tuple[str, PlainObject]] = asyncio.Queue()

    async def find(self, model: type[KubernetesObject]) -> tuple[str, str] | None:
        return model.__name__, "v1"

    async def list(self, path: str, selector: str = "") -> AsyncIterator[Page]:
        yield Page([namespace("first")], "1")

    async def read_version(self, path: str, selector: str = "") -> str:
        return "1"

    async def watch(self, path: str, version: str, selector: str = "") -> AsyncGenerator[tuple[str, PlainObject]]:
        yield "BOOKMARK", {}
        while True:
            yield await self.events.get()


@asynccontextmanager
async def following(server: Server) -> AsyncIterator[asyncio.Queue[Mapping[str, FileText]]]:
    """The batches of a source of this server, as they come."""
    batches = asyncio.Queue[Mapping[str, FileText]]()

    async def follow() -> None:
        async for batch in KubernetesSource(server, lambda _: None, build_catalogue(Namespace)).follow():
            batches.put_nowait(batch)

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        follower = tasks.create_task(follow(), name="follow")
        yield batches
        follower.cancel()


async def test_a_change_after_a_pause_is_told_at_once_and_what_follows_is_gathered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kubernetes, "BURST_SECONDS", BURST_SECONDS)
    server = Server()
    async with following(server) as batches:
        assert set(await batches.get()) == {"Namespace first"}
        for name in ("b", "c"):
            server.events.put_nowait(("ADDED", namespace(name)))
        server.events.put_nowait(("DELETED", namespace("first")))
        gathered = await batches.get()
        assert set(gathered) == {"Namespace b", "Namespace c", "Namespace first"}
        assert gathered["Namespace first"] is None
        await asyncio.sleep(2 * BURST_SECONDS)  # the pause
        server.events.put_nowait(("ADDED", namespace("d")))
        async with asyncio.timeout(BURST_SECONDS / 2):
            assert set(await batches.get()) == {"Namespace d"}


async def test_objects_are_parsed_where_they_arrive_also_invalid_ones() -> None:
    server = Server()
    async with following(server) as batches:
        [first] = (await batches.get()).values()
        assert isinstance(first, Parsed)
        assert [each.value.name for each in first.objects] == ["first"]
        server.events.put_nowait(("ADDED", {"metadata": {"name": "odd", "labels": {"ambit.dev/node-local": "maybe"}}}))
        found = (await batches.get())["Namespace odd"]
        assert isinstance(found, Parsed)
        assert not found.objects
        assert [problem.path for problem in found.problems] == ["metadata.labels"]
