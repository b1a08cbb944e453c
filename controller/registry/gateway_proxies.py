"""The Envoys of gateways, as objects choose them by labels or by the name of a Gateway.

The proxies of a Gateway of Gateway API carry its labels, its `infrastructure.labels` and its name
(`gateway.networking.k8s.io/gateway-name`). Those of an ingress gateway carry the labels that they are started with:
which ones there are, no object says, so that what chooses by labels that such a proxy may have is taken to choose one.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from controller.kinds.core import Pod
from controller.kinds.gateway_api import GATEWAY_LABEL, Gateway
from controller.kinds.istio_gateway import IstioGateway
from controller.registry.attachment import is_ours, served_listeners
from controller.registry.names import name_gateway, name_ingress
from controller.registry.proxies import Ingress, build_ingress
from controller.registry.waypoints import find_listener
from controller.snapshot import Snapshot

TEMPLATES_ANNOTATION = "inject.istio.io/templates"
"""On the pods of Istio's ingress gateways: `gateway`."""


@dataclass(frozen=True, slots=True)
class GatewayProxies:
    """The Envoys of one gateway. `reader` is the name under which they find what they need.

    `gateway` is the name of the Gateway that they carry out, which an ingress gateway has not.
    """

    namespace: str
    labels: Mapping[str, str]
    reader: str
    gateway: str = ""


def describe_gateway(gateway: Gateway) -> GatewayProxies:
    """The proxies of a Gateway."""
    infrastructure = gateway.spec.infrastructure
    own = (infrastructure.labels if infrastructure else None) or {}
    labels = {**gateway.labels, **own, GATEWAY_LABEL: gateway.name}
    return GatewayProxies(gateway.namespace, labels, name_gateway(gateway.namespace, gateway.name), gateway.name)


def describe_ingress(ingress: Ingress) -> GatewayProxies:
    """The proxies of an ingress gateway."""
    return GatewayProxies(ingress.namespace, dict(ingress.labels), name_ingress(ingress))


def list_gateways(snapshot: Snapshot) -> Iterator[GatewayProxies]:
    """Those of the Gateways that are ours and serve ports: waypoints that do nothing else are none."""
    ours = (each for each in snapshot.objects(Gateway) if is_ours(snapshot, each))
    return (describe_gateway(each) for each in ours if not is_waypoint_only(each))


def list_ingress_readers(snapshot: Snapshot, ingresses: Iterable[Ingress]) -> Iterator[str]:
    """The names under which gateways find what they need that are no waypoints; `ingresses` are all open."""
    for gateway in snapshot.objects(Gateway):
        if is_ours(snapshot, gateway) and find_listener(gateway) is None:
            yield name_gateway(gateway.namespace, gateway.name)
    yield from map(name_ingress, ingresses)


def list_waypoints(snapshot: Snapshot) -> Iterator[GatewayProxies]:
    """Those of the waypoints that are ours and do nothing else."""
    ours = (each for each in snapshot.objects(Gateway) if is_ours(snapshot, each))
    return (describe_gateway(each) for each in ours if is_waypoint_only(each))


def runs_gateway(snapshot: Snapshot, pod: Pod) -> bool:
    """Whether a pod runs an Envoy that enforces what selects it: that of an ingress gateway, or of a Gateway of ours.

    Whoever makes a pod chooses its labels too, by which it is selected: so its own word is enough.
    """
    if "gateway" in pod.annotations.get(TEMPLATES_ANNOTATION, "").split(","):
        return True
    gateway = snapshot.find(Gateway, pod.namespace, pod.labels.get(GATEWAY_LABEL, ""))
    return gateway is not None and is_ours(snapshot, gateway) and not is_waypoint_only(gateway)


def is_waypoint_only(gateway: Gateway) -> bool:
    """Whether a Gateway is a waypoint, and has no port of its own beside that."""
    return find_listener(gateway) is not None and not any(served_listeners(gateway))


def assume_ingresses(snapshot: Snapshot, namespace: str, labels: Mapping[str, str]) -> set[Ingress]:
    """The ingress gateways with these labels that a namespace may have: one for each Gateway that may select them."""
    selectors = (gateway.spec.selector or {} for gateway in snapshot.objects(IstioGateway))
    return {
        build_ingress(namespace, {**selector, **labels})
        for selector in selectors
        if all(labels.get(key, value) == value for key, value in selector.items())
    }
