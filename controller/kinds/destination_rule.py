"""Istio's DestinationRule: the subsets of a service, and how connections to it are made, spread and withheld."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from controller.kinds.durations import Duration
from controller.kinds.meta import StrictModel
from controller.kinds.networking import NetworkingObject
from controller.kinds.refusals import Unsupported
from controller.kinds.traffic import PortSelector, RuleHost, RuleScope


def _check_path(value: str) -> str:
    if not value.startswith("/") or "\0" in value:
        raise PydanticCustomError("file_path", "must be the absolute path of a file, which begins with /")
    return value


Count = Annotated[int, Field(ge=0)]
FilePath = Annotated[str, AfterValidator(_check_path)]


class HttpCookie(StrictModel):
    """A cookie; with a time to live the proxy makes it where a request has none."""

    name: str
    path: str | None = None
    ttl: Duration | None = None


class RingHash(StrictModel):
    """The least size of the ring."""

    minimum_ring_size: Annotated[int, Field(ge=1, le=8_388_608)] = 1024


class Maglev(StrictModel):
    """The size of the table, a prime number."""

    table_size: Annotated[int, Field(ge=2, le=5_000_011)] = 65537


_HASHED = ("http_header_name", "http_cookie", "use_source_ip", "http_query_parameter_name")


class ConsistentHash(StrictModel):
    """Requests that are alike in this go to the same endpoint."""

    http_header_name: str | None = None
    http_cookie: HttpCookie | None = None
    use_source_ip: bool | None = None
    http_query_parameter_name: str | None = None
    minimum_ring_size: Annotated[int | None, Field(ge=1, le=8_388_608)] = None
    ring_hash: RingHash | None = None
    maglev: Maglev | None = None

    @model_validator(mode="after")
    def _check_one(self) -> "ConsistentHash":
        if sum(bool(getattr(self, name)) for name in _HASHED) != 1:
            raise PydanticCustomError(
                "combination", "has one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName"
            )
        return self


_ALL_OF_IT = 100
# Of endpoints and clients alike; a label with a value is one of endpoints only.
_NEARNESS = (
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
    "kubernetes.io/hostname",
)


def _check_place(value: str) -> str:
    parts = value.split("/")
    if len(parts) > 3 or any(not part or (part == "*" and at < len(parts) - 1) for at, part in enumerate(parts)):
        raise PydanticCustomError("locality", "is not region/zone/subzone, of which the last part may be *")
    return value


def _check_region(value: str) -> str:
    if "/" in value or "*" in value or not value:
        raise PydanticCustomError("locality", "failover is from one region to another: write its name alone")
    return value


def _check_criterion(value: str) -> str:
    key, is_fixed, _ = value.partition("=")
    if not key or (value not in _NEARNESS and not is_fixed):
        message = "the proxy's own labels are not compared: write label=value, or one of {known}"
        raise PydanticCustomError("unsupported", message, {"known": ", ".join(_NEARNESS)})
    return value


Place = Annotated[str, AfterValidator(_check_place)]
Region = Annotated[str, AfterValidator(_check_region)]


class Distribution(StrictModel):
    """Which places the requests of clients from a place go to, in percent."""

    from_: Annotated[Place, Field(alias="from")]
    to: Mapping[Place, Annotated[int, Field(ge=1, le=_ALL_OF_IT)]]

    @model_validator(mode="after")
    def _check_sum(self) -> "Distribution":
        if (total := sum(self.to.values())) != _ALL_OF_IT:
            raise PydanticCustomError(
                "locality", "the shares of {place} are {total}, and not 100", {"place": self.from_, "total": total}
            )
        return self


class Failover(StrictModel):
    """Which region stands in for another."""

    from_: Annotated[Region, Field(alias="from")]
    to: Region


class LocalityLbSetting(StrictModel):
    """Where requests go first, by where the client stands."""

    distribute: Sequence[Distribution] | None = None
    failover: Sequence[Failover] | None = None
    failover_priority: Sequence[Annotated[str, AfterValidator(_check_criterion)]] | None = None
    enabled: bool | None = None

    @model_validator(mode="after")
    def _check_one(self) -> "LocalityLbSetting":
        if self.distribute and (self.failover or self.failover_priority):
            raise PydanticCustomError("combination", "distribute excludes failover and failoverPriority")
        if same := next((each.to for each in self.failover or () if each.from_ == each.to), None):
            raise PydanticCustomError("locality", "region {region} cannot stand in for itself", {"region": same})
        return self


class Warmup(StrictModel):
    """How long a new endpoint takes to get its full share."""

    duration: Duration
    minimum_percent: Annotated[float | int, Field(ge=0, le=100)] = 10
    aggression: Annotated[float | int, Field(ge=1)] = 1


class LoadBalancer(StrictModel):
    """How requests are spread over the endpoints."""

    simple: Literal["UNSPECIFIED", "LEAST_REQUEST", "LEAST_CONN", "ROUND_ROBIN", "RANDOM"] | None = None
    consistent_hash: ConsistentHash | None = None
    locality_lb_setting: LocalityLbSetting | None = None
    warmup: Warmup | None = None
    warmup_duration_secs: Duration | None = None

    @model_validator(mode="after")
    def _check_one(self) -> "LoadBalancer":
        if self.simple and self.consistent_hash:
            raise PydanticCustomError("combination", "simple and consistentHash exclude each other")
        return self


class TcpKeepalive(StrictModel):
    """Probes of idle connections."""

    probes: Count | None = None
    time: Duration | None = None
    interval: Duration | None = None


class TcpSettings(StrictModel):
    """Bounds on connections."""

    max_connections: Count | None = None
    connect_timeout: Duration | None = None
    tcp_keepalive: TcpKeepalive | None = None
    max_connection_duration: Duration | None = None
    idle_timeout: Duration | None = None


class HttpSettings(StrictModel):
    """Bounds on requests. 0 of `maxRequestsPerConnection` is no bound."""

    http1_max_pending_requests: Count | None = None
    http2_max_requests: Count | None = None
    max_requests_per_connection: Count | None = None
    max_retries: Count | None = None
    idle_timeout: Duration | None = None
    h2_upgrade_policy: Literal["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"] | None = None
    use_client_protocol: bool | None = None
    max_concurrent_streams: Count | None = None


class ConnectionPool(StrictModel):
    """Bounds on what is under way to a service at once."""

    tcp: TcpSettings | None = None
    http: HttpSettings | None = None


class OutlierDetection(StrictModel):
    """When an endpoint that fails is left out, and for how long."""

    consecutive5xx_errors: Annotated[Count | None, Field(alias="consecutive5xxErrors")] = None
    consecutive_gateway_errors: Count | None = None
    consecutive_local_origin_failures: Count | None = None
    split_external_local_origin_errors: bool | None = None
    consecutive_errors: Count | None = None
    interval: Duration = 10_000
    base_ejection_time: Duration = 30_000
    max_ejection_percent: Annotated[int, Field(ge=0, le=100)] = 10
    min_health_percent: Annotated[int, Field(ge=0, le=100)] = 0


class TlsSettings(StrictModel):
    """TLS towards the service. Within the mesh the tunnels see to it (`DISABLE`, `ISTIO_MUTUAL`).

    `SIMPLE` and `MUTUAL` are what the proxy itself does; the files are on its machine.
    """

    mode: Literal["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"]
    client_certificate: FilePath | None = None
    private_key: FilePath | None = None
    ca_certificates: FilePath | None = None
    ca_crl: FilePath | None = None
    credential_name: Unsupported = None
    sni: str | None = None
    subject_alt_names: Sequence[str] | None = None
    insecure_skip_verify: bool | None = None

    @model_validator(mode="after")
    def _check_files(self) -> "TlsSettings":
        certificate = (self.client_certificate, self.private_key)
        if self.mode == "MUTUAL" and not all(certificate):
            raise PydanticCustomError("combination", "mode MUTUAL needs clientCertificate and privateKey")
        if self.mode != "MUTUAL" and any(certificate):
            raise PydanticCustomError("combination", "clientCertificate and privateKey are for mode MUTUAL")
        verifying = (self.ca_certificates, self.ca_crl, self.insecure_skip_verify)
        if self.mode not in ("SIMPLE", "MUTUAL") and any(verifying):
            raise PydanticCustomError("combination", "what is verified is for modes SIMPLE and MUTUAL")
        if self.insecure_skip_verify and (self.ca_certificates or self.ca_crl or self.subject_alt_names):
            raise PydanticCustomError("combination", "insecureSkipVerify excludes what would be verified")
        if self.ca_crl and not self.ca_certificates:
            raise PydanticCustomError("combination", "caCrl needs caCertificates")
        return self


class ProxyProtocol(StrictModel):
    """A header before the first byte, which tells the service who the client is."""

    version: Literal["V1", "V2"] = "V1"


class RetryBudget(StrictModel):
    """How many of the requests that are under way may be retries, in percent, and how many at least."""

    percent: Annotated[float | int, Field(ge=0, le=100)] = 20
    min_retry_concurrency: Count = 3


class PolicySettings(StrictModel):
    """How connections are made, spread and withheld."""

    load_balancer: LoadBalancer | None = None
    connection_pool: ConnectionPool | None = None
    outlier_detection: OutlierDetection | None = None
    tls: TlsSettings | None = None


class PortPolicy(PolicySettings):
    """The same for one port; what it does not say is not taken from above (Istio's rule)."""

    port: PortSelector


class TrafficPolicy(PolicySettings):
    """For all ports, or for single ones."""

    port_level_settings: Sequence[PortPolicy] | None = None
    tunnel: Unsupported = None
    proxy_protocol: ProxyProtocol | None = None
    retry_budget: RetryBudget | None = None


class Subset(StrictModel):
    """Those of a service's workloads that carry these labels."""

    name: str
    labels: Mapping[str, str] | None = None
    traffic_policy: TrafficPolicy | None = None


class DestinationRuleSpec(StrictModel):
    """For which service, or, as in `*.demo.svc.cluster.local`, for all of those that have no rule of their own."""

    host: RuleHost
    traffic_policy: TrafficPolicy | None = None
    subsets: Sequence[Subset] | None = None
    export_to: Sequence[RuleScope] | None = None
    workload_selector: Unsupported = None

    @model_validator(mode="after")
    def _check_subsets(self) -> "DestinationRuleSpec":
        names = [subset.name for subset in self.subsets or ()]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise PydanticCustomError("subset_twice", "two subsets are called {name}", {"name": twice})
        return self


class DestinationRule(NetworkingObject):
    """How a service is connected to."""

    spec: DestinationRuleSpec
