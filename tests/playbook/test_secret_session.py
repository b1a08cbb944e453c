"""Secrets in the dialogue with a client: who may have them, however it asks, and when they end."""

from collections.abc import Sequence

import pytest
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from envoy.service.discovery.v3 import discovery_pb2

from controller.serve.resources import (
    LISTENER_TYPE,
    ROUTING_TYPES,
    SECRET_TYPE,
    Resource,
    ResourceChanges,
    ResourceTable,
    build_resource,
)
from controller.serve.session import Session, SessionLimits
from controller.serve.wire import ClientNode, DeltaRequest, parse_request, parse_state_request

NAME = "secret/demo/a"
MINE, THEIRS = "proxy:demo/web@node-1", "proxy:demo/other@node-1"
PROXY = ClientNode("router~1~web.demo~demo", "node-1", "demo/web")


def secret(name: str, *readers: str) -> Resource:
    return build_resource(SECRET_TYPE, name, Secret(name=name), keys=readers)


class Dialogue:
    """A client and its server's secrets and listeners."""

    def __init__(self, node: ClientNode = PROXY, proved_node: str = "node-1", tells_all: bool = False) -> None:
        self.tables = {type_url: ResourceTable() for type_url in ROUTING_TYPES}
        self.session = Session(self.tables, SessionLimits(), tells_all, proved_node)
        self.node = node

    def publish(self, *resources: Resource, removed: Sequence[str] = (), type_url: str = SECRET_TYPE) -> None:
        updated = {each.name: each for each in resources}
        changed = self.tables[type_url].apply(ResourceChanges(updated, frozenset(removed)))
        self.session.note_changes(type_url, changed)

    def ask(self, *names: str, type_url: str = SECRET_TYPE, versions: dict[str, str] | None = None) -> DeltaRequest:
        request = DeltaRequest(type_url, self.node, names, (), versions or {})
        self.session.receive(request, 0.0)
        return request

    def hear(self) -> tuple[list[str], list[str]] | None:
        """The next response, acknowledged: what it tells of, and what it says has ended."""
        response = self.session.next_response(1, 0.0)
        if response is None:
            return None
        self.session.receive(DeltaRequest(response.type_url, None, nonce=response.nonce), 0.0)
        framed = discovery_pb2.DeltaDiscoveryResponse.FromString(response.framed).resources
        told = [discovery_pb2.Resource.FromString(each).name for each in response.resources]
        return [*told, *(each.name for each in framed)], list(response.removed)


STRANGERS = [
    pytest.param(ClientNode("router~1~x~y", "node-1", "demo/other"), "node-1", False, id="of-another-gateway"),
    pytest.param(ClientNode("router~1~x~y", "node-2", "demo/web"), "node-2", False, id="on-another-node"),
    pytest.param(PROXY, "", False, id="without-a-token"),
    pytest.param(ClientNode("sidecar~1~x~y", "node-1"), "node-1", False, id="sidecar"),
    pytest.param(ClientNode("ztunnel~1~x~y", "node-1"), "node-1", False, id="ztunnel"),
    pytest.param(ClientNode("x", "node-1", "demo/web@node-1"), "node-1", False, id="with-a-name-made-up"),
    pytest.param(ClientNode("x", "", MINE), "", False, id="with-a-key-for-a-name"),
    pytest.param(ClientNode("router~1~x~y", "node-1", "demo/other"), "node-1", True, id="in-the-older-form"),
]


@pytest.mark.parametrize("names", [(NAME,), (), ("*",), (MINE,), ("gateway:demo/web",), (NAME, "*", MINE, "nobody")])
@pytest.mark.parametrize(("node", "proved_node", "tells_all"), STRANGERS)
def test_a_stranger_gets_no_secret_however_it_asks(
    node: ClientNode, proved_node: str, tells_all: bool, names: tuple[str, ...]
) -> None:
    stranger = Dialogue(node, proved_node, tells_all)
    stranger.publish(secret(NAME, MINE), secret("secret/demo/b", MINE))
    stranger.ask(*names)
    heard = stranger.hear()
    assert heard
    assert heard[0] == []
    assert set(heard[1]) <= set(names), "nor hears of names that it did not say itself"
    stranger.publish(secret(NAME, MINE, "proxy:demo/web@node-3"), removed=["secret/demo/b"])
    assert stranger.hear() is None
    stranger.ask(*names or ("*",), NAME, "secret/demo/b")
    assert (stranger.hear() or ([], []))[0] == []


@pytest.mark.parametrize("names", [(NAME,), ("*",), ()])
def test_a_proxy_gets_what_its_gateway_names(names: tuple[str, ...]) -> None:
    proxy = Dialogue()
    proxy.publish(secret(NAME, MINE), secret("secret/demo/theirs", THEIRS))
    proxy.ask(*names)
    assert proxy.hear() == ([NAME], [])
    proxy.publish(secret("secret/demo/theirs", THEIRS, "proxy:demo/other@node-2"))
    assert proxy.hear() is None


def test_versions_that_a_client_claims_to_have_lead_to_nothing_that_is_not_for_it() -> None:
    stranger = Dialogue(ClientNode("router~1~x~y", "node-1", "demo/other"))
    stranger.publish(secret(NAME, MINE))
    stranger.ask(versions={NAME: "old"})
    assert stranger.hear() == ([], [NAME])


def test_a_proxy_gets_a_secret_once_it_may_have_it_and_hears_when_it_may_no_more() -> None:
    proxy = Dialogue()
    request = proxy.ask(NAME)
    assert proxy.session.find_withheld(request) == [NAME]
    assert proxy.hear() == ([], [NAME])
    proxy.publish(secret(NAME, THEIRS))
    assert proxy.hear() is None
    proxy.publish(secret(NAME, MINE, THEIRS))
    assert proxy.session.find_withheld(request) == []
    assert proxy.hear() == ([NAME], [])
    proxy.publish(secret(NAME, THEIRS))
    assert proxy.hear() == ([], [NAME])


def test_a_secret_ends_after_the_listeners_that_named_it() -> None:
    proxy = Dialogue()
    proxy.publish(secret(NAME, MINE))
    old = build_resource(LISTENER_TYPE, "port", Secret(name="1"), keys=("gateway:demo/web",))
    proxy.publish(old, type_url=LISTENER_TYPE)
    for type_url in (SECRET_TYPE, LISTENER_TYPE):
        proxy.ask(*((NAME,) if type_url == SECRET_TYPE else ()), type_url=type_url)
        assert proxy.hear()
    proxy.publish(removed=[NAME])
    proxy.publish(
        build_resource(LISTENER_TYPE, "port", Secret(name="2"), keys=("gateway:demo/web",)), type_url=LISTENER_TYPE
    )
    assert proxy.hear() == (["port"], [])
    assert proxy.hear() == ([], [NAME])


def test_what_a_client_says_of_a_secret_that_it_refuses_is_not_kept() -> None:
    for form, parse in (
        (discovery_pb2.DeltaDiscoveryRequest, parse_request),
        (discovery_pb2.DiscoveryRequest, parse_state_request),
    ):
        message = form(type_url=SECRET_TYPE)
        message.error_detail.message = "Proto constraint validation failed: private_key { inline_string: ..."
        assert parse(message.SerializeToString()).error == "refused; the proxy's own log says why"
