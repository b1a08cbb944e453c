"""Identities parse exactly, or not at all."""

import contextlib
import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.identity import InvalidIdentityError, SpiffeIdentity

part = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=63)


@given(part, part, part)
def test_uri_of_an_identity_parses_back_to_it(trust_domain: str, namespace: str, service_account: str) -> None:
    identity = SpiffeIdentity(trust_domain, namespace, service_account)
    assert SpiffeIdentity.parse(str(identity)) == identity
    assert hash(SpiffeIdentity.parse(str(identity))) == hash(identity)


@given(st.text(max_size=200))
def test_any_text_parses_or_is_refused_and_never_changes(text: str) -> None:
    for candidate in (text, "spiffe://" + text):
        with contextlib.suppress(InvalidIdentityError):
            assert str(SpiffeIdentity.parse(candidate)) == candidate


@pytest.mark.parametrize(
    "uri",
    [
        pytest.param("", id="empty"),
        pytest.param("spiffe://td/ns/a/sa/b/", id="trailing-slash"),
        pytest.param("spiffe://td/ns/a/sa/", id="empty-service-account"),
        pytest.param("spiffe://td/ns//sa/b", id="empty-namespace"),
        pytest.param("spiffe:///ns/a/sa/b", id="empty-trust-domain"),
        pytest.param("spiffe://td/sa/a/ns/b", id="swapped"),
        pytest.param("spiffe://td/ns/a/sa/b?x=1", id="query"),
        pytest.param("spiffe://td/ns/a/sa/b#x", id="fragment"),
        pytest.param("spiffe://td:443/ns/a/sa/b", id="port"),
        pytest.param("spiffe://user@td/ns/a/sa/b", id="user"),
        pytest.param("spiffe://td/ns/../sa/b", id="dots"),
        pytest.param("spiffe://td/ns/a%2Fb/sa/c", id="percent"),
        pytest.param("SPIFFE://td/ns/a/sa/b", id="scheme-case"),
        pytest.param("spiffe://TD/ns/a/sa/b", id="trust-domain-case"),
        pytest.param("https://td/ns/a/sa/b", id="other-scheme"),
        pytest.param("spiffe://td/ns/a/sa/b\n", id="newline"),
        pytest.param("spiffe://td/ns/a/sa/" + "b" * 2048, id="too-long"),
    ],
)
def test_what_is_not_exactly_an_identity_is_refused(uri: str) -> None:
    with pytest.raises(InvalidIdentityError):
        SpiffeIdentity.parse(uri)


def test_identity_is_immutable_and_copies_as_a_value() -> None:
    identity = SpiffeIdentity("cluster.local", "demo", "client")
    with pytest.raises(AttributeError):
        identity.namespace = "other"
    assert copy.copy(identity) == identity
    assert pickle.loads(pickle.dumps(identity)) == identity
    assert identity != SpiffeIdentity("cluster.local", "demo", "server")
