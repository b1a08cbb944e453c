"""Istio's security.istio.io kinds, as far as ztunnel can enforce them.

A field that only a waypoint (L7) could enforce is refused here, by name. Istio drops such rules or such parts of rules
at ztunnel, which makes an ALLOW narrower and a DENY broader or void (facts of the control plane, section 6): never
what the author wrote, so we ask instead.
"""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from controller.kinds.meta import KubernetesObject, StrictModel

IpBlock = IPv4Network | IPv6Network

L4_CONDITION_KEYS = ("source.ip", "source.namespace", "source.principal", "destination.ip", "destination.port")


def _check_pattern(value: str) -> str:
    """Istio's string patterns: `*`, `x*`, `*x`, or exact. A star elsewhere would be matched literally, so never."""
    if not value:
        raise PydanticCustomError("pattern_empty", "must not be empty; write '*' for any value")
    if "*" in (value[1:] if value.startswith("*") else value[:-1]):
        raise PydanticCustomError("pattern_star", "may have one '*', at its beginning or its end")
    return value


def _check_principal(value: str) -> str:
    if value.startswith("spiffe:"):
        raise PydanticCustomError(
            "principal_prefix", "is written without spiffe://, as in cluster.local/ns/NAMESPACE/sa/SERVICE-ACCOUNT"
        )
    return _check_pattern(value)


def _check_service_account(value: str) -> str:
    if "*" in value or not all(value.split("/")) or value.count("/") > 1:
        raise PydanticCustomError("service_account", "must be SERVICE-ACCOUNT or NAMESPACE/SERVICE-ACCOUNT, exactly")
    return value


def parse_ip_block(value: object) -> IpBlock:
    """Parse an address or a CIDR block; bits beyond the prefix are cleared, as Istio does. For use by validators."""
    if not isinstance(value, str):
        raise PydanticCustomError("ip_type", "must be an IP address or CIDR block as text")
    try:
        return ip_network(value, strict=False)
    except ValueError as error:
        raise PydanticCustomError("ip_value", "is not an IP address or CIDR block") from error


def _parse_port(value: object) -> int:
    if not isinstance(value, str):
        raise PydanticCustomError("port_type", 'must be a port as text, as in "8080"')
    if not (value.isascii() and value.isdigit() and 0 < int(value[:6]) <= 65535):
        raise PydanticCustomError("port_value", "is not a port between 1 and 65535")
    return int(value)


Pattern = Annotated[str, AfterValidator(_check_pattern)]
Principal = Annotated[str, AfterValidator(_check_principal)]
ServiceAccountName = Annotated[str, AfterValidator(_check_service_account)]
IpBlockText = Annotated[IpBlock, BeforeValidator(parse_ip_block), WithJsonSchema({"type": "string"})]
PortText = Annotated[int, BeforeValidator(_parse_port), PlainSerializer(str), WithJsonSchema({"type": "string"})]


class Selector(StrictModel):
    """Which workloads: those that carry all of these labels. An empty one is no selector at all."""

    match_labels: dict[str, str] | None = None


def _refuse_l7(value: object) -> object:
    raise PydanticCustomError(
        "needs_waypoint", "only an L7 proxy can judge this, and ztunnel enforces this policy; take it out"
    )


def _refuse_target(value: object) -> object:
    raise PydanticCustomError("needs_waypoint", "needs a waypoint, which this version does not have: not enforced")


def _refuse_trust_domains(value: object) -> object:
    raise PydanticCustomError("unsupported", "not enforced by ztunnel; write principals, which begin with it")


NeedsL7 = Annotated[None, BeforeValidator(_refuse_l7)]
NeedsWaypoint = Annotated[None, BeforeValidator(_refuse_target)]
NotTrustDomains = Annotated[None, BeforeValidator(_refuse_trust_domains)]


class Source(StrictModel):
    """Who connects. The fields must all hold; of one field's values any may, and of a not-field's none."""

    principals: Sequence[Principal] | None = None
    not_principals: Sequence[Principal] | None = None
    namespaces: Sequence[Pattern] | None = None
    not_namespaces: Sequence[Pattern] | None = None
    service_accounts: Sequence[ServiceAccountName] | None = None
    not_service_accounts: Sequence[ServiceAccountName] | None = None
    ip_blocks: Sequence[IpBlockText] | None = None
    not_ip_blocks: Sequence[IpBlockText] | None = None

    request_principals: NeedsL7 = None
    not_request_principals: NeedsL7 = None
    remote_ip_blocks: NeedsL7 = None
    not_remote_ip_blocks: NeedsL7 = None
    trust_domains: NotTrustDomains = None
    not_trust_domains: NotTrustDomains = None

    @model_validator(mode="after")
    def _check_combination(self) -> "Source":
        if not any(getattr(self, field) for field in type(self).model_fields):
            raise PydanticCustomError("empty_match", "must name at least one thing to match")
        has_accounts = self.service_accounts or self.not_service_accounts
        if has_accounts and (self.principals or self.not_principals or self.namespaces or self.not_namespaces):
            raise PydanticCustomError(
                "combination", "serviceAccounts cannot be combined with principals or namespaces in one source"
            )
        return self


class Operation(StrictModel):
    """What is connected to: at L4, the port that the workload itself listens on."""

    ports: Sequence[PortText] | None = None
    not_ports: Sequence[PortText] | None = None

    hosts: NeedsL7 = None
    not_hosts: NeedsL7 = None
    methods: NeedsL7 = None
    not_methods: NeedsL7 = None
    paths: NeedsL7 = None
    not_paths: NeedsL7 = None

    @model_validator(mode="after")
    def _check_not_empty(self) -> "Operation":
        if not self.ports and not self.not_ports:
            raise PydanticCustomError("empty_match", "must name at least one thing to match")
        return self


class RuleFrom(StrictModel):
    """Wraps a source, as Istio's schema does."""

    source: Source


class RuleTo(StrictModel):
    """Wraps an operation, as Istio's schema does."""

    operation: Operation


_CONDITION_PARSERS = {
    "source.ip": parse_ip_block,
    "destination.ip": parse_ip_block,
    "destination.port": _parse_port,
    "source.namespace": _check_pattern,
    "source.principal": _check_principal,
}


class Condition(StrictModel):
    """One more thing that must hold. Values are text; their form depends on the key, and is checked here."""

    key: str
    values: Sequence[str] | None = None
    not_values: Sequence[str] | None = None

    @field_validator("key")
    @classmethod
    def _check_key(cls, key: str) -> str:
        if key not in L4_CONDITION_KEYS:
            raise PydanticCustomError(
                "needs_waypoint",
                "ztunnel can judge only {keys}",
                {"keys": ", ".join(L4_CONDITION_KEYS)},
            )
        return key

    @field_validator("values", "not_values")
    @classmethod
    def _check_values(cls, values: Sequence[str] | None, info: ValidationInfo) -> Sequence[str] | None:
        parse = _CONDITION_PARSERS.get(info.data.get("key", ""))
        for value in values or ():
            if parse:  # an unknown key was refused already
                parse(value)
        return values

    @model_validator(mode="after")
    def _check_not_empty(self) -> "Condition":
        if not self.values and not self.not_values:
            raise PydanticCustomError("empty_match", "must have values or notValues")
        return self


class Rule(StrictModel):
    """Matches when its sources, its operations and all its conditions do. A rule without any matches everything."""

    from_: Annotated[Sequence[RuleFrom] | None, Field(alias="from")] = None
    to: Sequence[RuleTo] | None = None
    when: Sequence[Condition] | None = None


class AuthorizationPolicySpec(StrictModel):
    """What is allowed or denied, to which workloads."""

    selector: Selector | None = None
    action: Literal["ALLOW", "DENY", "AUDIT", "CUSTOM"] = "ALLOW"
    rules: Sequence[Rule] | None = None
    target_ref: NeedsWaypoint = None
    target_refs: NeedsWaypoint = None
    provider: NeedsWaypoint = None

    @field_validator("action")
    @classmethod
    def _check_action(cls, action: str) -> str:
        if action not in ("ALLOW", "DENY"):
            raise PydanticCustomError("unsupported", "ztunnel enforces only ALLOW and DENY")
        return action


class SecurityPolicy(KubernetesObject):
    """A security.istio.io object: what stands beside its spec is refused too, lest a misspelt `spec` make it empty."""

    model_config = ConfigDict(extra="forbid")

    GROUP: ClassVar[str] = "security.istio.io"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1", "v1beta1")

    status: object = None


class AuthorizationPolicy(SecurityPolicy):
    """Who may connect. Any matching DENY refuses; if any ALLOW applies, one of them must match."""

    spec: AuthorizationPolicySpec = AuthorizationPolicySpec()

    @property
    def match_labels(self) -> dict[str, str]:
        """The labels that select workloads; empty when the policy is for its whole namespace."""
        return (self.spec.selector.match_labels if self.spec.selector else None) or {}

    @property
    def is_dry_run(self) -> bool:
        """Whether its author asked for it not to be enforced."""
        return self.annotations.get("istio.io/dry-run") == "true"


class MutualTls(StrictModel):
    """Whether plaintext is accepted."""

    mode: Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"] = "UNSET"


def _check_port_key(value: str) -> str:
    _parse_port(value)
    return value


class PeerAuthenticationSpec(StrictModel):
    """The mode of a mesh, a namespace or a set of workloads, and of single ports of the latter."""

    selector: Selector | None = None
    mtls: MutualTls | None = None
    port_level_mtls: dict[Annotated[str, AfterValidator(_check_port_key)], MutualTls] | None = None

    @model_validator(mode="after")
    def _check_ports(self) -> "PeerAuthenticationSpec":
        if self.port_level_mtls and not (self.selector and self.selector.match_labels):
            raise PydanticCustomError("needs_selector", "portLevelMtls needs a selector with matchLabels")
        return self


class PeerAuthentication(SecurityPolicy):
    """Whether workloads accept plaintext from outside the mesh."""

    spec: PeerAuthenticationSpec = PeerAuthenticationSpec()

    @property
    def match_labels(self) -> dict[str, str]:
        """The labels that select workloads; empty when the policy is for its whole namespace or mesh."""
        return (self.spec.selector.match_labels if self.spec.selector else None) or {}

    @property
    def mode(self) -> str:
        """STRICT, PERMISSIVE, DISABLE or UNSET."""
        return self.spec.mtls.mode if self.spec.mtls else "UNSET"

    @property
    def port_modes(self) -> dict[int, str]:
        """The mode of each port that has its own."""
        return {int(port): mtls.mode for port, mtls in (self.spec.port_level_mtls or {}).items()}
