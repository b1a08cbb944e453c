"""Services to Envoy's Cluster, and those who serve them to its ClusterLoadAssignment.

One cluster serves Envoy and gRPC's client: each takes the first load balancing policy of the list that it knows.
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2, outlier_detection_pb2
from envoy.config.core.v3 import base_pb2, extension_pb2, health_check_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.extensions.clusters.common.dns.v3 import dns_pb2
from envoy.extensions.clusters.dns.v3 import dns_cluster_pb2
from envoy.extensions.load_balancing_policies.common.v3 import common_pb2
from envoy.extensions.load_balancing_policies.least_request.v3 import least_request_pb2
from envoy.extensions.load_balancing_policies.maglev.v3 import maglev_pb2
from envoy.extensions.load_balancing_policies.random.v3 import random_pb2
from envoy.extensions.load_balancing_policies.ring_hash.v3 import ring_hash_pb2
from envoy.extensions.load_balancing_policies.round_robin.v3 import round_robin_pb2
from envoy.extensions.load_balancing_policies.wrr_locality.v3 import wrr_locality_pb2
from envoy.extensions.network.dns_resolver.cares.v3 import cares_dns_resolver_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf.message import Message

from controller.kinds.core import IpAddress
from controller.registry.backend_tls import BackendTls
from controller.registry.destinations import Balancing, ClusterPolicy, Outliers
from controller.registry.http import Target
from controller.registry.localities import Group
from controller.registry.services import AppProtocol
from controller.translate.envoy import build_address, build_ads_source, milliseconds, pack
from controller.translate.upstream_tls import translate_socket

PASSTHROUGH = "passthrough"
"""The cluster of what goes where it was going."""
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
# Istio's: how long a connection may take to be made.
CONNECT_MILLISECONDS = 10_000
# Istio's: how long the addresses of a name are taken for true whose answer does not say.
DNS_MILLISECONDS = 60_000
# A proxy's start waits for its names. One that nobody answers for holds it up for a few seconds, and not for 35, as
# Envoy's 4 tries of 5 seconds, each longer than the last, would.
DNS_QUERY_SECONDS = 1
DNS_QUERY_TRIES = 2
# How soon a name is asked for again that could not be resolved, at first.
DNS_FAILURE_MILLISECONDS = 1_000
# Istio's: no bound but what a DestinationRule sets, instead of Envoy's 1,024 of each.
UNLIMITED = 2**32 - 1

_Warming = TypeVar("_Warming", least_request_pb2.LeastRequest, round_robin_pb2.RoundRobin)


def translate_cluster(
    target: Target,
    protocol: AppProtocol,
    policy: ClusterPolicy,
    subject_names: Sequence[str] = (),
    tls: BackendTls | None = None,
) -> cluster_pb2.Cluster:
    """A target's cluster; who serves it is told apart, under the same name.

    Where TLS is spoken to it, certificates may be for `subject_names`, and for its host where there are none. A
    BackendTLSPolicy's `tls` goes before the policy's.
    """
    name = target.cluster
    built = cluster_pb2.Cluster(
        name=name,
        type=cluster_pb2.Cluster.EDS,
        eds_cluster_config={"eds_config": build_ads_source(), "service_name": name},
        connect_timeout=milliseconds(_given(policy.connect_milliseconds, CONNECT_MILLISECONDS)),
        circuit_breakers={"thresholds": [_build_thresholds(policy)]},
        # However few are healthy, only these are asked; with none, requests fail at once.
        common_lb_config={"healthy_panic_threshold": {"value": _find_panic_percent(policy)}},
        load_balancing_policy=_build_balancing(policy),
    )
    if policy.outliers:
        built.outlier_detection.CopyFrom(_build_outliers(policy.outliers))
    if policy.keepalive:
        probes, after, interval = policy.keepalive
        keepalive = built.upstream_connection_options.tcp_keepalive
        keepalive.SetInParent()
        if probes is not None:
            keepalive.keepalive_probes.value = probes
        if after is not None:
            keepalive.keepalive_time.value = after // 1000
        if interval is not None:
            keepalive.keepalive_interval.value = interval // 1000
    speaks_http2 = protocol in (AppProtocol.HTTP2, AppProtocol.GRPC) or policy.upgrades_to_http2
    _, _, host = target.host.rpartition("/")
    socket = translate_socket(policy, host, subject_names, tls, speaks_http2=speaks_http2)
    if socket is not None:
        built.transport_socket.CopyFrom(socket)
    options = _build_options(policy, speaks_http2=speaks_http2)
    built.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(pack(options))
    return built


def resolve_names(cluster: cluster_pb2.Cluster, assignment: endpoint_pb2.ClusterLoadAssignment, is_one: bool) -> None:
    """Let a cluster resolve the names of who serves it, again and again: all their addresses, or one of one name."""
    cluster.ClearField("eds_cluster_config")
    cluster.load_assignment.CopyFrom(assignment)
    resolver = extension_pb2.TypedExtensionConfig(
        name="envoy.network.dns_resolver.cares",
        typed_config=pack(
            cares_dns_resolver_pb2.CaresDnsResolverConfig(
                query_timeout_seconds={"value": DNS_QUERY_SECONDS}, query_tries={"value": DNS_QUERY_TRIES}
            )
        ),
    )
    if is_one and sum(len(each.lb_endpoints) for each in assignment.endpoints) == 1:
        # In this form gRPC's client knows it, too.
        cluster.type = cluster_pb2.Cluster.LOGICAL_DNS
        cluster.dns_lookup_family = cluster_pb2.Cluster.V4_PREFERRED
        cluster.typed_dns_resolver_config.CopyFrom(resolver)
        return
    names = dns_cluster_pb2.DnsCluster(
        dns_refresh_rate=milliseconds(DNS_MILLISECONDS),
        dns_failure_refresh_rate={
            "base_interval": milliseconds(DNS_FAILURE_MILLISECONDS),
            "max_interval": milliseconds(DNS_MILLISECONDS),
        },
        respect_dns_ttl=True,
        dns_lookup_family=dns_pb2.V4_PREFERRED,
        typed_dns_resolver_config=resolver,
    )
    cluster.ClearField("type")
    cluster.cluster_type.name = "envoy.clusters.dns"
    cluster.cluster_type.typed_config.CopyFrom(pack(names))


def address_mesh(cluster: cluster_pb2.Cluster, address: IpAddress, port: int) -> None:
    """Let a cluster's connections go to an address of the mesh, from where ztunnel knows the way."""
    endpoint = {"endpoint": {"address": build_address(str(address), port)}}
    for field in ("cluster_type", "dns_lookup_family", "typed_dns_resolver_config", "load_assignment"):
        cluster.ClearField(field)
    cluster.type = cluster_pb2.Cluster.STATIC
    cluster.load_assignment.cluster_name = cluster.name
    cluster.load_assignment.endpoints.add(lb_endpoints=[endpoint])


def pass_through(cluster: cluster_pb2.Cluster) -> None:
    """Let a cluster's connections go wherever the client's was going."""
    cluster.ClearField("eds_cluster_config")
    cluster.ClearField("load_balancing_policy")
    cluster.type = cluster_pb2.Cluster.ORIGINAL_DST
    cluster.lb_policy = cluster_pb2.Cluster.CLUSTER_PROVIDED


def build_passthrough() -> cluster_pb2.Cluster:
    """Wherever a captured connection was going."""
    return cluster_pb2.Cluster(
        name=PASSTHROUGH,
        type=cluster_pb2.Cluster.ORIGINAL_DST,
        lb_policy=cluster_pb2.Cluster.CLUSTER_PROVIDED,
        connect_timeout=milliseconds(CONNECT_MILLISECONDS),
    )


def translate_endpoints(target: Target, groups: Iterable[Group]) -> endpoint_pb2.ClusterLoadAssignment:
    """Who serves a target, by locality and priority."""
    return endpoint_pb2.ClusterLoadAssignment(
        cluster_name=target.cluster, endpoints=[_translate_group(each) for each in groups]
    )


def _translate_group(group: Group) -> endpoint_components_pb2.LocalityLbEndpoints:
    locality = group.locality
    built = endpoint_components_pb2.LocalityLbEndpoints(
        locality=base_pb2.Locality(region=locality.region, zone=locality.zone, sub_zone=locality.subzone),
        load_balancing_weight={"value": group.weight},
        priority=group.priority,
    )
    for each in group.endpoints:
        status = health_check_pb2.HEALTHY if each.is_healthy else health_check_pb2.UNHEALTHY
        built.lb_endpoints.add(
            endpoint={"address": build_address(str(each.address), each.port)},
            health_status=status,
            load_balancing_weight={"value": each.weight or 1},
        )
    return built


def _build_thresholds(policy: ClusterPolicy) -> circuit_breaker_pb2.CircuitBreakers.Thresholds:
    built = circuit_breaker_pb2.CircuitBreakers.Thresholds(
        max_connections={"value": _given(policy.connections, UNLIMITED)},
        max_pending_requests={"value": _given(policy.pending_requests, UNLIMITED)},
        max_requests={"value": _given(policy.requests, UNLIMITED)},
        max_retries={"value": _given(policy.retries, UNLIMITED)},
    )
    if policy.retry_budget:
        built.retry_budget.budget_percent.value = policy.retry_budget.percent
        built.retry_budget.min_retry_concurrency.value = policy.retry_budget.least
    return built


def _given(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value


def _find_panic_percent(policy: ClusterPolicy) -> float:
    return float(policy.outliers.least_healthy_percent) if policy.outliers else 0.0


def _build_outliers(outliers: Outliers) -> outlier_detection_pb2.OutlierDetection:
    """What is not counted is enforced for nobody. How often others succeed is no measure here (Istio's choice)."""
    built = outlier_detection_pb2.OutlierDetection(
        interval=milliseconds(outliers.interval_milliseconds),
        base_ejection_time=milliseconds(outliers.ejection_milliseconds),
        max_ejection_percent={"value": outliers.most_percent},
        enforcing_consecutive_5xx={"value": 100 if outliers.errors else 0},
        enforcing_consecutive_gateway_failure={"value": 100 if outliers.gateway_errors else 0},
        enforcing_success_rate={"value": 0},
        split_external_local_origin_errors=outliers.splits_local,
    )
    if outliers.errors:
        built.consecutive_5xx.value = outliers.errors
    if outliers.gateway_errors:
        built.consecutive_gateway_failure.value = outliers.gateway_errors
    if outliers.local_failures:
        built.consecutive_local_origin_failure.value = outliers.local_failures
        built.enforcing_consecutive_local_origin_failure.value = 100
    return built


def _build_balancing(policy: ClusterPolicy) -> cluster_pb2.LoadBalancingPolicy:
    round_robin = cluster_pb2.LoadBalancingPolicy()
    _add_policy(round_robin, "round_robin", round_robin_pb2.RoundRobin())
    built = cluster_pb2.LoadBalancingPolicy()
    weighted = common_pb2.LocalityLbConfig.LocalityWeightedLbConfig() if policy.weighs_localities else None
    localities = {"locality_weighted_lb_config": weighted} if weighted else None
    match policy.balancing:
        case Balancing.LEAST_REQUEST:
            least = least_request_pb2.LeastRequest(locality_lb_config=localities)
            _add_policy(built, "least_request", _with_warmup(least, policy))
        case Balancing.ROUND_ROBIN:
            # Envoy refuses round robin within wrr_locality, which is for gRPC's client alone.
            turns = round_robin_pb2.RoundRobin(locality_lb_config=localities)
            _add_policy(built, "round_robin", _with_warmup(turns, policy))
        case Balancing.RANDOM:
            _add_policy(built, "random", random_pb2.Random(locality_lb_config=localities))
        case Balancing.MAGLEV:
            maglev = maglev_pb2.Maglev(table_size={"value": policy.table_size}, locality_weighted_lb_config=weighted)
            _add_policy(built, "maglev", maglev)
        case Balancing.RING_HASH:
            ring = ring_hash_pb2.RingHash(
                minimum_ring_size={"value": policy.table_size}, locality_weighted_lb_config=weighted
            )
            _add_policy(built, "ring_hash", ring)
            return built
    _add_policy(built, "wrr_locality", wrr_locality_pb2.WrrLocality(endpoint_picking_policy=round_robin))
    return built


def _with_warmup(balancing: _Warming, policy: ClusterPolicy) -> _Warming:
    if policy.warmup_milliseconds:
        slow_start = balancing.slow_start_config
        slow_start.slow_start_window.CopyFrom(milliseconds(policy.warmup_milliseconds))
        slow_start.aggression.default_value = policy.warmup_aggression
        slow_start.aggression.runtime_key = "ambit.warmup_aggression"
        slow_start.min_weight_percent.value = policy.warmup_percent
    return balancing


def _add_policy(to: cluster_pb2.LoadBalancingPolicy, name: str, message: Message) -> None:
    extension = {"name": f"envoy.load_balancing_policies.{name}", "typed_config": pack(message)}
    to.policies.add(typed_extension_config=extension)


def _build_options(policy: ClusterPolicy, *, speaks_http2: bool) -> http_protocol_options_pb2.HttpProtocolOptions:
    options = http_protocol_options_pb2.HttpProtocolOptions()
    if speaks_http2 or policy.follows_client_protocol:
        follows = policy.follows_client_protocol
        config = options.use_downstream_protocol_config if follows else options.explicit_http_config
        config.http2_protocol_options.SetInParent()
        if policy.concurrent_streams:
            config.http2_protocol_options.max_concurrent_streams.value = policy.concurrent_streams
    else:
        options.explicit_http_config.http_protocol_options.SetInParent()
    common = options.common_http_protocol_options
    if policy.idle_milliseconds is not None:
        common.idle_timeout.CopyFrom(milliseconds(policy.idle_milliseconds))
    if policy.connection_milliseconds is not None:
        common.max_connection_duration.CopyFrom(milliseconds(policy.connection_milliseconds))
    if policy.requests_per_connection is not None:
        common.max_requests_per_connection.value = policy.requests_per_connection
    return options
