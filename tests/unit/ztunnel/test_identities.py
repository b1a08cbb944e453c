"""When certificates are fetched: ztunnel.identities.RenewalSchedule."""

import math

from ztunnel.identities import FIRST_RETRY_SECONDS, RETRY_CAP_SECONDS, RenewalSchedule

A = "spiffe://cluster.local/ns/a/sa/a"
B = "spiffe://cluster.local/ns/b/sa/b"


def schedule() -> RenewalSchedule:
    return RenewalSchedule(random=lambda: 0.5)


def test_a_wanted_identity_is_due_at_once_and_only_once() -> None:
    due = schedule()
    due.want(A, now=100)
    assert due.take_due(now=100) == [A]
    assert due.take_due(now=100) == []


def test_a_certificate_is_renewed_at_half_of_its_lifetime() -> None:
    due = schedule()
    due.fetched(A, not_before=0, not_after=86_400)
    assert due.take_due(now=43_199) == []
    assert due.seconds_until_next(now=43_199) == 1
    assert due.take_due(now=43_200) == [A]


def test_failures_are_retried_with_growing_delays_up_to_the_cap() -> None:
    due = schedule()
    delays = [due.failed(A, now=0) for _ in range(8)]
    assert delays[:3] == [FIRST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2, FIRST_RETRY_SECONDS * 4]
    assert max(delays) == RETRY_CAP_SECONDS


def test_a_success_ends_the_growing_of_delays() -> None:
    due = schedule()
    due.failed(A, now=0)
    due.failed(A, now=0)
    due.fetched(A, not_before=0, not_after=10)
    assert due.failed(A, now=5) == FIRST_RETRY_SECONDS


def test_identities_do_not_wait_for_each_other() -> None:
    due = schedule()
    due.failed(A, now=0)
    due.want(B, now=0)
    assert due.take_due(now=0) == [B]
    assert due.take_due(now=FIRST_RETRY_SECONDS) == [A]


def test_nothing_is_due_when_nothing_was_wanted() -> None:
    assert schedule().seconds_until_next(now=0) == math.inf
