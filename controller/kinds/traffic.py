"""What Istio's VirtualService and DestinationRule share."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from controller.kinds.hosts import check_host, check_route_host
from controller.kinds.meta import PortNumber, StrictModel


def _check_named_host(value: str) -> str:
    return value if value == "*" else check_route_host(value)


def _refuse(value: object) -> object:
    if value is None:
        return None
    raise PydanticCustomError("unsupported", "is not carried out: take it out")


def _check_scope(value: str) -> str:
    if value not in (".", "*"):
        raise PydanticCustomError("unsupported", "must be '.' (this namespace) or '*' (all namespaces)")
    return value


NotCarriedOut = Annotated[None, BeforeValidator(_refuse)]
RuleHost = Annotated[str, AfterValidator(_check_named_host)]
ServiceHost = Annotated[str, AfterValidator(check_host)]
Scope = Annotated[str, AfterValidator(_check_scope)]


class PortSelector(StrictModel):
    """A port by its number."""

    number: PortNumber


class Percent(StrictModel):
    """From 0 to 100."""

    value: Annotated[float | int, Field(ge=0, le=100)] = 0.0
