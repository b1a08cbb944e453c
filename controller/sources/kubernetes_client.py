"""The calls that we make of a Kubernetes API server, with a kubeconfig's credentials."""

import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import cast

import aiohttp
import yaml
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.config import ConfigException, load_incluster_config, load_kube_config

from controller.kinds.meta import KubernetesObject
from controller.sources.documents import PlainObject
from mesh.kit.errors import FatalError

IN_CLUSTER = "in-cluster"
"""In place of a kubeconfig file: the service account of the pod that we run in."""

FIELD_MANAGER = "ambit-controller"
_APPLY = {"fieldManager": FIELD_MANAGER, "force": "true"}
PAGE_OBJECTS = 500
# The server ends a watch by itself after this; jitter keeps all kinds from coming back at once.
WATCH_SECONDS = (240, 300)
# Bookmarks come about every minute: a connection on which nothing comes for longer is dead.
SILENCE_SECONDS = 120.0
ANSWER_SECONDS = 60.0


class UnavailableError(Exception):
    """The server did not do what was asked. `status` is HTTP's; `retry_after` what it asked for, in seconds."""

    def __init__(self, message: str, status: int = 0, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class ExpiredError(UnavailableError):
    """The server no longer knows the place from which a watch or the next page should go on (410 Gone)."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a kind's objects, and the version of the whole list."""

    items: Sequence[PlainObject]
    version: str


class KubernetesClient:
    """The calls that we make. All raise one of FAILURES."""

    FAILURES = (UnavailableError, aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError)
    """What a call raises when the server cannot be reached, refuses, or answers nonsense."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api

    async def find(self, model: type[KubernetesObject]) -> tuple[str, str] | None:
        """The path and apiVersion of a kind, in the first of our versions that is served; None where it is not."""
        for version in model.VERSIONS:
            api_version = f"{model.GROUP}/{version}" if model.GROUP else version
            root = f"/apis/{api_version}" if model.GROUP else f"/api/{api_version}"
            async with await self._ask("GET", root) as answer:
                if answer.status == HTTPStatus.NOT_FOUND:
                    continue
                document = await _read(answer)
            for each in cast(list[Mapping[str, str]], document["resources"]):
                if each["kind"] == model.KIND and "/" not in each["name"]:
                    return f"{root}/{each['name']}", api_version
        return None

    async def list(self, path: str, selector: str = "") -> AsyncIterator[Page]:
        """All objects of a kind whose fields are as `selector` says."""
        token = ""
        while True:
            parameters = {"limit": str(PAGE_OBJECTS), **_select(selector)} | ({"continue": token} if token else {})
            async with await self._ask("GET", path, parameters) as answer:
                document = await _read(answer)
            metadata = cast(Mapping[str, str], document["metadata"])
            yield Page(cast(list[PlainObject], document.get("items") or []), metadata["resourceVersion"])
            token = metadata.get("continue") or ""
            if not token:
                return

    async def read_version(self, path: str, selector: str = "") -> str:
        """The present version of a kind's list."""
        async with await self._ask("GET", path, {"limit": "1", **_select(selector)}) as answer:
            document = await _read(answer)
        return cast(Mapping[str, str], document["metadata"])["resourceVersion"]

    async def watch(self, path: str, version: str, selector: str = "") -> AsyncGenerator[tuple[str, PlainObject]]:
        """The events since `version`, until the server ends the watch. The first is ours: the server agreed to it."""
        parameters = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(random.randint(*WATCH_SECONDS)),
            **_select(selector),
        }
        async with await self._ask("GET", path, parameters, seconds=None) as answer:
            if answer.status != HTTPStatus.OK:
                await _read(answer)
            yield "BOOKMARK", {}
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    if status.get("code") == HTTPStatus.GONE:
                        raise ExpiredError(str(status.get("message")), HTTPStatus.GONE)
                    raise UnavailableError(str(status.get("message")), int(status.get("code") or 0))
                yield event["type"], event["object"]

    async def get(self, path: str) -> PlainObject | None:
        """One object; None where there is none."""
        async with await self._ask("GET", path) as answer:
            return None if answer.status == HTTPStatus.NOT_FOUND else await _read(answer)

    async def replace(self, path: str, document: PlainObject) -> PlainObject:
        """Put `document` in an object's place, unless it is no more of the version that `document` has."""
        async with await self._ask("PUT", path, document=document) as answer:
            return await _read(answer)

    async def create(self, path: str, document: PlainObject) -> PlainObject:
        """Create an object; gives it as the server answers it."""
        async with await self._ask("POST", path, document=document) as answer:
            return await _read(answer)

    async def apply(self, path: str, document: PlainObject) -> PlainObject:
        """Make an object what `document` says of it, by server-side apply; what it does not speak of stays."""
        async with await self._ask("PATCH", path, _APPLY, document) as answer:
            return await _read(answer)

    async def apply_if_there(self, path: str, document: PlainObject) -> None:
        """The same for a part of an object, such as its status; nothing where the object is gone."""
        async with await self._ask("PATCH", path, _APPLY, document) as answer:
            if answer.status != HTTPStatus.NOT_FOUND:
                await _read(answer)

    async def _ask(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None = None,
        document: PlainObject | None = None,
        seconds: float | None = ANSWER_SECONDS,
    ) -> aiohttp.ClientResponse:
        # Of the kinds of PATCH only apply is used here.
        content = "application/apply-patch+yaml" if method == "PATCH" else "application/json"
        headers: dict[str, str] = {"Accept": "application/json", "Content-Type": content}
        await self._api.update_params_for_auth(headers, [], ["BearerToken"])
        rest = self._api.rest_client
        return await rest.pool_manager.request(
            method,
            f"{self._api.configuration.host}{path}",
            params=parameters,
            data=None if document is None else json.dumps(document),
            headers=headers,
            proxy=rest.proxy,
            server_hostname=rest.server_hostname,
            timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=ANSWER_SECONDS, sock_read=SILENCE_SECONDS),
        )


def _select(selector: str) -> Mapping[str, str]:
    return {"fieldSelector": selector} if selector else {}


async def _read(answer: aiohttp.ClientResponse) -> PlainObject:
    """What an answer says. Raises ExpiredError, UnavailableError when it is a refusal."""
    if answer.status in (HTTPStatus.OK, HTTPStatus.CREATED):
        document = await answer.json()
        if not isinstance(document, dict):
            raise UnavailableError("the answer is no object: is this a Kubernetes API server?", answer.status)
        return document
    text = (await answer.text())[:500]
    try:
        text = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        pass
    asked = answer.headers.get("Retry-After", "")
    kind = ExpiredError if answer.status == HTTPStatus.GONE else UnavailableError
    raise kind(f"{answer.status} {text}".strip(), answer.status, float(asked) if asked.isdigit() else 0.0)


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
    except yaml.YAMLError as error:
        raise FatalError(f"{kubeconfig} is no kubeconfig file: correct AMBIT_KUBECONFIG ({error})") from error
    configuration.connection_pool_maxsize = 0  # one connection for each kind, for as long as it is watched
    return configuration


@asynccontextmanager
async def open_kubernetes(kubeconfig: str) -> AsyncIterator[KubernetesClient]:
    """A client of the API server that `kubeconfig` names: a file, or `in-cluster`. Raises FatalError when the
    credentials cannot be read; nothing is asked yet."""
    api = ApiClient(await _load(kubeconfig))
    try:
        yield KubernetesClient(api)
    finally:
        await api.close()
