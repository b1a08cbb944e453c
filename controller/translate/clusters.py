"""Services to Envoy's Cluster, and those who serve them to its ClusterLoadAssignment.

One cluster serves Envoy and gRPC's client: each takes the first load balancing policy of the list that it knows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2
from envoy.config.core.v3 import base_pb2, health_check_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.extensions.load_balancing_policies.least_request.v3 import least_request_pb2
from envoy.extensions.load_balancing_policies.round_robin.v3 import round_robin_pb2
from envoy.extensions.load_balancing_policies.wrr_locality.v3 import wrr_locality_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf.message import Message

from controller.kinds.core import IpAddress
from controller.registry.http import Target
from controller.registry.services import AppProtocol
from controller.registry.workloads import Locality
from controller.translate.envoy import build_ads_source, build_address, milliseconds, pack

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
# Istio's: how long a connection may take to be made.
CONNECT_MILLISECONDS = 10_000
# Istio's: no bound but what a DestinationRule sets, instead of Envoy's 1,024 of each.
UNLIMITED = 2**32 - 1


@dataclass(frozen=True, slots=True)
class ServingEndpoint:
    """Somebody who serves a target. A weight of 0 counts as 1."""

    address: IpAddress
    port: int
    locality: Locality
    is_healthy: bool
    weight: int = 0


def translate_cluster(target: Target, protocol: AppProtocol) -> cluster_pb2.Cluster:
    """A target's cluster; who serves it is told apart, under the same name."""
    name = target.cluster
    thresholds = circuit_breaker_pb2.CircuitBreakers.Thresholds(
        max_connections={"value": UNLIMITED},
        max_pending_requests={"value": UNLIMITED},
        max_requests={"value": UNLIMITED},
        max_retries={"value": UNLIMITED},
    )
    built = cluster_pb2.Cluster(
        name=name,
        type=cluster_pb2.Cluster.EDS,
        eds_cluster_config={"eds_config": build_ads_source(), "service_name": name},
        connect_timeout=milliseconds(CONNECT_MILLISECONDS),
        circuit_breakers={"thresholds": [thresholds]},
        # However few are healthy, only these are asked; with none, requests fail at once.
        common_lb_config={"healthy_panic_threshold": {"value": 0.0}},
        load_balancing_policy=_build_balancing(),
    )
    built.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(pack(_build_options(protocol)))
    return built


def translate_endpoints(target: Target, endpoints: Iterable[ServingEndpoint]) -> endpoint_pb2.ClusterLoadAssignment:
    """Who serves a target, by locality; each locality has the weight of its endpoints."""
    by_locality: dict[Locality, list[ServingEndpoint]] = {}
    for endpoint in endpoints:
        by_locality.setdefault(endpoint.locality, []).append(endpoint)
    localities = sorted(by_locality, key=lambda each: (each.region, each.zone, each.subzone))
    return endpoint_pb2.ClusterLoadAssignment(
        cluster_name=target.cluster, endpoints=[_translate_locality(each, by_locality[each]) for each in localities]
    )


def _translate_locality(
    locality: Locality, endpoints: Sequence[ServingEndpoint]
) -> endpoint_components_pb2.LocalityLbEndpoints:
    built = endpoint_components_pb2.LocalityLbEndpoints(
        locality=base_pb2.Locality(region=locality.region, zone=locality.zone, sub_zone=locality.subzone),
        load_balancing_weight={"value": sum(each.weight or 1 for each in endpoints)},
    )
    for each in sorted(endpoints, key=lambda each: (each.address.version, int(each.address), each.port)):
        status = health_check_pb2.HEALTHY if each.is_healthy else health_check_pb2.UNHEALTHY
        built.lb_endpoints.add(
            endpoint={"address": build_address(str(each.address), each.port)},
            health_status=status,
            load_balancing_weight={"value": each.weight or 1},
        )
    return built


def _build_balancing() -> cluster_pb2.LoadBalancingPolicy:
    round_robin = cluster_pb2.LoadBalancingPolicy()
    _add_policy(round_robin, "round_robin", round_robin_pb2.RoundRobin())
    built = cluster_pb2.LoadBalancingPolicy()
    _add_policy(built, "least_request", least_request_pb2.LeastRequest())
    _add_policy(built, "wrr_locality", wrr_locality_pb2.WrrLocality(endpoint_picking_policy=round_robin))
    return built


def _add_policy(to: cluster_pb2.LoadBalancingPolicy, name: str, message: Message) -> None:
    to.policies.add(
        typed_extension_config={"name": f"envoy.load_balancing_policies.{name}", "typed_config": pack(message)}
    )


def _build_options(protocol: AppProtocol) -> http_protocol_options_pb2.HttpProtocolOptions:
    options = http_protocol_options_pb2.HttpProtocolOptions()
    if protocol in (AppProtocol.HTTP2, AppProtocol.GRPC):
        options.explicit_http_config.http2_protocol_options.SetInParent()
    else:
        options.explicit_http_config.http_protocol_options.SetInParent()
    return options
