"""The dialogue with a proxy and with gRPC's client: whose resources they get, in which order, in either form."""

from collections.abc import Sequence

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3 import base_pb2
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.service.discovery.v3 import discovery_pb2

from controller.serve.forms import open_delta, open_state
from controller.serve.resources import (
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    LISTENER_TYPE,
    ROUTE_TYPE,
    ROUTING_TYPES,
    Resource,
    ResourceChanges,
    ResourceTable,
    build_resource,
)
from controller.serve.session import RequestOutcome, Session, SessionLimits
from controller.serve.wire import ClientNode, DeltaRequest, DeltaResponse, parse_request

LIMITS = SessionLimits(ack_timeout_seconds=10)
GATEWAY = ClientNode("router~192.0.2.1~web.demo~demo", "node-1", "demo/web")
MINE, THEIRS = ("gateway:demo/web",), ("gateway:demo/other",)


def resource(name: str, keys: tuple[str, ...] = (), content: str = "1") -> Resource:
    return build_resource(CLUSTER_TYPE, name, Cluster(name=name, alt_stat_name=content), keys=keys)


class Dialogue:
    """One client and the server's tables. Types are written by their last word."""

    def __init__(self, node: ClientNode = GATEWAY, tells_all: bool = False, places: Sequence[str] = ()) -> None:
        self.tables = {type_url: ResourceTable() for type_url in ROUTING_TYPES}
        self.node = node
        self.now = 100.0
        self.places = tuple(places)
        self.session = Session(self.tables, LIMITS, tells_all, find_keys=lambda _: self.places)

    def publish(self, type_url: str, *resources: Resource, removed: Sequence[str] = ()) -> None:
        updated = {each.name: each for each in resources}
        changed = self.tables[type_url].apply(ResourceChanges(updated, frozenset(removed)))
        self.session.note_changes(type_url, changed)

    def ask(self, type_url: str, *names: str, versions: dict[str, str] | None = None) -> None:
        self.session.receive(DeltaRequest(type_url, self.node, names, (), versions or {}), self.now)

    def leave(self, type_url: str, *names: str) -> None:
        self.session.receive(DeltaRequest(type_url, None, (), names), self.now)

    def hear(self) -> tuple[str, list[str], list[str]] | None:
        """The next response: its type, what it tells of, and what it says has ended. It is not acknowledged."""
        response = self.session.next_response(1, self.now)
        self.last = response
        if response is None:
            return None
        told = [discovery_pb2.Resource.FromString(each).name for each in response.resources]
        return response.type_url, told, list(response.removed)

    def acknowledge(self) -> None:
        assert self.last
        outcome = self.session.receive(DeltaRequest(self.last.type_url, None, nonce=self.last.nonce), self.now)
        assert outcome is RequestOutcome.ACK

    def hear_and_acknowledge(self) -> tuple[str, list[str], list[str]] | None:
        heard = self.hear()
        if heard:
            self.acknowledge()
        return heard


@pytest.fixture
def dialogue() -> Dialogue:
    return Dialogue()


def test_everything_is_for_a_proxy_what_its_gateway_needs(dialogue: Dialogue) -> None:
    dialogue.publish(CLUSTER_TYPE, resource("mine", MINE), resource("theirs", THEIRS), resource("ours", MINE + THEIRS))
    dialogue.ask(CLUSTER_TYPE)
    assert dialogue.hear_and_acknowledge() == (CLUSTER_TYPE, ["mine", "ours"], [])
    dialogue.publish(CLUSTER_TYPE, resource("theirs", THEIRS, "2"))
    assert dialogue.hear() is None


def test_a_client_that_is_no_gateways_gets_nothing_of_everything() -> None:
    stranger = Dialogue(ClientNode("router~192.0.2.1~x~y", "node-1"))
    stranger.publish(LISTENER_TYPE, resource("mine", MINE), resource("api"))
    stranger.ask(LISTENER_TYPE)
    assert stranger.hear_and_acknowledge() == (LISTENER_TYPE, [], [])
    stranger.ask(LISTENER_TYPE, "api")
    assert stranger.hear_and_acknowledge() == (LISTENER_TYPE, ["api"], [])


def test_a_router_without_a_gateways_name_gets_what_is_for_its_labels() -> None:
    node = base_pb2.Node(id="router~192.0.2.1~edge.istio-system~x")
    node.metadata.update({"NAMESPACE": "istio-system", "LABELS": {"istio": "ingress", "app": "edge"}})
    request = parse_request(discovery_pb2.DeltaDiscoveryRequest(node=node, type_url=LISTENER_TYPE).SerializeToString())
    assert request.node is not None
    router = Dialogue(request.node)
    edge, other = (resource(name, (f"ingress:istio-system/app={name},istio=ingress",)) for name in ("edge", "other"))
    router.publish(LISTENER_TYPE, edge, other, resource("mine", MINE))
    router.ask(LISTENER_TYPE)
    assert router.hear_and_acknowledge() == (LISTENER_TYPE, ["edge"], [])


def test_a_sidecar_gets_what_is_for_sidecars() -> None:
    sidecar = Dialogue(ClientNode("sidecar~192.0.2.1~x~y", "node-1"))
    sidecar.publish(LISTENER_TYPE, resource("port", ("sidecars",)), resource("mine", MINE), resource("api"))
    sidecar.ask(LISTENER_TYPE)
    assert sidecar.hear_and_acknowledge() == (LISTENER_TYPE, ["port"], [])


def test_what_a_gateway_needs_no_more_ends_for_its_proxies(dialogue: Dialogue) -> None:
    dialogue.publish(CLUSTER_TYPE, resource("a", MINE), resource("b", MINE))
    dialogue.ask(CLUSTER_TYPE)
    dialogue.hear_and_acknowledge()
    dialogue.publish(CLUSTER_TYPE, resource("a", THEIRS))
    assert dialogue.hear_and_acknowledge() == (CLUSTER_TYPE, [], ["a"])
    dialogue.publish(CLUSTER_TYPE, resource("a", MINE))
    assert dialogue.hear_and_acknowledge() == (CLUSTER_TYPE, ["a"], [])


def test_a_proxy_that_comes_back_gets_what_differs_and_hears_what_ended(dialogue: Dialogue) -> None:
    same, changed = resource("same", MINE), resource("changed", MINE, "2")
    dialogue.publish(CLUSTER_TYPE, same, changed, resource("theirs", THEIRS))
    dialogue.ask(CLUSTER_TYPE, versions={"same": same.version, "changed": "old", "gone": "old", "theirs": "old"})
    assert dialogue.hear_and_acknowledge() == (CLUSTER_TYPE, ["changed"], ["gone", "theirs"])
    dialogue.publish(CLUSTER_TYPE, resource("theirs", THEIRS, "2"))
    assert dialogue.hear() is None


def start(dialogue: Dialogue) -> None:
    """A proxy that has one route to one cluster."""
    dialogue.publish(CLUSTER_TYPE, resource("old", MINE))
    dialogue.publish(ENDPOINT_TYPE, resource("old"))
    dialogue.publish(LISTENER_TYPE, resource("port", MINE))
    dialogue.publish(ROUTE_TYPE, resource("port"))
    for type_url, names in (
        (CLUSTER_TYPE, ()),
        (ENDPOINT_TYPE, ("old",)),
        (LISTENER_TYPE, ()),
        (ROUTE_TYPE, ("port",)),
    ):
        dialogue.ask(type_url, *names)
        heard = dialogue.hear_and_acknowledge()
        assert heard
        assert heard[0] == type_url
    assert dialogue.hear() is None


def move(dialogue: Dialogue) -> None:
    """The route now leads to another cluster."""
    dialogue.publish(CLUSTER_TYPE, resource("new", MINE), removed=["old"])
    dialogue.publish(ENDPOINT_TYPE, resource("new"), removed=["old"])
    dialogue.publish(ROUTE_TYPE, resource("port", content="2"))


def test_a_route_waits_for_its_cluster_and_that_ones_endpoints_and_the_old_cluster_ends_last(
    dialogue: Dialogue,
) -> None:
    start(dialogue)
    move(dialogue)
    assert dialogue.hear() == (CLUSTER_TYPE, ["new"], [])
    waiting = dialogue.last
    assert dialogue.hear() is None, "the cluster is on its way"
    dialogue.last = waiting
    dialogue.acknowledge()
    assert dialogue.hear() is None, "nobody has asked for its endpoints yet"
    dialogue.ask(ENDPOINT_TYPE, "new")
    told = []
    while heard := dialogue.hear_and_acknowledge():
        told.append(heard)
    assert told == [
        (ENDPOINT_TYPE, ["new"], []),
        (ROUTE_TYPE, ["port"], []),
        (CLUSTER_TYPE, [], ["old"]),
        (ENDPOINT_TYPE, [], ["old"]),
    ]


def test_a_listener_that_sends_connections_on_waits_for_their_cluster_too(dialogue: Dialogue) -> None:
    start(dialogue)
    dialogue.publish(CLUSTER_TYPE, resource("new", MINE))
    dialogue.publish(ENDPOINT_TYPE, resource("new"))
    dialogue.publish(LISTENER_TYPE, resource("port", MINE, "2"))
    assert dialogue.hear_and_acknowledge() == (CLUSTER_TYPE, ["new"], [])
    assert dialogue.hear() is None, "nobody has asked for its endpoints yet"
    dialogue.ask(ENDPOINT_TYPE, "new")
    assert dialogue.hear_and_acknowledge() == (ENDPOINT_TYPE, ["new"], [])
    assert dialogue.hear_and_acknowledge() == (LISTENER_TYPE, ["port"], [])


def test_the_endpoints_of_a_cluster_that_changed_are_told_again(dialogue: Dialogue) -> None:
    start(dialogue)
    dialogue.publish(CLUSTER_TYPE, resource("old", MINE, "2"))
    assert dialogue.hear_and_acknowledge() == (CLUSTER_TYPE, ["old"], [])
    assert dialogue.hear_and_acknowledge() == (ENDPOINT_TYPE, ["old"], [])
    assert dialogue.hear() is None


def test_a_proxy_that_never_asks_for_endpoints_gets_its_routes_late(dialogue: Dialogue) -> None:
    start(dialogue)
    move(dialogue)
    sent_at = dialogue.now
    assert dialogue.hear_and_acknowledge() == (CLUSTER_TYPE, ["new"], [])
    while (heard := dialogue.hear_and_acknowledge()) is None:
        deadline = dialogue.session.next_deadline(dialogue.now)
        assert deadline
        dialogue.now = deadline
    assert heard == (ROUTE_TYPE, ["port"], [])
    assert dialogue.now == sent_at + LIMITS.ack_timeout_seconds


# The older form ------------------------------------------------------------------------------------------------------


def state_request(type_url: str, *names: str, nonce: str = "", error: str = "") -> bytes:
    request = discovery_pb2.DiscoveryRequest(type_url=type_url, resource_names=names, response_nonce=nonce)
    request.node.id = "grpc"
    if error:
        request.error_detail.message = error
    data: bytes = request.SerializeToString()
    return data


def test_names_that_are_repeated_are_no_news_and_those_left_out_are_unsubscribed() -> None:
    form = open_state()
    first = form.read(state_request(LISTENER_TYPE, "a", "b"))
    assert (first.subscribe, first.unsubscribe) == (["a", "b"], [])
    second = form.read(state_request(LISTENER_TYPE, "b", "c", nonce="1"))
    assert (second.subscribe, second.unsubscribe, second.nonce) == (["c"], ["a"], "1")
    other = form.read(state_request(CLUSTER_TYPE, "b"))
    assert other.subscribe == ["b"]


def test_a_refusal_changes_no_names() -> None:
    form = open_state()
    form.read(state_request(LISTENER_TYPE, "a"))
    refused = form.read(state_request(LISTENER_TYPE, nonce="1", error="no such filter"))
    assert (refused.subscribe, refused.unsubscribe, refused.error) == ([], [], "no such filter")
    assert form.read(state_request(LISTENER_TYPE, "a", nonce="2")).subscribe == []


def test_listeners_and_clusters_are_told_all_at_once_and_endpoints_by_what_changed() -> None:
    dialogue = Dialogue(tells_all=True)
    for type_url in (CLUSTER_TYPE, ENDPOINT_TYPE):
        dialogue.publish(type_url, resource("a"), resource("b"))
        dialogue.ask(type_url, "a", "b")
        assert dialogue.hear_and_acknowledge() == (type_url, ["a", "b"], [])
    dialogue.publish(CLUSTER_TYPE, resource("a", content="2"))
    assert dialogue.hear_and_acknowledge() == (CLUSTER_TYPE, ["a", "b"], [])
    assert dialogue.hear_and_acknowledge() == (ENDPOINT_TYPE, ["a"], []), "its cluster has changed"
    dialogue.publish(CLUSTER_TYPE, removed=["b"])
    assert dialogue.hear_and_acknowledge() == (CLUSTER_TYPE, ["a"], [])
    dialogue.publish(ENDPOINT_TYPE, resource("b", content="2"))
    assert dialogue.hear_and_acknowledge() == (ENDPOINT_TYPE, ["b"], [])


def test_the_older_form_carries_the_resources_themselves() -> None:
    response = DeltaResponse(CLUSTER_TYPE, "7", "3", [resource("a").wire], ["gone"])
    sent = discovery_pb2.DiscoveryResponse.FromString(b"".join(open_state().write(response)))
    assert (sent.type_url, sent.nonce, sent.version_info) == (CLUSTER_TYPE, "7", "3")
    assert [Cluster.FromString(each.value).name for each in sent.resources] == ["a"]
    assert open_delta().write(response) == response.encode()


SIDECAR = ClientNode("sidecar~192.0.2.1~web-1.demo~demo.svc.cluster.local", "node-1")


def test_a_sidecar_follows_what_its_namespace_is_told_of() -> None:
    talk = Dialogue(SIDECAR)
    talk.publish(CLUSTER_TYPE, resource("a", ("sidecars",)), resource("b", ("sidecars",)))
    talk.ask(CLUSTER_TYPE)
    assert talk.hear() == (CLUSTER_TYPE, ["a", "b"], [])
    talk.acknowledge()
    # A Sidecar comes that has `a` only, and something else that is for its namespace.
    both = ("sidecars", "sidecars:demo")
    talk.publish(CLUSTER_TYPE, resource("a", both), resource("c", ("sidecars:demo",)))
    assert talk.hear() == (CLUSTER_TYPE, ["a", "c"], ["b"])
    talk.acknowledge()
    talk.publish(CLUSTER_TYPE, resource("b", ("sidecars",), "2"))
    assert talk.hear() is None
    # It goes: everything is there again.
    talk.publish(CLUSTER_TYPE, resource("a", ("sidecars",)), removed=["c"])
    assert talk.hear() == (CLUSTER_TYPE, ["a", "b"], ["c"])


def test_sidecars_of_other_namespaces_do_not_notice() -> None:
    talk = Dialogue(ClientNode(SIDECAR.id.replace("demo", "other"), "node-1"))
    talk.publish(CLUSTER_TYPE, resource("b", ("sidecars",)))
    talk.ask(CLUSTER_TYPE)
    assert talk.hear() == (CLUSTER_TYPE, ["b"], [])
    talk.acknowledge()
    talk.publish(CLUSTER_TYPE, resource("c", ("sidecars:demo",)))
    assert talk.hear() is None


def test_a_sidecar_that_comes_back_is_told_what_it_should_not_have_any_more() -> None:
    talk = Dialogue(SIDECAR)
    both = ("sidecars", "sidecars:demo")
    kept, hidden = resource("a", both), resource("b", ("sidecars",))
    talk.publish(CLUSTER_TYPE, kept, hidden)
    talk.ask(CLUSTER_TYPE, versions={"a": kept.version, "b": hidden.version})
    assert talk.hear() == (CLUSTER_TYPE, [], ["b"])


def placed(common: str, **forms: str) -> Resource:
    """Endpoints, here a text, and other ones for those who stand in some place."""
    made = {key: ClusterLoadAssignment(cluster_name=text) for key, text in forms.items()}
    return build_resource(ENDPOINT_TYPE, "web", ClusterLoadAssignment(cluster_name=common), forms=made)


def heard_endpoints(dialogue: Dialogue) -> list[str]:
    """What the next response tells of endpoints."""
    heard = dialogue.hear_and_acknowledge()
    assert dialogue.last
    assert heard is None or heard[1] == ["web"] * len(heard[1])
    bodies = [discovery_pb2.Resource.FromString(each).resource.value for each in dialogue.last.resources]
    return [ClusterLoadAssignment.FromString(each).cluster_name for each in bodies]


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        pytest.param((), "common", id="nowhere"),
        pytest.param(("south",), "common", id="elsewhere"),
        pytest.param(("north",), "north", id="in-the-north"),
        pytest.param(("node", "north"), "node", id="the-first-counts"),
        pytest.param(("other", "north"), "north", id="the-first-that-there-is"),
    ],
)
def test_a_client_gets_the_form_of_where_it_stands(places: tuple[str, ...], expected: str) -> None:
    dialogue = Dialogue(places=places)
    dialogue.publish(ENDPOINT_TYPE, placed("common", north="north", node="node"))
    dialogue.ask(ENDPOINT_TYPE, "web")
    assert heard_endpoints(dialogue) == [expected]


def test_a_client_that_moves_is_told_what_is_different_there() -> None:
    dialogue = Dialogue(places=("north",))
    dialogue.publish(ENDPOINT_TYPE, placed("common", north="north"))
    dialogue.ask(ENDPOINT_TYPE, "web")
    assert heard_endpoints(dialogue) == ["north"]
    dialogue.places = ("south",)
    dialogue.session.move()
    assert heard_endpoints(dialogue) == ["common"]
    dialogue.places = ("west",)
    dialogue.session.move()
    assert dialogue.hear() is None, "it is the same there"


def test_a_client_that_comes_back_has_its_form_already() -> None:
    resource = placed("common", north="north")
    for places, has_it in ((("north",), True), ((), False)):
        dialogue = Dialogue(places=places)
        dialogue.publish(ENDPOINT_TYPE, resource)
        dialogue.ask(ENDPOINT_TYPE, "web", versions={"web": resource.forms["north"].version})
        assert (heard_endpoints(dialogue) == []) is has_it


def test_a_client_that_has_everything_and_comes_back_elsewhere_is_told_its_new_form() -> None:
    resource = placed("common", north="north")
    for places, has_it in (((), True), (("north",), False)):
        dialogue = Dialogue(places=places)
        dialogue.publish(ENDPOINT_TYPE, resource)
        dialogue.ask(ENDPOINT_TYPE, versions={"web": resource.version})
        assert (heard_endpoints(dialogue) == []) is has_it


def test_what_a_client_has_is_shown_in_its_form() -> None:
    dialogue = Dialogue(places=("north",))
    resource = placed("common", north="north", south="south")
    dialogue.publish(ENDPOINT_TYPE, resource)
    dialogue.ask(ENDPOINT_TYPE, "web")
    found = dialogue.session.types[ENDPOINT_TYPE].subscription.find("web")
    assert found
    assert (found.version, found.wire) == (resource.forms["north"].version, resource.forms["north"].wire)
