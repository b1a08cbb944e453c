"""Keys that are fetched: from whom, what is made of an answer, when it is asked again, and what a restart keeps."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.kinds.key_set import KeySet
from controller.kinds.meta import KubernetesObject, ObjectKey
from controller.kinds.request_authentication import MAX_KEYS_CHARACTERS
from controller.snapshot import Changes
from controller.sources.key_sets import (
    FetchTimes,
    KeySetFetcher,
    KeySetFile,
    KeysNotFetchedError,
    fetch_keys,
    find_urls,
    is_allowed,
    open_session,
)
from tests.support.objects import build_snapshot, parse
from tests.support.tokens import KeyServer, serve_keys

KEYS, OTHERS = '{"keys": [{"kty": "EC"}]}', '{"keys": [{"kty": "RSA"}]}'
A, B = "https://a.test/keys", "https://b.test/keys"
HOSTS = frozenset({"a.test", "b.test"})


def authentication(*rules: str, name: str = "p") -> KubernetesObject:
    spec = f"{{targetRefs: [{{kind: Service, name: s}}], jwtRules: [{', '.join(rules)}]}}"
    return parse(
        f"{{apiVersion: security.istio.io/v1, kind: RequestAuthentication, metadata: {{name: {name}}}, spec: {spec}}}"
    )


def test_urls_are_those_of_all_rules_with_the_longest_of_their_timeouts() -> None:
    first = authentication(f"{{issuer: x, jwksUri: '{A}'}}", f"{{issuer: y, jwks: '{KEYS}'}}")
    second = authentication(
        f"{{issuer: x, jwksUri: '{A}', timeout: 7s}}", f"{{issuer: y, jwksUri: '{B}', timeout: 1h}}", name="q"
    )
    assert find_urls(build_snapshot(first, second)) == {A: 7.0, B: 30.0}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.test/keys", True),
        ("https://A.test:443/", True),
        ("http://a.test/keys", True),
        ("http://a.test:8080/keys", False),
        ("http://a.test:443/keys", False),
        ("https://b.test:8443/keys", True),
        ("https://b.test/keys", False),
        ("https://a.test.evil/keys", False),
        ("https://sub.a.test/keys", False),
        ("https://127.0.0.1/keys", False),
        ("https://[::1]:8443/keys", True),
    ],
)
def test_only_hosts_of_the_list_are_asked(url: str, expected: bool) -> None:
    assert is_allowed(url, frozenset({"a.test", "b.test:8443", "[::1]:8443"})) is expected


@pytest.fixture
def server() -> Iterator[KeyServer]:
    with serve_keys(KEYS) as told:
        yield told


async def fetch(url: str) -> str:
    async with open_session() as session:
        return await fetch_keys(session, url, 5.0)


async def test_an_answer_with_keys_is_taken_as_it_is(server: KeyServer) -> None:
    assert await fetch(server.url) == KEYS


async def test_what_is_no_answer_with_keys_says_why(server: KeyServer) -> None:
    for body, why in (
        ("<html>", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("{}", "is no set of keys"),
        ("x" * (MAX_KEYS_CHARACTERS + 1), "longer than"),
    ):
        server.body = body
        with pytest.raises(KeysNotFetchedError, match=why):
            await fetch(server.url)
    server.status = 500
    with pytest.raises(KeysNotFetchedError, match="answered 500"):
        await fetch(server.url)
    with pytest.raises(KeysNotFetchedError, match="Cannot connect"):
        await fetch("http://127.0.0.1:1/")


async def test_an_answer_is_not_unpacked(server: KeyServer) -> None:
    server.encoding = "gzip"
    assert await fetch(server.url) == KEYS


async def test_a_redirect_is_not_followed(server: KeyServer) -> None:
    with serve_keys("{}") as first:
        first.status, first.location = 302, server.url
        with pytest.raises(KeysNotFetchedError, match="answered 302"):
            await fetch(first.url)
    assert server.asked == 0


class World:
    """A fetcher, what it published, and issuers that answer as a test says. Time passes when the test lets it."""

    def __init__(self, path: Path, hosts: frozenset[str] = HOSTS) -> None:
        self.urls = {A: 5.0}
        self.answers: dict[str, str] = {}
        self.asked: list[str] = []
        self.published: dict[str, KeySet] = {}
        self.now = 1000.0
        times = FetchTimes(refresh_seconds=1200.0, retry_seconds=(2.0, 120.0))
        self.fetcher = KeySetFetcher(lambda: self.urls, self.publish, KeySetFile(path / "keys.json"), hosts, times)

    def publish(self, changes: Changes) -> None:
        for key, value in changes.items():
            self.published = {url: each for url, each in self.published.items() if each.key != key}
            if isinstance(value, KeySet):
                self.published[value.url] = value

    async def fetch(self, url: str, _: float) -> str:
        self.asked.append(url)
        if url not in self.answers:
            raise KeysNotFetchedError("is away")
        return self.answers[url]

    async def run_once(self) -> None:
        """One round: whoever is due is asked."""
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(self.fetcher.run(self.fetch, lambda: self.now))
            await settle()
            running.cancel()


async def settle() -> None:
    """Let all tasks go on as far as they can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_keys_are_asked_for_again_when_they_are_old_and_sooner_when_there_are_none(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.run_once()
    assert (world.asked, world.published[A].jwks, world.published[A].problem) == ([A], "", "is away")
    await world.run_once()
    assert world.asked == [A]
    world.answers[A] = KEYS
    world.now += 3.0
    await world.run_once()
    assert (world.asked, world.published[A].jwks, world.published[A].problem) == ([A, A], KEYS, "")
    world.now += 1199.0
    await world.run_once()
    assert len(world.asked) == 2
    world.answers[A], world.now = OTHERS, world.now + 1.0
    await world.run_once()
    assert world.published[A].jwks == OTHERS
    del world.answers[A]
    world.now += 1200.0
    await world.run_once()
    assert (world.published[A].jwks, world.published[A].problem) == (OTHERS, "is away")


async def test_urls_come_and_go_with_the_policies(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.answers = {A: KEYS, B: OTHERS}
    await world.run_once()
    world.urls = {B: 5.0}
    await world.run_once()
    assert {url: each.jwks for url, each in world.published.items()} == {B: OTHERS}
    assert world.asked == [A, B]


async def test_a_restart_keeps_what_was_had_and_asks_at_once(tmp_path: Path) -> None:
    first = World(tmp_path)
    first.answers[A] = KEYS
    await first.run_once()
    second = World(tmp_path)
    second.urls = {A: 5.0, B: 5.0}
    second.fetcher.load()
    assert {url: each.jwks for url, each in second.published.items()} == {A: KEYS, B: ""}
    await second.run_once()
    assert sorted(second.asked) == [A, B]
    assert second.published[A].jwks == KEYS


@pytest.mark.parametrize("text", ["", "{", "[]", '{"https://a.test/keys": "{}"}', '{"https://a.test/keys": 1}'])
async def test_a_file_that_is_not_ours_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys.json").write_text(text)
    world = World(tmp_path)
    world.fetcher.load()
    assert world.published[A].jwks == ""


async def test_a_host_that_is_not_allowed_is_never_asked_and_its_earlier_keys_are_not_used(tmp_path: Path) -> None:
    first = World(tmp_path)
    first.answers[A] = KEYS
    await first.run_once()
    world = World(tmp_path, frozenset({"b.test"}))
    world.fetcher.load()
    await world.run_once()
    assert (world.asked, world.published[A].jwks) == ([], "")
    assert "AMBIT_JWKS_HOSTS" in world.published[A].problem


async def test_a_policy_that_changes_wakes_the_fetcher_and_nothing_else_does(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.answers = {A: KEYS, B: KEYS}
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(world.fetcher.run(world.fetch, lambda: world.now))
        await settle()
        world.urls = {A: 5.0, B: 5.0}
        world.fetcher.note_changes([ObjectKey("", "Pod", "demo", "p"), world.published[A].key])
        await settle()
        assert world.asked == [A]
        world.fetcher.note_changes([ObjectKey("security.istio.io", "RequestAuthentication", "demo", "p")])
        await settle()
        assert world.asked == [A, B]
        running.cancel()
