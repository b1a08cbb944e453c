"""Which node is calling: Kubernetes service account tokens, which the API server is asked about (TokenReview).

A node's agent sends the token that kubelet mounted into its pod. It proves a node when it is of a trusted service
account and bound to a pod there; the API server says which node that is (Kubernetes 1.30 and later; controlplane.md 8).
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from typing import cast

from controller.callers import AuthenticationUnavailableError, read_bearer
from controller.sources.documents import PlainObject

log = logging.getLogger(__name__)

AUDIENCE = "istio-ca"
PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCOUNT_PREFIX = "system:serviceaccount:"
NODE_EXTRA = "authentication.kubernetes.io/node-name"
# An answer counts this long, and while the API server cannot be asked as long as a token usually lives.
FRESH_SECONDS, STALE_SECONDS = 60.0, 3600.0
# From this age on an answer is renewed while nobody waits for it, a part of them each second: agents come all at once
# when a controller starts, and are spread over the seconds that are left.
RENEWAL_SECONDS, RENEWAL_TICK_SECONDS, RENEWAL_TICKS = 30.0, 1.0, 20
# Far more than the agents of any cluster; what strangers send is not remembered.
MAX_REMEMBERED = 20_000
MAX_AT_ONCE = 8

Create = Callable[[str, PlainObject], Awaitable[PlainObject]]
"""From a path and an object to the object that the API server made of it."""


@dataclass(slots=True)
class _Known:
    """What was said of a token, and when; and when somebody last showed it."""

    token: str = field(repr=False)
    node: str
    at: float
    shown_at: float


class TokenReviews:
    """Service account tokens of `trusted` accounts (`NAMESPACE/NAME`). `failures` are what `create` raises."""

    def __init__(
        self,
        create: Create,
        failures: tuple[type[Exception], ...],
        trusted: Collection[str],
        read_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._create = create
        self._failures = failures
        self._trusted = trusted
        self._read_clock = read_clock
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._free = asyncio.Semaphore(MAX_AT_ONCE)

    async def authenticate(self, header: str | None) -> str | None:
        """The node that an `authorization` header proves, or None. Raises AuthenticationUnavailableError."""
        token = _read_token(header)
        if token is None:
            return None
        known = self._find_shown(token)
        if known and self._is_fresh(known):
            return known.node
        try:
            return await self._review(token, self._read_clock())
        except self._failures as error:
            if known and self._read_clock() - known.at < STALE_SECONDS:
                return known.node
            raise AuthenticationUnavailableError(f"the Kubernetes API server cannot be asked: {error}") from error

    def recall(self, header: str | None) -> str | None:
        """The node that an `authorization` header proves, by an answer that still counts; None where there is none."""
        token = _read_token(header)
        known = self._find_shown(token) if token is not None else None
        return known.node if known and self._is_fresh(known) else None

    async def renew(self) -> None:
        """Ask again about tokens in use, for ever.

        A token is looked at whenever something is sent to its agent: a change would wait in all streams at once for the
        API server, if it was the first in a minute.
        """
        while True:
            await asyncio.sleep(RENEWAL_TICK_SECONDS)
            await self.renew_oldest()

    async def renew_oldest(self) -> None:
        """Ask again about a part of what was said longest ago; forget what nobody has shown for long."""
        for known in list(islice(self._known.values(), -(-len(self._known) // RENEWAL_TICKS))):
            now = self._read_clock()
            if now - known.at < RENEWAL_SECONDS:
                return
            if now - known.shown_at >= STALE_SECONDS:
                self._known.pop(sha256(known.token.encode()).digest(), None)
                continue
            try:
                await self._review(known.token, known.shown_at)
            except self._failures:
                return  # what was said stands for a while, and whoever shows the token asks again

    async def _review(self, token: str, shown_at: float) -> str | None:
        """Ask about a token, and remember the answer. Raises one of the failures."""
        async with self._free:
            document = await self._create(PATH, build_review(token))
        node = read_review(document, self._trusted)
        digest = sha256(token.encode()).digest()
        self._known.pop(digest, None)
        if node is not None:
            self._known[digest] = _Known(token, node, self._read_clock(), shown_at)
            if len(self._known) > MAX_REMEMBERED:
                self._known.popitem(last=False)
        return node

    def _find_shown(self, token: str) -> _Known | None:
        """What is known of a token that somebody shows now."""
        known = self._known.get(sha256(token.encode()).digest())
        if known:
            known.shown_at = self._read_clock()
        return known

    def _is_fresh(self, known: _Known) -> bool:
        return self._read_clock() - known.at < FRESH_SECONDS


def _read_token(header: str | None) -> str | None:
    """The token of a header, where it can be a JWT."""
    token = read_bearer(header)
    return token if token is not None and token.count(".") == 2 else None


def build_review(token: str) -> PlainObject:
    """The question."""
    spec = {"token": token, "audiences": [AUDIENCE]}
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}


def read_review(document: PlainObject, trusted: Collection[str]) -> str | None:
    """The node that an answered TokenReview proves, or None; why a valid token proves none is logged."""
    status = cast(Mapping[str, object], document.get("status") or {})
    if status.get("authenticated") is not True or AUDIENCE not in cast(Sequence[str], status.get("audiences") or ()):
        return None
    user = cast(Mapping[str, object], status.get("user") or {})
    name = str(user.get("username") or "")
    account = name.removeprefix(ACCOUNT_PREFIX).replace(":", "/", 1)
    if not name.startswith(ACCOUNT_PREFIX) or account not in trusted:
        log.warning("token of an account that speaks for no node", extra={"user": name, "trusted": sorted(trusted)})
        return None
    extra = cast(Mapping[str, Sequence[str]], user.get("extra") or {})
    (node, *_) = extra.get(NODE_EXTRA) or ("",)
    if not node:
        log.warning("token is bound to no pod on a node: mount it by a projected volume", extra={"user": name})
        return None
    return node
