"""What Istio's VirtualService and DestinationRule share."""

from typing import Annotated

from pydantic import AfterValidator, Field

from controller.kinds.hosts import check_host, check_route_host
from controller.kinds.meta import PortNumber, StrictModel


def _check_named_host(value: str) -> str:
    return value if value == "*" else check_route_host(value)


RuleHost = Annotated[str, AfterValidator(_check_named_host)]
ServiceHost = Annotated[str, AfterValidator(check_host)]


class PortSelector(StrictModel):
    """A port by its number."""

    number: PortNumber


class Percent(StrictModel):
    """From 0 to 100."""

    value: Annotated[float | int, Field(ge=0, le=100)] = 0.0
