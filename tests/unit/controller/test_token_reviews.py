"""What a TokenReview proves, and for how long it is believed."""

import pytest

from controller.authority.token_reviews import FRESH_SECONDS, STALE_SECONDS, TokenReviews, build_review, read_review
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


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer token-1", "Basic a.b.c", f"Bearer {'a' * 5000}.b.c"])
async def test_what_is_no_token_of_kubernetes_is_not_asked_about(header: str | None) -> None:
    server = Server()
    assert await TokenReviews(server.create, (OSError,), TRUSTED).authenticate(header) is None
    assert server.asked == 0
