"""Which kinds there are, by apiVersion and kind."""

from collections.abc import Mapping

from controller.kinds.backend_tls_policy import BackendTLSPolicy
from controller.kinds.config_maps import ConfigMap
from controller.kinds.core import Namespace, Node, Pod, Service, ServiceAccount
from controller.kinds.destination_rule import DestinationRule
from controller.kinds.discovery import EndpointSlice
from controller.kinds.envoy_filter import EnvoyFilter
from controller.kinds.gateway_api import Gateway, GatewayClass, ReferenceGrant
from controller.kinds.grpc_route import GRPCRoute
from controller.kinds.http_route import HTTPRoute
from controller.kinds.istio_gateway import IstioGateway
from controller.kinds.meta import KubernetesObject
from controller.kinds.networking import ServiceEntry, WorkloadEntry
from controller.kinds.request_authentication import RequestAuthentication
from controller.kinds.secrets import Secret
from controller.kinds.security import AuthorizationPolicy, PeerAuthentication
from controller.kinds.sidecar import Sidecar
from controller.kinds.stream_routes import TCPRoute, TLSRoute
from controller.kinds.telemetry import Telemetry
from controller.kinds.virtual_service import VirtualService
from controller.kinds.workload_group import WorkloadGroup

Catalogue = Mapping[tuple[str, str], type[KubernetesObject]]
"""(apiVersion, kind) -> model."""


def build_catalogue(*models: type[KubernetesObject]) -> dict[tuple[str, str], type[KubernetesObject]]:
    """The catalogue of `models`: one entry for each version that a model accepts."""
    return {
        (f"{model.GROUP}/{version}" if model.GROUP else version, model.KIND): model
        for model in models
        for version in model.VERSIONS
    }


CATALOGUE: Catalogue = build_catalogue(
    AuthorizationPolicy,
    BackendTLSPolicy,
    ConfigMap,
    DestinationRule,
    EndpointSlice,
    EnvoyFilter,
    GRPCRoute,
    Gateway,
    GatewayClass,
    HTTPRoute,
    IstioGateway,
    Namespace,
    Node,
    PeerAuthentication,
    Pod,
    ReferenceGrant,
    RequestAuthentication,
    Secret,
    Service,
    ServiceAccount,
    ServiceEntry,
    Sidecar,
    TCPRoute,
    TLSRoute,
    Telemetry,
    VirtualService,
    WorkloadEntry,
    WorkloadGroup,
)
"""What the controller reads. The lab adds its own kind to a copy of this."""
