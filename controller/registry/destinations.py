"""DestinationRules as the mesh sees them: the subsets of a service, and the policy of each of its clusters.

The rules of a service's own namespace count, else those of the root namespace, as far as their `exportTo` lets the
service's namespace see them: that stands for its clients. Of these the ones with the most specific host count. Of
several for one host the oldest policy counts, and all their subsets do (Istio's merging). Times are in milliseconds;
None is no bound of its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from controller.kinds import destination_rule as kinds
from controller.kinds.destination_rule import DestinationRule
from controller.kinds.traffic import is_exported
from controller.registry.attachment import covers, specificity
from controller.registry.names import MeshSettings, find_full_host, name_host
from controller.snapshot import Snapshot


class Balancing(Enum):
    """Which endpoint a request goes to. The last two send requests that are alike to the same one."""

    LEAST_REQUEST = "least_request"
    ROUND_ROBIN = "round_robin"
    RANDOM = "random"
    RING_HASH = "ring_hash"
    MAGLEV = "maglev"


class HashedPart(Enum):
    """In what requests must be alike."""

    HEADER = "header"
    COOKIE = "cookie"
    SOURCE_IP = "source_ip"
    QUERY = "query"


@dataclass(frozen=True, slots=True)
class Hashing:
    """In what requests must be alike; a cookie with a time to live is made where there is none."""

    part: HashedPart
    name: str = ""
    path: str = ""
    ttl_milliseconds: int | None = None


@dataclass(frozen=True, slots=True)
class Outliers:
    """When an endpoint is left out: after so many failures in a row. None is never."""

    errors: int | None
    gateway_errors: int | None
    local_failures: int | None
    splits_local: bool
    interval_milliseconds: int
    ejection_milliseconds: int
    most_percent: int
    least_healthy_percent: int


@dataclass(frozen=True, slots=True)
class ClientTls:
    """TLS of the proxy's own, with files on its machine. Names are those that a certificate may be for; none is any.

    Without roots they are the machine's. `sni` and names that are not given are the host's.
    """

    certificate: str = ""
    key: str = ""
    roots: str = ""
    revoked: str = ""
    sni: str = ""
    names: tuple[str, ...] = ()
    verifies: bool = True


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """How many of the requests under way may be retries, in percent, and how many at least."""

    percent: float
    least: int


@dataclass(frozen=True, slots=True)
class ClusterPolicy:
    """How a cluster's connections are made, spread and withheld. `table_size` is a ring's least, or a table's."""

    balancing: Balancing = Balancing.LEAST_REQUEST
    hashing: Hashing | None = None
    table_size: int = 0
    weighs_localities: bool = False
    warmup_milliseconds: int = 0
    warmup_percent: float = 10
    warmup_aggression: float = 1
    connect_milliseconds: int | None = None
    connections: int | None = None
    pending_requests: int | None = None
    requests: int | None = None
    retries: int | None = None
    requests_per_connection: int | None = None
    concurrent_streams: int | None = None
    idle_milliseconds: int | None = None
    connection_milliseconds: int | None = None
    keepalive: tuple[int | None, int | None, int | None] | None = None
    upgrades_to_http2: bool = False
    follows_client_protocol: bool = False
    outliers: Outliers | None = None
    tls: ClientTls | None = None
    proxy_header: int = 0
    retry_budget: RetryBudget | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What DestinationRules say of one service."""

    policy: kinds.TrafficPolicy | None = None
    subsets: Mapping[str, kinds.Subset] = field(default_factory=dict)

    def labels_of(self, subset: str) -> Mapping[str, str] | None:
        """Which labels make a workload one of a subset; None where no rule defines it. All are one of none ('')."""
        if not subset:
            return {}
        found = self.subsets.get(subset)
        return None if found is None else found.labels or {}

    def policy_of(self, subset: str, port: int) -> ClusterPolicy:
        """A subset's policy goes before the service's, setting by setting; a port's before both, as a whole."""
        own = self.subsets[subset].traffic_policy if subset in self.subsets else None
        policies = [each for each in (own, self.policy) if each is not None]
        budget = next((each.retry_budget for each in policies if each.retry_budget), None)
        header = next((each.proxy_protocol for each in policies if each.proxy_protocol), None)
        return replace(
            _build_policy(self._layers_of(subset, port)),
            proxy_header=_HEADERS[header.version] if header else 0,
            retry_budget=RetryBudget(budget.percent, budget.min_retry_concurrency) if budget else None,
        )

    def locality_of(self, subset: str, port: int) -> kinds.LocalityLbSetting | None:
        """What is said of where clients stand."""
        balancers = (each.load_balancer for each in self._layers_of(subset, port) if each.load_balancer)
        return next((each.locality_lb_setting for each in balancers), None)

    def _layers_of(self, subset: str, port: int) -> Sequence[kinds.PolicySettings]:
        """What is said of a port, the first first."""
        own = self.subsets[subset].traffic_policy if subset in self.subsets else None
        policies = [each for each in (own, self.policy) if each is not None]
        for policy in policies:
            for each in policy.port_level_settings or ():
                if each.port.number == port:
                    return [each]
        return policies


def find_rules(snapshot: Snapshot, settings: MeshSettings, namespace: str, name: str) -> Rules:
    """What is said of a Kubernetes Service, or of a host of a ServiceEntry, where `name` is a whole host."""
    host = name if "." in name else name_host(settings, namespace, name)
    for place in dict.fromkeys((namespace, settings.root_namespace)):
        found: dict[str, list[DestinationRule]] = {}
        for rule in snapshot.objects_in(DestinationRule, place):
            pattern = find_full_host(rule.spec.host, place, settings)
            if covers(pattern, host) and is_exported(rule.spec.export_to, place, namespace):
                found.setdefault(pattern, []).append(rule)
        if found:
            closest = found[max(found, key=specificity)]
            return _merge(sorted(closest, key=lambda rule: rule.age_key))
    return Rules()


def _merge(rules: Sequence[DestinationRule]) -> Rules:
    policy = next((rule.spec.traffic_policy for rule in rules if rule.spec.traffic_policy), None)
    subsets: dict[str, kinds.Subset] = {}
    for rule in rules:
        for subset in rule.spec.subsets or ():
            subsets.setdefault(subset.name, subset)
    return Rules(policy, subsets)


def _build_policy(layers: Iterable[kinds.PolicySettings]) -> ClusterPolicy:
    given = list(layers)
    balancer = next((each.load_balancer for each in given if each.load_balancer), None) or kinds.LoadBalancer()
    pool = next((each.connection_pool for each in given if each.connection_pool), None) or kinds.ConnectionPool()
    outliers = next((each.outlier_detection for each in given if each.outlier_detection), None)
    tls = next((each.tls for each in given if each.tls), None)
    tcp, http = pool.tcp or kinds.TcpSettings(), pool.http or kinds.HttpSettings()
    balancing, hashing, size = _build_balancing(balancer)
    warmup = balancer.warmup or kinds.Warmup.model_construct(duration=balancer.warmup_duration_secs or 0)
    keepalive = tcp.tcp_keepalive
    return ClusterPolicy(
        balancing=balancing,
        hashing=hashing,
        table_size=size,
        weighs_localities=bool(balancer.locality_lb_setting and balancer.locality_lb_setting.distribute),
        warmup_milliseconds=warmup.duration,
        warmup_percent=warmup.minimum_percent,
        warmup_aggression=warmup.aggression,
        connect_milliseconds=tcp.connect_timeout,
        connections=tcp.max_connections,
        pending_requests=http.http1_max_pending_requests,
        requests=http.http2_max_requests,
        retries=http.max_retries,
        requests_per_connection=http.max_requests_per_connection or None,
        concurrent_streams=http.max_concurrent_streams or None,
        idle_milliseconds=http.idle_timeout if http.idle_timeout is not None else tcp.idle_timeout,
        connection_milliseconds=tcp.max_connection_duration,
        keepalive=(keepalive.probes, keepalive.time, keepalive.interval) if keepalive else None,
        upgrades_to_http2=http.h2_upgrade_policy == "UPGRADE",
        follows_client_protocol=bool(http.use_client_protocol),
        outliers=_build_outliers(outliers) if outliers else None,
        tls=_build_tls(tls) if tls and tls.mode in ("SIMPLE", "MUTUAL") else None,
    )


def _build_tls(given: kinds.TlsSettings) -> ClientTls:
    return ClientTls(
        certificate=given.client_certificate or "",
        key=given.private_key or "",
        roots=given.ca_certificates or "",
        revoked=given.ca_crl or "",
        sni=given.sni or "",
        names=tuple(given.subject_alt_names or ()),
        verifies=not given.insecure_skip_verify,
    )


_HEADERS = {"V1": 1, "V2": 2}
_SIMPLE = {"ROUND_ROBIN": Balancing.ROUND_ROBIN, "RANDOM": Balancing.RANDOM}


def _build_balancing(balancer: kinds.LoadBalancer) -> tuple[Balancing, Hashing | None, int]:
    given = balancer.consistent_hash
    if given is None:
        return _SIMPLE.get(balancer.simple or "", Balancing.LEAST_REQUEST), None, 0
    if given.http_header_name:
        hashing = Hashing(HashedPart.HEADER, given.http_header_name)
    elif given.http_cookie:
        cookie = given.http_cookie
        hashing = Hashing(HashedPart.COOKIE, cookie.name, cookie.path or "", cookie.ttl)
    elif given.http_query_parameter_name:
        hashing = Hashing(HashedPart.QUERY, given.http_query_parameter_name)
    else:
        hashing = Hashing(HashedPart.SOURCE_IP)
    if given.maglev:
        return Balancing.MAGLEV, hashing, given.maglev.table_size
    ring = given.ring_hash or kinds.RingHash()
    return Balancing.RING_HASH, hashing, given.minimum_ring_size or ring.minimum_ring_size


def _build_outliers(given: kinds.OutlierDetection) -> Outliers:
    """Where nothing is said, five errors in a row are too many (Istio's, and Envoy's)."""
    gateway = given.consecutive_gateway_errors
    old = given.consecutive_errors  # Istio's older name, which counted errors of a gateway
    errors = given.consecutive5xx_errors
    return Outliers(
        errors=5 if errors is None else errors or None,
        gateway_errors=(gateway if gateway is not None else old) or None,
        local_failures=given.consecutive_local_origin_failures or None,
        splits_local=bool(given.split_external_local_origin_errors),
        interval_milliseconds=given.interval,
        ejection_milliseconds=given.base_ejection_time,
        most_percent=given.max_ejection_percent,
        least_healthy_percent=given.min_health_percent,
    )
