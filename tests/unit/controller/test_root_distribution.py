"""What every namespace of Kubernetes is given, with the server's part played by a function."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import cast

from controller.kinds.core import MeshMeta, Namespace
from controller.root_distribution import RootDistribution, Texts
from controller.sources.documents import PlainObject
from tests.support.waiting import until

ROOTS, LISTS = ("istio-ca-root-cert", "root-cert.pem"), ("istio-ca-crl", "ca-crl.pem")


class Server:
    """Keeps what was applied. `is_away` lets every call fail."""

    def __init__(self) -> None:
        self.data: dict[str, PlainObject] = {}
        self.is_away = False
        self.calls = 0

    async def apply(self, path: str, document: PlainObject) -> PlainObject:
        self.calls += 1
        if self.is_away:
            raise OSError("away")
        self.data[path] = cast(PlainObject, document["data"])
        return document

    def read(self) -> dict[str, PlainObject]:
        """What is there, by namespace and name."""
        return {path.removeprefix("/api/v1/namespaces/").replace("/configmaps", ""): each
                for path, each in self.data.items()}  # fmt: skip


def namespace(name: str) -> Namespace:
    return Namespace(api_version="v1", kind="Namespace", metadata=MeshMeta(name=name))


@asynccontextmanager
async def running(
    server: Server, names: list[str], texts: dict[tuple[str, str], str]
) -> AsyncIterator[RootDistribution]:
    def read_texts() -> Texts:
        return dict(texts)

    distribution = RootDistribution(server.apply, (OSError,), lambda: map(namespace, names), read_texts)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(distribution.run(), name="distribute")
        yield distribution
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_every_namespace_gets_the_roots_and_lists_once_there_are_any() -> None:
    server, names, texts = Server(), ["a", "kube-public"], {ROOTS: "root"}
    async with running(server, names, texts) as distribution:
        await until(lambda: server.read() == {"a/istio-ca-root-cert": {"root-cert.pem": "root"}})
        texts[LISTS] = "list"
        distribution.note_texts()
        await until(lambda: server.read().get("a/istio-ca-crl") == {"ca-crl.pem": "list"})
        names.append("b")
        distribution.note_changes([namespace("b").key])
        await until(lambda: len(server.data) == 4)
        assert server.calls == 4, "what is written already is not written again"
        texts[LISTS] = "longer list"
        distribution.note_texts()
        await until(lambda: server.read()["b/istio-ca-crl"] == {"ca-crl.pem": "longer list"})
        assert server.calls == 6


async def test_what_could_not_be_written_is_written_later() -> None:
    server = Server()
    server.is_away = True
    async with running(server, ["a"], {ROOTS: "root", LISTS: "list"}):
        await until(lambda: server.calls >= 2)
        server.is_away = False
        await until(lambda: set(server.read()) == {"a/istio-ca-root-cert", "a/istio-ca-crl"})
