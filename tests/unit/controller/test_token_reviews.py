"""What a TokenReview proves, and for how long it is believed."""

import pytest

from controller.authority.token_reviews import (
    FRESH_SECONDS,
    RENEWAL_SECONDS,
    RENEWAL_TICKS,
    STALE_SECONDS,
    TokenReviews,
    build_review,
    read_review,
)
from controller.callers import AuthenticationUnavailableError
from controller.sources.documents import PlainObject

TRUSTED = frozenset({"istio-system/ztunnel"})
NODE_EXTRA = "authentication.kubernetes.io/node-name"


def answer(**changes: object) -> PlainObject:
    user = {"username": "system:serviceaccount:istio-system:ztunnel", "extra": {NODE_EXTRA: ["node-1"]}}
    return {"status": {"authenticated": True, "audiences": ["istio-ca"], "user": user} | changes}


def test_a_trusted_account_on_a_node_proves_that_node() -> None:
    assert read_review(answer(), TRUSTED) == "node-1"
    assert build_review("a.b.c")["spec"] == {"token": "a.b.c", "audiences": ["istio-ca"]}


@pytest.mark.parametrize(
    "document",
    [
        {},
        answer(authenticated=False),
        answer(authenticated="true"),
        answer(audiences=[]),
        answer(audiences=["vault"]),
        answer(user={}),
        answer(user={"username": "istio-system/ztunnel", "extra": {NODE_EXTRA: ["node-1"]}}),
        answer(user={"username": "system:serviceaccount:other:ztunnel", "extra": {NODE_EXTRA: ["node-1"]}}),
        answer(user={"username": "system:serviceaccount:istio-system:ztunnel"}),
        answer(user={"username": "system:serviceaccount:istio-system:ztunnel", "extra": {NODE_EXTRA: []}}),
    ],
)
def test_anything_else_proves_none(document: PlainObject) -> None:
    assert read_review(document, TRUSTED) is None


class Server:
    """Answers, or is away; counts what it was asked."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked = 0
        self.answer: PlainObject | None = answer()

    async def create(self, _path: str, _document: PlainObject) -> PlainObject:
        self.asked += 1
        if self.answer is None:
            raise ConnectionRefusedError
        return self.answer


async def test_an_answer_is_believed_for_a_while_and_longer_while_nobody_can_be_asked() -> None:
    server = Server()
    reviews = TokenReviews(server.create, (OSError,), TRUSTED, lambda: server.now)
    for _ in range(3):
        assert await reviews.authenticate("Bearer a.b.c") == "node-1"
    assert server.asked == 1
    server.now += FRESH_SECONDS
    server.answer = None
    assert await reviews.authenticate("Bearer a.b.c") == "node-1"
    with pytest.raises(AuthenticationUnavailableError):
        await reviews.authenticate("Bearer d.e.f")
    server.now += STALE_SECONDS
    with pytest.raises(AuthenticationUnavailableError):
        await reviews.authenticate("Bearer a.b.c")
    server.answer = answer(authenticated=False)
    assert await reviews.authenticate("Bearer a.b.c") is None
    server.answer = None
    with pytest.raises(AuthenticationUnavailableError):  # what was refused last is not believed again
        await reviews.authenticate("Bearer a.b.c")


async def test_tokens_in_use_are_asked_about_again_before_anybody_waits() -> None:
    server = Server()
    reviews = TokenReviews(server.create, (OSError,), TRUSTED, lambda: server.now)
    headers = [f"Bearer a.b.{number}" for number in range(3 * RENEWAL_TICKS)]
    for header in headers:
        assert await reviews.authenticate(header) == "node-1"
    await reviews.renew_oldest()
    assert server.asked == len(headers)  # too young
    server.now += RENEWAL_SECONDS
    for _ in range(RENEWAL_TICKS):
        await reviews.renew_oldest()
    assert server.asked == 2 * len(headers)
    server.now += FRESH_SECONDS - 1
    for header in headers:
        assert await reviews.authenticate(header) == "node-1"
    assert server.asked == 2 * len(headers)


async def test_a_token_that_was_withdrawn_is_found_out_without_anybody_showing_it() -> None:
    server = Server()
    reviews = TokenReviews(server.create, (OSError,), TRUSTED, lambda: server.now)
    assert await reviews.authenticate("Bearer a.b.c") == "node-1"
    server.now += RENEWAL_SECONDS
    server.answer = answer(authenticated=False)
    await reviews.renew_oldest()
    server.answer = None
    with pytest.raises(AuthenticationUnavailableError):
        await reviews.authenticate("Bearer a.b.c")


async def test_who_cannot_be_asked_again_and_what_nobody_shows_any_more() -> None:
    server = Server()
    reviews = TokenReviews(server.create, (OSError,), TRUSTED, lambda: server.now)
    assert await reviews.authenticate("Bearer a.b.c") == "node-1"
    server.now += RENEWAL_SECONDS
    server.answer = None
    await reviews.renew_oldest()
    assert await reviews.authenticate("Bearer a.b.c") == "node-1"
    server.now += STALE_SECONDS
    server.answer, asked = answer(), server.asked
    await reviews.renew_oldest()
    assert server.asked == asked


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer token-1", "Basic a.b.c", f"Bearer {'a' * 5000}.b.c"])
async def test_what_is_no_token_of_kubernetes_is_not_asked_about(header: str | None) -> None:
    server = Server()
    assert await TokenReviews(server.create, (OSError,), TRUSTED).authenticate(header) is None
    assert server.asked == 0
