"""Istio's Telemetry, as far as Envoys carry it out here: whether, and of which requests, they write an access log."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from controller.kinds.meta import StrictModel, StrictObject
from controller.kinds.policy_targets import Selector
from controller.kinds.proxies import ProxyTarget
from controller.kinds.refusals import Unsupported

Comparison = Literal["==", "!=", ">=", "<=", ">", "<"]
# Of CEL, in which Istio has it, what people write most, and what Envoy compares without an interpreter.
_EXPRESSION = re.compile(r"\s*response\.code\s*(==|!=|>=|<=|>|<)\s*([1-5][0-9]{2})\s*")


@dataclass(frozen=True, slots=True)
class StatusComparison:
    """Which statuses of answers are meant."""

    comparison: str
    status: int


def _check_expression(value: str) -> str:
    if not _EXPRESSION.fullmatch(value):
        raise PydanticCustomError(
            "log_expression", "is not carried out: only comparisons like response.code >= 400 are"
        )
    return value


def _refuse_mode(value: object) -> object:
    if value == "SERVER":
        raise PydanticCustomError(
            "unsupported", "is not carried out: what comes into pods passes no Envoy; write CLIENT, or leave match out"
        )
    return value


class LogProvider(StrictModel):
    """Where a log is written; `envoy` is Envoy's standard output."""

    name: Literal["envoy"]


class LogMatch(StrictModel):
    """Of which side's proxies; Gateways count as clients (Istio's reading)."""

    mode: Annotated[Literal["CLIENT", "CLIENT_AND_SERVER"], BeforeValidator(_refuse_mode)] = "CLIENT_AND_SERVER"


class LogFilter(StrictModel):
    """Of which requests."""

    expression: Annotated[str, AfterValidator(_check_expression)]

    @property
    def comparison(self) -> StatusComparison:
        """What the expression says."""
        found = _EXPRESSION.fullmatch(self.expression)
        assert found is not None, "it was checked"
        return StatusComparison(found[1], int(found[2]))


class AccessLogging(StrictModel):
    """An access log."""

    providers: Annotated[Sequence[LogProvider] | None, Field(max_length=1)] = None
    match: LogMatch | None = None
    filter: LogFilter | None = None
    disabled: bool = False


class TelemetrySpec(StrictModel):
    """For which proxies, and what they tell. More than one access log would be the same one twice."""

    selector: Selector | None = None
    target_refs: Annotated[Sequence[ProxyTarget] | None, Field(max_length=16)] = None
    target_ref: Unsupported = None
    access_logging: Annotated[Sequence[AccessLogging] | None, Field(max_length=1)] = None
    metrics: Unsupported = None
    tracing: Unsupported = None

    @model_validator(mode="after")
    def _check_choice(self) -> "TelemetrySpec":
        if self.selector and self.target_refs:
            raise PydanticCustomError("combination", "selector and targetRefs exclude each other")
        return self


class Telemetry(StrictObject):
    """What proxies tell of requests."""

    GROUP: ClassVar[str] = "telemetry.istio.io"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1", "v1alpha1")

    spec: TelemetrySpec
