"""The delta xDS dialogue, message by message, without sockets and with the clock in the test's hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.serve.resources import (
    ADDRESS_TYPE,
    AUTHORIZATION_TYPE,
    CLUSTER_TYPE,
    Resource,
    build_resource,
)
from controller.serve.session import (
    MAX_TYPES,
    ProtocolViolationError,
    RequestOutcome,
    Session,
)
from controller.serve.subscriptions import MAX_NAMES, TooManyNamesError
from controller.serve.wire import DeltaRequest, parse_request
from mesh.kit.errors import InvalidInputError, UnknownSummaryError
from mesh.wire.workload_pb2 import Address, Workload
from tests.support.dialogue import LIMITS, ZTUNNEL, Dialogue, Sent, resource


@pytest.fixture
def dialogue() -> Dialogue:
    return Dialogue()


def test_first_answer_comes_even_when_there_is_nothing(dialogue: Dialogue) -> None:
    dialogue.send()
    sent = dialogue.expect_and_acknowledge()
    assert (sent.type_url, sent.versions, sent.removed) == (ADDRESS_TYPE, {}, [])
    assert dialogue.receive() is None


def test_wildcard_gets_everything_then_changes_then_removals(dialogue: Dialogue) -> None:
    dialogue.publish(resource("a"), resource("b"))
    dialogue.send()
    assert set(dialogue.expect_and_acknowledge().versions) == {"a", "b"}
    dialogue.publish(resource("a", "2"), resource("b"), resource("c"))
    changed = dialogue.expect_and_acknowledge()
    assert changed.contents == {"a": "2", "c": "1"}
    assert changed.version == "2"
    dialogue.publish(removed=["a", "never-there"])
    assert dialogue.expect_and_acknowledge().removed == ["a"]
    assert dialogue.receive() is None


def test_star_is_the_wildcard_by_name(dialogue: Dialogue) -> None:
    dialogue.publish(resource("a"))
    dialogue.send(subscribe=["*"])
    assert set(dialogue.expect_and_acknowledge().versions) == {"a"}
    dialogue.publish(resource("b"))
    assert set(dialogue.expect_and_acknowledge().versions) == {"b"}


def test_slow_client_gets_the_latest_state_once(dialogue: Dialogue) -> None:
    dialogue.send()
    first = dialogue.expect()
    for content in "12345":
        dialogue.publish(resource("a", content), resource("b", content))
    dialogue.publish(removed=["b"])
    assert dialogue.receive() is None, "one response of a type is in flight at a time"
    dialogue.send(nonce=first.nonce)
    latest = dialogue.expect_and_acknowledge()
    assert (latest.contents, latest.removed) == ({"a": "5"}, ["b"])
    assert dialogue.receive() is None


def test_client_that_never_answers_is_sent_to_again_after_a_while(dialogue: Dialogue) -> None:
    dialogue.send()
    dialogue.expect()
    dialogue.publish(resource("a"))
    assert dialogue.receive() is None
    assert dialogue.session.next_deadline(dialogue.now + 2) == dialogue.now + LIMITS.ack_timeout_seconds
    dialogue.now += LIMITS.ack_timeout_seconds
    assert set(dialogue.expect_and_acknowledge().versions) == {"a"}


def test_refused_response_is_not_repeated_and_the_next_change_is_sent(dialogue: Dialogue) -> None:
    dialogue.publish(resource("a", "bad"))
    dialogue.send()
    sent = dialogue.expect()
    assert dialogue.send(nonce=sent.nonce, error="no") is RequestOutcome.NACK
    state = dialogue.session.types[ADDRESS_TYPE]
    assert (state.nacks, state.last_error, state.acked_version) == (1, "no", 0)
    assert dialogue.receive() is None
    dialogue.publish(resource("a", "good"))
    assert dialogue.expect_and_acknowledge().contents == {"a": "good"}
    assert (state.last_error, state.acked_version) == ("", 2)


def test_answer_to_an_older_response_is_ignored(dialogue: Dialogue) -> None:
    dialogue.send()
    first = dialogue.expect_and_acknowledge()
    dialogue.publish(resource("a"))
    second = dialogue.expect()
    assert dialogue.send(nonce=first.nonce) is RequestOutcome.STALE
    assert dialogue.send(nonce=first.nonce, error="late") is RequestOutcome.STALE
    dialogue.publish(resource("b"))
    assert dialogue.receive() is None
    assert dialogue.session.types[ADDRESS_TYPE].nacks == 0
    assert dialogue.send(nonce=second.nonce) is RequestOutcome.ACK


def test_returning_client_gets_only_what_differs_from_what_it_has(dialogue: Dialogue) -> None:
    dialogue.publish(resource("a"), resource("b"), resource("c"))
    dialogue.send()
    known = dialogue.expect_and_acknowledge().versions
    dialogue.reconnect()
    dialogue.publish(resource("b", "2"), resource("d"), removed=["c"])
    assert dialogue.send(versions=known) is RequestOutcome.RESUMED
    sent = dialogue.expect_and_acknowledge()
    assert (sent.contents, sent.removed) == ({"b": "2", "d": "1"}, ["c"])


def test_returning_client_that_missed_nothing_gets_an_empty_answer(dialogue: Dialogue) -> None:
    dialogue.publish(resource("a"))
    dialogue.send()
    known = dialogue.expect_and_acknowledge().versions
    dialogue.reconnect()
    dialogue.send(versions=known)
    sent = dialogue.expect_and_acknowledge()
    assert (sent.versions, sent.removed) == ({}, [])


def test_returning_client_that_sums_up_gets_what_has_changed_since(dialogue: Dialogue) -> None:
    dialogue.publish(resource("a"), resource("b"))
    summary = dialogue.tables[ADDRESS_TYPE].summary
    dialogue.publish(resource("b", "2"), resource("c"))
    dialogue.publish(removed=["a"])
    dialogue.reconnect()
    assert dialogue.send(summary=summary) is RequestOutcome.RESUMED
    sent = dialogue.expect_and_acknowledge()
    assert (sorted(sent.versions), sent.removed) == (["b", "c"], ["a"])
    dialogue.publish(resource("d"))
    assert list(dialogue.expect_and_acknowledge().versions) == ["d"]


def test_returning_client_that_has_everything_is_answered_with_nothing(dialogue: Dialogue) -> None:
    dialogue.publish(resource("a"))
    dialogue.send(summary=dialogue.tables[ADDRESS_TYPE].summary)
    sent = dialogue.expect_and_acknowledge()
    assert (sent.versions, sent.removed) == ({}, [])


@pytest.mark.parametrize(
    ("type_url", "subscribe"), [(ADDRESS_TYPE, []), (ADDRESS_TYPE, ["a"]), ("unknown", []), (CLUSTER_TYPE, [])]
)
def test_a_summary_that_nobody_knows_is_refused(dialogue: Dialogue, type_url: str, subscribe: list[str]) -> None:
    dialogue.publish(resource("a"))
    with pytest.raises(UnknownSummaryError, match="list the versions"):
        dialogue.send(type_url, subscribe=subscribe, summary=12345)


def test_version_depends_on_content_alone() -> None:
    versions = set()
    for names in (["demo/a", "demo/b", "demo/c"], ["demo/c", "demo/a", "demo/b"]):
        message = Workload(uid="uid")
        for name in names:
            message.services[name].ports.add(service_port=80)
        versions.add(build_resource(ADDRESS_TYPE, "uid", Address(workload=message)).version)
    assert len(versions) == 1
    assert resource("a").version != resource("a", "2").version


# Order between types


def policy(name: str, content: str = "1") -> Resource:
    return resource(name, content)


def test_policy_goes_out_before_the_workload_that_lists_it(dialogue: Dialogue) -> None:
    dialogue.send()
    dialogue.send(AUTHORIZATION_TYPE)
    assert dialogue.expect_and_acknowledge().type_url == AUTHORIZATION_TYPE
    assert dialogue.expect_and_acknowledge().type_url == ADDRESS_TYPE
    dialogue.publish(policy("p"), type_url=AUTHORIZATION_TYPE)
    dialogue.publish(resource("a"))
    assert dialogue.expect_and_acknowledge().type_url == AUTHORIZATION_TYPE
    assert dialogue.expect_and_acknowledge().type_url == ADDRESS_TYPE


def test_policy_ends_after_the_workload_that_listed_it_is_acknowledged(dialogue: Dialogue) -> None:
    dialogue.publish(policy("p"), type_url=AUTHORIZATION_TYPE)
    dialogue.send(AUTHORIZATION_TYPE)
    dialogue.send()
    dialogue.expect_and_acknowledge()
    dialogue.expect_and_acknowledge()
    dialogue.publish(removed=["p"], type_url=AUTHORIZATION_TYPE)
    dialogue.publish(resource("a", "2"))
    address = dialogue.expect()
    assert address.type_url == ADDRESS_TYPE
    assert dialogue.receive() is None
    dialogue.send(nonce=address.nonce)
    ending = dialogue.expect_and_acknowledge()
    assert (ending.type_url, ending.removed) == (AUTHORIZATION_TYPE, ["p"])


def test_addresses_wait_while_a_new_policy_cannot_go_out_yet(dialogue: Dialogue) -> None:
    dialogue.send(AUTHORIZATION_TYPE)
    dialogue.send()
    first = dialogue.expect()
    dialogue.expect_and_acknowledge()
    dialogue.publish(policy("p"), type_url=AUTHORIZATION_TYPE)
    dialogue.publish(resource("a"))
    assert dialogue.receive() is None
    dialogue.send(AUTHORIZATION_TYPE, nonce=first.nonce)
    assert dialogue.expect().type_url == AUTHORIZATION_TYPE
    assert dialogue.expect().type_url == ADDRESS_TYPE


def test_first_addresses_of_a_ztunnel_wait_for_its_policies_but_not_for_ever() -> None:
    dialogue = Dialogue(ZTUNNEL)
    dialogue.send()
    assert dialogue.receive() is None
    assert dialogue.session.next_deadline(dialogue.now) == dialogue.now + LIMITS.policy_wait_seconds
    dialogue.now += LIMITS.policy_wait_seconds
    assert dialogue.expect().type_url == ADDRESS_TYPE


def test_ztunnel_that_asks_for_both_gets_policies_first() -> None:
    dialogue = Dialogue(ZTUNNEL)
    dialogue.send()
    dialogue.send(AUTHORIZATION_TYPE)
    assert [dialogue.expect().type_url for _ in range(2)] == [AUTHORIZATION_TYPE, ADDRESS_TYPE]


# Bad manners


def test_unknown_type_is_answered_as_empty(dialogue: Dialogue) -> None:
    dialogue.send("type.googleapis.com/envoy.config.cluster.v3.Cluster", subscribe=["x"])
    sent = dialogue.expect_and_acknowledge()
    assert sent.type_url == "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    assert (sent.versions, sent.removed) == ({}, ["x"])


def test_first_request_without_node_is_refused() -> None:
    with pytest.raises(ProtocolViolationError, match="node"):
        Session({}, LIMITS).receive(DeltaRequest(ADDRESS_TYPE), 0)


def test_types_and_names_are_bounded(dialogue: Dialogue) -> None:
    for number in range(MAX_TYPES):
        dialogue.send(f"type-{number}")
    with pytest.raises(ProtocolViolationError):
        dialogue.send("one-more")
    with pytest.raises(TooManyNamesError):
        dialogue.send("type-0", subscribe=[str(number) for number in range(MAX_NAMES + 1)])


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    try:
        request = parse_request(data)
        Session({}, LIMITS).receive(request, 0)
    except (InvalidInputError, ProtocolViolationError):
        pass


# Whatever happens, the client ends up with what there is


_step = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("abc"), st.sampled_from("12")),
    st.tuples(st.just("remove"), st.sampled_from("abc"), st.just("")),
    st.tuples(st.sampled_from(["read", "ack", "nack", "reconnect", "wait"]), st.just(""), st.just("")),
)


@given(st.lists(_step, max_size=40), st.sampled_from(["wildcard", "explicit"]))
def test_client_always_arrives_at_the_present_state(steps: list[tuple[str, str, str]], kind: str) -> None:
    dialogue, held = Dialogue(), dict[str, tuple[str, str]]()
    subscribe = [] if kind == "wildcard" else ["a", "b", "key-c"]
    unread: list[Sent] = []

    def read() -> bool:
        sent = dialogue.receive()
        if sent is None:
            return False
        for name, version in sent.versions.items():
            held[name] = (version, sent.contents[name])
        for name in sent.removed:
            held.pop(name, None)
        unread.append(sent)
        return True

    def connect() -> None:
        unread.clear()
        dialogue.reconnect()
        dialogue.send(subscribe=subscribe, versions={name: version for name, (version, _) in held.items()})

    connect()
    for action, name, content in steps:
        match action:
            case "put":
                dialogue.publish(resource(name, content, keys=(f"key-{name}",)))
            case "remove":
                dialogue.publish(removed=[name])
            case "read":
                read()
            case "reconnect":
                connect()
            case "wait":
                dialogue.now += LIMITS.ack_timeout_seconds
            case _ if unread:
                sent = unread.pop(0)
                dialogue.send(nonce=sent.nonce, error="no" if action == "nack" else None)
    for _ in range(5):
        dialogue.now += LIMITS.ack_timeout_seconds
        read()
    table = dialogue.tables[ADDRESS_TYPE]
    assert {name: version for name, (version, _) in held.items()} == {
        name: table.version(name) for name in table.names()
    }
    assert not read()


def test_whoever_comes_with_nothing_gets_all_that_was_put_together_once(dialogue: Dialogue) -> None:
    dialogue.publish(resource("a"), resource("b"))
    table = dialogue.tables[ADDRESS_TYPE]
    dialogue.send()
    first = table.framed
    assert set(dialogue.expect_and_acknowledge().versions) == {"a", "b"}
    dialogue.reconnect()
    dialogue.send()
    assert table.framed is first
    assert set(dialogue.expect_and_acknowledge().versions) == {"a", "b"}
    assert dialogue.receive() is None
    dialogue.publish(resource("b", "2"), removed=["a"])
    sent = dialogue.expect_and_acknowledge()
    assert (sent.contents, sent.removed) == ({"b": "2"}, ["a"])


def test_what_changes_before_the_first_answer_is_in_it_once(dialogue: Dialogue) -> None:
    dialogue.publish(resource("a"), resource("b"))
    dialogue.send()
    dialogue.publish(resource("a", "2"), removed=["b"])
    sent = dialogue.expect_and_acknowledge()
    assert (sent.contents, sent.removed) == ({"a": "2"}, [])
    assert dialogue.receive() is None
