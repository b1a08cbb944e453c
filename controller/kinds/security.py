"""Istio's security.istio.io kinds that say who may connect, and who may ask for what.

A policy with targets is enforced by Envoys, one with a selector by the Envoys of gateways that it selects and by the
ztunnels of pods. One with neither is enforced by ztunnels alone, and a field that only L7 can judge is refused in it,
by name. What ztunnels are told is never wider than what was written (`controller.registry.byte_policies`).
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from controller.kinds.meta import StrictModel, StrictObject
from controller.kinds.policy_conditions import TOKEN_ATTRIBUTES, Condition
from controller.kinds.policy_targets import (
    NEEDS_TARGETS,
    PolicyTargetReference,
    Selector,
    TargetedSpec,
    check_target_namespaces,
    is_choosy,
)
from controller.kinds.policy_values import (
    IpBlocks,
    MethodPattern,
    PathPattern,
    Patterns,
    PortText,
    Principal,
    RequestPrincipal,
    ServiceAccountName,
    parse_port,
)


class Source(StrictModel):
    """Who connects. The fields must all hold; of one field's values any may, and of a not-field's none."""

    principals: Sequence[Principal] | None = None
    not_principals: Sequence[Principal] | None = None
    namespaces: Patterns | None = None
    not_namespaces: Patterns | None = None
    service_accounts: Sequence[ServiceAccountName] | None = None
    not_service_accounts: Sequence[ServiceAccountName] | None = None
    ip_blocks: IpBlocks | None = None
    not_ip_blocks: IpBlocks | None = None

    request_principals: Annotated[Sequence[RequestPrincipal] | None, NEEDS_TARGETS] = None
    not_request_principals: Annotated[Sequence[RequestPrincipal] | None, NEEDS_TARGETS] = None
    remote_ip_blocks: Annotated[IpBlocks | None, NEEDS_TARGETS] = None
    not_remote_ip_blocks: Annotated[IpBlocks | None, NEEDS_TARGETS] = None
    trust_domains: Annotated[Patterns | None, NEEDS_TARGETS] = None
    not_trust_domains: Annotated[Patterns | None, NEEDS_TARGETS] = None

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
    """What is asked for. Without targets that is the port that the workload itself listens on."""

    ports: Sequence[PortText] | None = None
    not_ports: Sequence[PortText] | None = None

    hosts: Annotated[Patterns | None, NEEDS_TARGETS] = None
    not_hosts: Annotated[Patterns | None, NEEDS_TARGETS] = None
    methods: Annotated[Sequence[MethodPattern] | None, NEEDS_TARGETS] = None
    not_methods: Annotated[Sequence[MethodPattern] | None, NEEDS_TARGETS] = None
    paths: Annotated[Sequence[PathPattern] | None, NEEDS_TARGETS] = None
    not_paths: Annotated[Sequence[PathPattern] | None, NEEDS_TARGETS] = None

    @model_validator(mode="after")
    def _check_not_empty(self) -> "Operation":
        if not any(getattr(self, field) for field in type(self).model_fields):
            raise PydanticCustomError("empty_match", "must name at least one thing to match")
        return self


class RuleFrom(StrictModel):
    """Wraps a source, as Istio's schema does."""

    source: Source


class RuleTo(StrictModel):
    """Wraps an operation, as Istio's schema does."""

    operation: Operation


class Rule(StrictModel):
    """Matches when its sources, its operations and all its conditions do. A rule without any matches everything."""

    from_: Annotated[Sequence[RuleFrom] | None, Field(alias="from")] = None
    to: Sequence[RuleTo] | None = None
    when: Sequence[Condition] | None = None


class ProviderReference(StrictModel):
    """One of the extension providers of the mesh's settings."""

    name: Annotated[str, Field(min_length=1)]


class AuthorizationPolicySpec(TargetedSpec):
    """What is allowed, denied, logged or left to others to decide, to which workloads or at which targets."""

    action: Literal["ALLOW", "DENY", "AUDIT", "CUSTOM"] = "ALLOW"
    rules: Sequence[Rule] | None = None
    provider: ProviderReference | None = None

    @field_validator("action")
    @classmethod
    def _check_action(cls, action: str) -> str:
        if action not in ("ALLOW", "DENY") and not is_choosy():
            raise PydanticCustomError(
                "needs_targets",
                "ztunnel, which enforces this policy, has ALLOW and DENY only; for others name a Gateway or Service in "
                "targetRefs, or select a gateway by its labels",
            )
        return action

    @model_validator(mode="after")
    def _check_provider(self) -> "AuthorizationPolicySpec":
        is_custom = self.action == "CUSTOM"
        if is_custom != (self.provider is not None):
            raise PydanticCustomError("combination", "action CUSTOM needs a provider, and no other has one")
        if is_custom and not self.rules:
            raise PydanticCustomError(
                "combination", "action CUSTOM needs rules, which say what its provider is asked about"
            )
        if is_custom and any(map(_asks_for_tokens, self.rules or ())):
            raise PydanticCustomError(
                "unsupported", "action CUSTOM comes before tokens are read: ask for none in its rules"
            )
        return self


def _asks_for_tokens(rule: Rule) -> bool:
    sources = (each.source for each in rule.from_ or ())
    return any(each.request_principals or each.not_request_principals for each in sources) or any(
        each.parsed_key.attribute in TOKEN_ATTRIBUTES for each in rule.when or ()
    )


class SecurityPolicy(StrictObject):
    """A security.istio.io object."""

    GROUP: ClassVar[str] = "security.istio.io"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1", "v1beta1")


class TargetedPolicy(SecurityPolicy):
    """A policy that may be attached to what it names; with such targets it is for Envoys and not for ztunnels."""

    spec: TargetedSpec

    @field_validator("spec")
    @classmethod
    def _check_targets(cls, spec: TargetedSpec, info: ValidationInfo) -> TargetedSpec:
        check_target_namespaces(spec, info.data.get("metadata"))
        return spec

    @property
    def targets(self) -> Sequence[PolicyTargetReference]:
        """What it is attached to by name."""
        return self.spec.targets

    @property
    def match_labels(self) -> dict[str, str]:
        """The labels of what it selects; empty when it is for its whole namespace, or has targets."""
        return self.spec.match_labels


class AuthorizationPolicy(TargetedPolicy):
    """Who may connect, or ask. Any matching DENY refuses; if any ALLOW applies, one of them must match."""

    spec: AuthorizationPolicySpec = AuthorizationPolicySpec()

    @model_validator(mode="after")
    def _check_dry_run(self) -> "AuthorizationPolicy":
        if self.is_dry_run and self.spec.action not in ("ALLOW", "DENY"):
            raise PydanticCustomError("unsupported", "only ALLOW and DENY can be rehearsed: take istio.io/dry-run out")
        return self

    @property
    def is_dry_run(self) -> bool:
        """Whether its author asked for it not to be enforced."""
        return self.annotations.get("istio.io/dry-run") == "true"


class MutualTls(StrictModel):
    """Whether plaintext is accepted."""

    mode: Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"] = "UNSET"


def _check_port_key(value: str) -> str:
    parse_port(value)
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
