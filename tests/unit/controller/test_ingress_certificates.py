"""Which proxies of ingress gateways may have what the servers of Istio's Gateways end TLS with."""

import pytest

from controller.kinds.meta import KubernetesObject
from controller.registry.proxies import build_ingress
from controller.serve.resources import SECRET_TYPE
from tests.support import objects
from tests.support.objects import parse
from tests.support.routing_world import ISTIO, PAIRS, PEM, World, istio_gateway_tls, made, start
from tests.support.secrets import ingress_pod_text, opaque_text, secret_text

LABELS = {"istio": "ingress", "app": "edge"}
EDGE = build_ingress("istio-system", LABELS)
KEY = f"ingress-proxy:{EDGE}@node-1"
SIMPLE = "HTTPS a.test mode: SIMPLE, credentialName: c"
MUTUAL = "HTTPS a.test mode: MUTUAL, credentialName: c"
BOTH = {"cert": PAIRS[0].certificate, "key": PAIRS[0].key, "cacert": PEM}
AUTHORITY, PAIR = "authority/istio-system/c", "secret/istio-system/c"


def secret(name: str = "c", where: str = "istio-system", **keys: str) -> KubernetesObject:
    if keys:
        return parse(opaque_text(name, where, keys))
    return parse(secret_text(name, PAIRS[0], where))


def pod(node: str = "node-1", **labels: str) -> KubernetesObject:
    return parse(ingress_pod_text(labels or LABELS, node))


def open_edge(*values: KubernetesObject) -> World:
    world = start(*values)
    world.open(EDGE)
    return world


def told(world: World) -> dict[str, tuple[str, ...]]:
    """By the name of a secret, who has it."""
    table = world.tables[SECRET_TYPE]
    found = ((name, table.find(name)) for name in table.names())
    return {name: resource.keys for name, resource in found if resource}


def test_a_proxy_has_it_whose_node_runs_a_pod_with_all_the_labels_that_it_says_it_has() -> None:
    world = open_edge(istio_gateway_tls("web", SIMPLE), secret())
    assert told(world) == {}
    assert world.put(pod(istio="ingress", app="edge", more="labels")) == {"Secret": {PAIR}}
    assert told(world) == {PAIR: (KEY,)}
    world.put(pod("node-2"))
    assert told(world) == {PAIR: (KEY.replace("node-1", "node-2"),)}
    world.close(EDGE)
    assert told(world) == {}


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(pod(istio="ingress"), id="fewer-labels"),
        pytest.param(pod(istio="ingress", app="other"), id="other-labels"),
        pytest.param(objects.pod("p", "demo", labels="istio: ingress, app: edge"), id="other-namespace"),
        pytest.param(
            objects.pod("p", "istio-system", labels="istio: ingress, app: edge", phase="Succeeded"), id="ended"
        ),
    ],
)
def test_another_pod_proves_nothing(other: KubernetesObject) -> None:
    assert told(open_edge(istio_gateway_tls("web", SIMPLE), secret(), other)) == {}


def test_a_proxy_without_labels_has_none() -> None:
    world = start(istio_gateway_tls("web", SIMPLE), secret(), pod())
    world.open(build_ingress("istio-system", {}))
    assert told(world) == {}


def test_a_secret_that_is_not_beside_the_proxies_is_not_served() -> None:
    world = open_edge(istio_gateway_tls("web", SIMPLE), secret(where="demo"), pod())
    assert told(world) == {}
    world.put(secret())
    assert told(world) == {PAIR: (KEY,)}


@pytest.mark.parametrize(("where", "counts"), [("istio-system", True), ("demo", False)])
def test_a_gateway_may_name_nodes_only_for_proxies_of_its_own_namespace(where: str, counts: bool) -> None:
    server = "{port: {number: 443, name: s, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: c}}"
    metadata = f"{{name: web, namespace: {where}, annotations: {{ambit.dev/proxy-nodes: 'node-1'}}}}"
    named = parse(f"{{apiVersion: {ISTIO}, kind: Gateway, metadata: {metadata}, spec: {{servers: [{server}]}}}}")
    assert told(open_edge(named, secret())) == ({PAIR: (KEY,)} if counts else {})


def test_only_what_a_server_needs_of_a_secret_is_served() -> None:
    world = open_edge(istio_gateway_tls("web", SIMPLE), secret(**BOTH), pod())
    assert told(world) == {PAIR: (KEY,)}
    world.put(istio_gateway_tls("web", MUTUAL))
    assert told(world) == {PAIR: (KEY,), AUTHORITY: (KEY,)}
    world.put(secret("c-cacert", **BOTH))
    assert told(world) == {PAIR: (KEY,), f"{AUTHORITY}-cacert": (KEY,)}, "and not the key beside the authorities"
    world.put(istio_gateway_tls("web", "TLS a.test mode: PASSTHROUGH"))
    assert told(world) == {}


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(secret(), id="no-authorities"),
        pytest.param(secret("c", cacert=PEM), id="no-pair"),
        pytest.param(secret("c-cacert", cacert=PEM), id="authorities-alone"),
    ],
)
def test_a_server_that_lacks_a_part_gets_none(given: KubernetesObject) -> None:
    assert told(open_edge(istio_gateway_tls("web", MUTUAL), given, pod())) == {}


def test_a_certificate_that_is_replaced_changes_only_itself() -> None:
    world = open_edge(istio_gateway_tls("web", SIMPLE), secret(), pod())
    assert world.put(parse(secret_text("c", PAIRS[1], "istio-system"))) == {"Secret": {PAIR}}


def test_gateways_that_are_not_for_the_proxies_give_them_nothing() -> None:
    server = "{port: {number: 443, name: s, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: c}}"
    other = made(ISTIO, "Gateway", "web", "istio-system", f"selector: {{istio: egress}}, servers: [{server}]")
    assert told(open_edge(other, secret(), pod())) == {}
