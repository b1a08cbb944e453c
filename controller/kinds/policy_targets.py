"""What a policy is attached to by name, and how the rest of it is read by that.

A policy with targets is carried out by the Envoys of these, which know requests; one without them by ztunnels, which
know connections. One with a selector may be for either: gateways have labels too. A field that only Envoys can judge
(`NEEDS_TARGETS`) is refused where it stands in a policy that has neither.
"""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, ModelWrapValidatorHandler, model_validator
from pydantic_core import PydanticCustomError

from controller.kinds.gateway_api import GROUP
from controller.kinds.meta import DEFAULT_NAMESPACE, LabelName, ObjectMeta, StrictModel, SubdomainName

# Istio's bound (facts of the control plane, section 12).
MAX_TARGETS = 16
GATEWAY, GATEWAY_CLASS, SERVICE = "Gateway", "GatewayClass", "Service"
_GROUPS = {GATEWAY: (GROUP,), GATEWAY_CLASS: (GROUP,), SERVICE: ("", "core")}

_is_choosy: ContextVar[bool] = ContextVar("is_choosy", default=False)


def _refuse_without_targets(value: object) -> object:
    if value is None or is_choosy():
        return value
    raise PydanticCustomError(
        "needs_targets",
        "only an L7 proxy can judge this, and ztunnel enforces this policy: name a Gateway or Service in targetRefs, "
        "select a gateway by its labels, or take it out",
    )


NEEDS_TARGETS = BeforeValidator(_refuse_without_targets)


def is_choosy() -> bool:
    """Whether the policy that is being read has targets or a selector. For use by validators."""
    return _is_choosy.get()


class PolicyTargetReference(StrictModel):
    """One target. It is of the policy's own namespace, but for a GatewayClass, which has none."""

    group: str = ""
    kind: str
    name: SubdomainName
    namespace: LabelName | None = None

    @model_validator(mode="after")
    def _check_kind(self) -> "PolicyTargetReference":
        if self.group not in _GROUPS.get(self.kind, ()):
            raise PydanticCustomError(
                "unsupported",
                "is no target that is carried out; those are Gateway and GatewayClass of {group}, and Service",
                {"group": GROUP},
            )
        return self

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class Selector(StrictModel):
    """Which workloads: those that carry all of these labels. An empty one is no selector at all."""

    match_labels: dict[str, str] | None = None


class TargetedSpec(StrictModel):
    """A policy's spec, as far as it says what the policy is for."""

    selector: Selector | None = None
    target_ref: PolicyTargetReference | None = None
    target_refs: Annotated[Sequence[PolicyTargetReference], Field(min_length=1, max_length=MAX_TARGETS)] | None = None

    @property
    def targets(self) -> Sequence[PolicyTargetReference]:
        """All that it names, in either form."""
        return [self.target_ref] if self.target_ref else self.target_refs or ()

    @property
    def match_labels(self) -> dict[str, str]:
        """The labels of what it selects; empty when it is for its whole namespace, or has targets."""
        return (self.selector.match_labels if self.selector else None) or {}

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, value: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        fields = value if isinstance(value, Mapping) else {}
        selector = fields.get("selector")
        has_labels = isinstance(selector, Mapping) and bool(selector.get("matchLabels"))
        token = _is_choosy.set(has_labels or bool(fields.get("targetRef") or fields.get("targetRefs")))
        try:
            return handler(value)
        finally:
            _is_choosy.reset(token)

    @model_validator(mode="after")
    def _check_forms(self) -> Self:
        if self.target_ref and self.target_refs:
            raise PydanticCustomError("combination", "has targetRef and targetRefs: write all targets in targetRefs")
        if self.targets and self.selector:
            raise PydanticCustomError("combination", "has a selector and targets: a policy has one of the two")
        return self


def check_target_namespaces(spec: TargetedSpec, metadata: ObjectMeta | None) -> None:
    """Refuse targets of other namespaces. For use by validators; without metadata there is nothing to compare with."""
    own = (metadata.namespace if metadata else None) or DEFAULT_NAMESPACE
    for target in spec.targets:
        if metadata and target.namespace not in (None, own):
            raise PydanticCustomError(
                "target_namespace",
                "{target} is of namespace {namespace}: a policy and its targets are of one namespace",
                {"target": str(target), "namespace": target.namespace or ""},
            )
