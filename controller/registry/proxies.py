"""The Envoys that we tell what to do, as objects choose them: those of each Gateway, and all sidecars together.

A Gateway's proxies carry its labels, its `infrastructure.labels` and its name
(`gateway.networking.k8s.io/gateway-name`). Sidecars are all told the same.
"""

from collections.abc import Iterator, Mapping

from controller.kinds.gateway_api import GATEWAY_LABEL, Gateway
from controller.registry.attachment import is_ours
from controller.snapshot import Snapshot


def list_proxy_labels(gateway: Gateway) -> Mapping[str, str]:
    """The labels that the proxies of a Gateway count as having."""
    infrastructure = gateway.spec.infrastructure
    own = (infrastructure.labels if infrastructure else None) or {}
    return {**gateway.labels, **own, GATEWAY_LABEL: gateway.name}


def list_gateways(snapshot: Snapshot) -> Iterator[Gateway]:
    """The Gateways whose proxies are told by us."""
    return (each for each in snapshot.objects(Gateway) if is_ours(snapshot, each))
