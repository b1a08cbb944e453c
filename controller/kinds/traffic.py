"""What Istio's VirtualService and DestinationRule share."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field

from controller.kinds.hosts import check_host, check_route_host
from controller.kinds.meta import PortNumber, StrictModel, check_label


def _check_named_host(value: str) -> str:
    return value if value == "*" else check_route_host(value)


def _check_scope(value: str) -> str:
    return value if value in (".", "*") else check_label(value)


RuleHost = Annotated[str, AfterValidator(_check_named_host)]
ServiceHost = Annotated[str, AfterValidator(check_host)]
RuleScope = Annotated[str, AfterValidator(_check_scope)]
"""Which namespaces see a rule: a namespace, `.` for its own, `*` for all."""


def is_exported(scopes: Sequence[str] | None, own: str, namespace: str) -> bool:
    """Whether `namespace` sees a rule of the namespace `own`. Without any scope all do."""
    return not scopes or any(scope == "*" or (own if scope == "." else scope) == namespace for scope in scopes)


class PortSelector(StrictModel):
    """A port by its number."""

    number: PortNumber


class Percent(StrictModel):
    """From 0 to 100."""

    value: Annotated[float | int, Field(ge=0, le=100)] = 0.0
