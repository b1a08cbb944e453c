"""When certificates are fetched: ztunnel.identities.RenewalSchedule."""

import math

import pytest

from ztunnel.identities import FIRST_RETRY_SECONDS, MAX_FETCHES, RETRY_CAP_SECONDS, RenewalSchedule

A = "spiffe://cluster.local/ns/a/sa/a"
B = "spiffe://cluster.local/ns/b/sa/b"
C = "spiffe://cluster.local/ns/c/sa/c"


def schedule() -> RenewalSchedule:
    return RenewalSchedule(random=lambda: 0.5)


def fail(due: RenewalSchedule, identity: str, times: int) -> float:
    """Let it fail so often, at 0; returns the last delay."""
    return [due.failed(identity, now=0, remaining=None) for _ in range(times)][-1]


def test_a_wanted_identity_is_due_at_once_and_only_once() -> None:
    due = schedule()
    due.want(A, now=100, for_traffic=False)
    assert due.take_due(now=100) == [A]
    due.want(A, now=100, for_traffic=True)
    assert due.take_due(now=100) == [], "it is being fetched"


def test_traffic_comes_before_pods_and_pods_before_renewals() -> None:
    due = schedule()
    due.fetched(A, now=0, remaining=10, lifetime=10)
    due.want(B, now=50, for_traffic=False)
    due.want(C, now=51, for_traffic=True)
    assert due.take_due(now=60) == [C, B, A]


def test_a_pod_that_traffic_comes_to_is_fetched_before_others() -> None:
    due = schedule()
    for identity in (A, B):
        due.want(identity, now=0, for_traffic=False)
    due.want(B, now=1, for_traffic=True)
    assert due.take_due(now=1) == [B, A]


def test_no_more_than_eight_are_fetched_at_once() -> None:
    due = schedule()
    identities = [f"spiffe://cluster.local/ns/a/sa/{number:02}" for number in range(MAX_FETCHES + 2)]
    for identity in identities:
        due.want(identity, now=0, for_traffic=False)
    assert due.take_due(now=0) == identities[:MAX_FETCHES]
    assert due.seconds_until_next(now=0) == math.inf, "only an event makes room"
    assert due.take_due(now=0) == []
    due.fetched(identities[0], now=0, remaining=10, lifetime=100)
    assert due.take_due(now=0) == [identities[MAX_FETCHES]]
    due.failed(identities[1], now=0, remaining=None)
    assert due.take_due(now=0) == [identities[MAX_FETCHES + 1]]


def test_a_certificate_is_renewed_at_half_of_what_remains() -> None:
    due = schedule()
    due.fetched(A, now=100, remaining=86_400, lifetime=86_400 + 120)
    assert due.seconds_until_next(now=100) == 43_200
    assert due.take_due(now=100 + 43_199) == []
    assert due.take_due(now=100 + 43_200) == [A]


@pytest.mark.parametrize(
    ("remaining", "wait"),
    [
        pytest.param(400, 200, id="our-clock-is-ahead"),
        pytest.param(0.5, FIRST_RETRY_SECONDS, id="it-is-almost-over"),
        pytest.param(100_000, 500, id="our-clock-is-behind"),
    ],
)
def test_clocks_that_disagree_neither_flood_the_authority_nor_put_renewal_off(remaining: float, wait: float) -> None:
    due = schedule()
    due.fetched(A, now=0, remaining=remaining, lifetime=1000)
    assert due.seconds_until_next(now=0) == wait


def test_failures_are_retried_with_growing_delays_up_to_the_cap() -> None:
    due = schedule()
    delays = [fail(due, A, 1) for _ in range(8)]
    assert delays[:3] == [FIRST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2, FIRST_RETRY_SECONDS * 4]
    assert max(delays) == RETRY_CAP_SECONDS


def test_a_success_ends_the_growing_of_delays() -> None:
    due = schedule()
    fail(due, A, 2)
    due.fetched(A, now=0, remaining=10, lifetime=10)
    assert fail(due, A, 1) == FIRST_RETRY_SECONDS


def test_traffic_shortens_a_delay_to_the_first_one() -> None:
    due = schedule()
    assert fail(due, A, 8) == RETRY_CAP_SECONDS
    due.want(A, now=0.25, for_traffic=True)
    assert due.take_due(now=FIRST_RETRY_SECONDS - 0.1) == [], "every connection of an outage would be a request"
    assert due.take_due(now=FIRST_RETRY_SECONDS) == [A]


def test_a_pod_shortens_no_delay() -> None:
    due = schedule()
    fail(due, A, 8)
    due.want(A, now=0, for_traffic=False)
    assert due.seconds_until_next(now=0) == RETRY_CAP_SECONDS


def test_a_valid_certificate_is_retried_before_its_end() -> None:
    due = schedule()
    fail(due, A, 6)
    assert due.failed(A, now=0, remaining=5) == 5
    assert due.failed(A, now=0, remaining=-3) == FIRST_RETRY_SECONDS
    assert due.failed(A, now=0, remaining=10_000) == RETRY_CAP_SECONDS


def test_an_identity_that_has_left_is_forgotten() -> None:
    due = schedule()
    fail(due, A, 5)
    due.discarded(A)
    assert due.seconds_until_next(now=0) == math.inf
    assert fail(due, A, 1) == FIRST_RETRY_SECONDS


def test_identities_do_not_wait_for_each_other() -> None:
    due = schedule()
    fail(due, A, 1)
    due.want(B, now=0, for_traffic=False)
    assert due.take_due(now=0) == [B]
    assert due.take_due(now=FIRST_RETRY_SECONDS) == [A]


def test_nothing_is_due_when_nothing_was_wanted() -> None:
    assert schedule().seconds_until_next(now=0) == math.inf
