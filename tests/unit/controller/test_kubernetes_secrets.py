"""Which Secrets an API server is asked for, and a controller that may not read them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from http import HTTPStatus

from controller.kinds.catalogue import build_catalogue
from controller.kinds.core import Namespace
from controller.kinds.meta import KubernetesObject
from controller.kinds.secrets import Secret
from controller.sources.documents import PlainObject
from controller.sources.kubernetes import KubernetesSource
from controller.sources.kubernetes_client import KubernetesClient, Page, UnavailableError

NAMESPACE: PlainObject = {"metadata": {"name": "demo", "resourceVersion": "1"}}


class Server(KubernetesClient):
    """An API server with one Namespace, that allows a kind or forbids it."""

    def __init__(self, *forbidden: type[KubernetesObject]) -> None:
        self.forbidden = forbidden
        self.selectors: dict[str, set[str]] = {}

    async def find(self, model: type[KubernetesObject]) -> tuple[str, str] | None:
        return model.__name__, "v1"

    async def list(self, path: str, selector: str = "") -> AsyncIterator[Page]:
        self.selectors.setdefault(path, set()).add(selector)
        if path in {each.__name__ for each in self.forbidden}:
            raise UnavailableError("403 forbidden", HTTPStatus.FORBIDDEN)
        yield Page([NAMESPACE] if path == "Namespace" else [], "1")

    async def read_version(self, path: str, selector: str = "") -> str:
        self.selectors.setdefault(path, set()).add(selector)
        return "1"

    async def watch(self, path: str, version: str, selector: str = "") -> AsyncGenerator[tuple[str, PlainObject]]:
        self.selectors.setdefault(path, set()).add(selector)
        yield "BOOKMARK", {}
        await asyncio.Event().wait()


async def read_first(server: Server) -> set[str] | None:
    """The names of what the source has first; None where it tells before that it cannot see something."""
    settled, found, failing = asyncio.Event(), set[str](), list[int]()

    def report(count: int) -> None:
        failing.append(count)
        settled.set()

    async def follow() -> None:
        async for batch in KubernetesSource(server, report, build_catalogue(Namespace, Secret)).follow():
            found.update(batch)
            settled.set()

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        following = tasks.create_task(follow(), name="follow")
        await settled.wait()
        following.cancel()
    return None if failing else found


async def test_without_leave_to_read_secrets_the_rest_is_served() -> None:
    assert await read_first(Server(Secret)) == {"Namespace demo"}


async def test_without_leave_to_read_anything_else_the_controller_waits() -> None:
    assert await read_first(Server(Namespace)) is None


async def test_secrets_that_can_be_no_certificates_are_not_asked_for() -> None:
    server = Server()
    assert await read_first(server) == {"Namespace demo"}
    [selector] = server.selectors["Secret"]
    assert "type!=kubernetes.io/service-account-token" in selector.split(",")
    assert "tls" not in selector.replace("kubernetes.io/dockercfg", "")
    assert server.selectors["Namespace"] == {""}
