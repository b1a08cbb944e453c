"""Keys that RequestAuthentications name by a URL: fetched here, and published as KeySets.

Who writes a policy chooses the URL, and the controller may reach what they may not: only hosts that a setting lists are
asked, redirects are not followed, and an answer has a bound. Where keys cannot be had the ones that were had last are
used; where none ever were, there are none, and proxies get a key that nobody has.
"""

import asyncio
import json
import logging
import math
import os
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from pydantic_core import PydanticCustomError

from controller.kinds.key_set import KeySet, build_key_set
from controller.kinds.meta import ObjectKey
from controller.kinds.request_authentication import MAX_KEYS_CHARACTERS, RequestAuthentication, check_keys
from controller.snapshot import Changes, Snapshot
from mesh.kit.backoff import Backoff
from mesh.kit.errors import TransientError

log = logging.getLogger(__name__)

_WELL_KNOWN_PORTS = {"http": 80, "https": 443}
# Of one policy's author; a slow issuer must not keep the others waiting for longer.
MAX_TIMEOUT_SECONDS = 30.0
# URLs that are asked at once.
MAX_CONCURRENT = 8


class KeysNotFetchedError(TransientError):
    """A URL gave no keys."""

    reason = "keys_not_fetched"


@dataclass(frozen=True, slots=True)
class FetchTimes:
    """When a URL is asked again: after it gave keys (Istio's 20 minutes), and after it did not, later each time."""

    refresh_seconds: float = 1200.0
    retry_seconds: tuple[float, float] = (2.0, 120.0)


Fetch = Callable[[str, float], Awaitable[str]]
"""Keys at a URL, within so many seconds. Raises KeysNotFetchedError."""


def find_urls(snapshot: Snapshot) -> dict[str, float]:
    """All URLs that policies name, each with the seconds that it may take."""
    urls: dict[str, float] = {}
    for policy in snapshot.objects(RequestAuthentication):
        for rule in policy.spec.jwt_rules or ():
            if rule.jwks_uri:
                seconds = min(rule.timeout / 1000, MAX_TIMEOUT_SECONDS)
                urls[rule.jwks_uri] = max(seconds, urls.get(rule.jwks_uri, 0.0))
    return urls


def is_allowed(url: str, hosts: frozenset[str]) -> bool:
    """Whether `hosts` has a URL's host, and its port where that is not the scheme's own."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _WELL_KNOWN_PORTS[parts.scheme]
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{port}" in hosts or (port == _WELL_KNOWN_PORTS[parts.scheme] and host in hosts)


async def fetch_keys(session: aiohttp.ClientSession, url: str, timeout_seconds: float) -> str:
    """The keys at a URL. Raises KeysNotFetchedError."""
    try:
        timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        async with session.get(url, allow_redirects=False, timeout=timeout) as answer:
            if answer.status != 200:
                raise KeysNotFetchedError(f"answered {answer.status}")
            body = bytearray()
            async for part in answer.content.iter_any():
                body += part
                if len(body) > MAX_KEYS_CHARACTERS:
                    raise KeysNotFetchedError(f"the answer is longer than {MAX_KEYS_CHARACTERS} bytes")
        return check_keys(body.decode())
    except PydanticCustomError as error:
        raise KeysNotFetchedError(f"the answer {error.message()}") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise KeysNotFetchedError(str(error) or type(error).__name__) from error


class KeySetFile:
    """Keys that were had last, by URL, so that a controller that restarts while an issuer is away has them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, str]:
        """What was written; nothing where that is not there, or not ours."""
        try:
            document: object = json.loads(self._path.read_text(encoding="utf-8"))
            found = document if isinstance(document, dict) else {}
            return {str(url): check_keys(str(jwks)) for url, jwks in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, PydanticCustomError) as error:
            log.warning("keys that were fetched before are lost", extra={"error": error})
            return {}

    def write(self, keys: Mapping[str, str]) -> None:
        """Write them down."""
        draft = self._path.with_suffix(".new")
        try:
            draft.write_text(json.dumps(keys, indent=1), encoding="utf-8")
            os.replace(draft, self._path)
        except OSError as error:
            log.error("keys would not survive a restart", extra={"error": error})


@dataclass(slots=True)
class _Known:
    """One URL: what is published of it, and when it is asked again."""

    keys: KeySet
    due: float
    backoff: Backoff


class KeySetFetcher:
    """Keeps the KeySets of all URLs that policies name. `hosts` are those that may be asked."""

    def __init__(
        self,
        read_urls: Callable[[], Mapping[str, float]],
        publish: Callable[[Changes], None],
        file: KeySetFile,
        hosts: frozenset[str],
        times: FetchTimes | None = None,
    ) -> None:
        self._read_urls = read_urls
        self._publish = publish
        self._file = file
        self._hosts = hosts
        self._times = times or FetchTimes()
        self._known: dict[str, _Known] = {}
        self._wake = asyncio.Event()

    def note_changes(self, keys: Iterable[ObjectKey]) -> None:
        """Objects have changed; which URLs are named may have, too."""
        if any(key.group_kind == RequestAuthentication.GROUP_KIND for key in keys):
            self._wake.set()

    def load(self) -> None:
        """Publish what was had when the controller stopped. All of it is asked for again at once."""
        self._follow_urls(self._read_urls(), self._file.read())

    async def run(self, fetch: Fetch, clock: Callable[[], float]) -> None:
        """Fetch for ever."""
        while True:
            self._wake.clear()
            urls = self._read_urls()
            self._follow_urls(urls, {})
            await self._fetch_due(fetch, urls, clock)
            waiting = [each.due for each in self._known.values() if math.isfinite(each.due)]
            try:
                async with asyncio.timeout(max(0.0, min(waiting) - clock()) if waiting else None):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _follow_urls(self, urls: Mapping[str, float], kept: Mapping[str, str]) -> None:
        """Forget what is named no more, and publish that new URLs have no keys but those of `kept`."""
        changes: dict[ObjectKey, KeySet | None] = {}
        for url in self._known.keys() - urls.keys():
            changes[self._known.pop(url).keys.key] = None
        for url in urls.keys() - self._known.keys():
            is_open = is_allowed(url, self._hosts)
            problem = "not fetched yet" if is_open else "its host is not in AMBIT_JWKS_HOSTS"
            keys = build_key_set(url, kept.get(url, "") if is_open else "", problem)
            due = float("-inf") if is_open else float("inf")
            self._known[url] = _Known(keys, due, Backoff(*self._times.retry_seconds, random.random))
            changes[keys.key] = keys
            if not is_open:
                log.warning("keys are not fetched from a host that is not allowed", extra={"url": url})
        if changes:
            self._publish(changes)

    async def _fetch_due(self, fetch: Fetch, urls: Mapping[str, float], clock: Callable[[], float]) -> None:
        places = asyncio.Semaphore(MAX_CONCURRENT)

        async def fetch_one(url: str) -> None:
            async with places:
                await self._fetch_one(fetch, url, urls[url], clock)

        async with asyncio.TaskGroup() as tasks:
            for url in [url for url, known in self._known.items() if known.due <= clock()]:
                tasks.create_task(fetch_one(url), name=f"fetch keys of {url}")

    async def _fetch_one(self, fetch: Fetch, url: str, seconds: float, clock: Callable[[], float]) -> None:
        known = self._known[url]
        try:
            keys = build_key_set(url, await fetch(url, seconds))
        except KeysNotFetchedError as error:
            keys = build_key_set(url, known.keys.jwks, str(error))
            known.due = clock() + known.backoff.next_delay()
        else:
            known.backoff.reset()
            known.due = clock() + self._times.refresh_seconds
        if keys == known.keys:
            return
        if keys.problem:
            fields = {"url": url, "error": keys.problem, "earlier_keys_are_used": bool(keys.jwks)}
            log.warning("keys cannot be fetched, trying again", extra=fields)
        elif keys.jwks != known.keys.jwks:
            log.info("keys fetched", extra={"url": url})
        known.keys = keys
        self._file.write({each.keys.url: each.keys.jwks for each in self._known.values() if each.keys.jwks})
        self._publish({keys.key: keys})


def open_session() -> aiohttp.ClientSession:
    """Connections to issuers. What is compressed would have no bound: none is asked for, and none is understood."""
    return aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(), headers={"Accept-Encoding": "identity"}, auto_decompress=False
    )


async def follow_keys(fetcher: KeySetFetcher, clock: Callable[[], float]) -> None:
    """Run a fetcher for ever, with connections of its own."""
    async with open_session() as session:

        async def fetch(url: str, timeout_seconds: float) -> str:
            return await fetch_keys(session, url, timeout_seconds)

        await fetcher.run(fetch, clock)
