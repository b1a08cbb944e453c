"""What the conditions of an AuthorizationPolicy (`when`) can ask about (Istio's names; facts of L7, section 4)."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydantic import ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from controller.kinds.http_route import check_header_name
from controller.kinds.meta import StrictModel
from controller.kinds.policy_targets import is_choosy
from controller.kinds.policy_values import (
    check_pattern,
    check_principal,
    check_request_principal,
    check_service_account,
    parse_ip_block,
    parse_port,
)


class Attribute(StrEnum):
    """What is asked about. Headers and claims are followed by names in brackets."""

    SOURCE_IP = "source.ip"
    SOURCE_NAMESPACE = "source.namespace"
    SOURCE_PRINCIPAL = "source.principal"
    SOURCE_SERVICE_ACCOUNT = "source.serviceAccount"
    SOURCE_TRUST_DOMAIN = "source.trustDomain"
    REMOTE_IP = "remote.ip"
    REQUEST_HEADER = "request.headers"
    REQUEST_PRINCIPAL = "request.auth.principal"
    REQUEST_AUDIENCES = "request.auth.audiences"
    REQUEST_PRESENTER = "request.auth.presenter"
    REQUEST_CLAIM = "request.auth.claims"
    DESTINATION_IP = "destination.ip"
    DESTINATION_PORT = "destination.port"
    SERVER_NAME = "connection.sni"


L4_ATTRIBUTES = (
    Attribute.SOURCE_IP,
    Attribute.SOURCE_NAMESPACE,
    Attribute.SOURCE_PRINCIPAL,
    Attribute.DESTINATION_IP,
    Attribute.DESTINATION_PORT,
)
"""What ztunnel can judge."""

TOKEN_ATTRIBUTES = (
    Attribute.REQUEST_PRINCIPAL,
    Attribute.REQUEST_AUDIENCES,
    Attribute.REQUEST_PRESENTER,
    Attribute.REQUEST_CLAIM,
)
"""What only an accepted token tells."""

_CHECKS: Mapping[Attribute, Callable[[str], object]] = {
    Attribute.SOURCE_IP: parse_ip_block,
    Attribute.REMOTE_IP: parse_ip_block,
    Attribute.DESTINATION_IP: parse_ip_block,
    Attribute.DESTINATION_PORT: parse_port,
    Attribute.SOURCE_PRINCIPAL: check_principal,
    Attribute.SOURCE_SERVICE_ACCOUNT: check_service_account,
    Attribute.REQUEST_PRINCIPAL: check_request_principal,
}
_KEY = re.compile(r"([a-zA-Z.]+)((?:\[[^\[\]]+\])*)")
_NAMES = re.compile(r"\[([^\[\]]+)\]")


@dataclass(frozen=True, slots=True)
class ConditionKey:
    """A key, parsed. `path` is a header's name, or a claim's and those of the claims inside of it."""

    attribute: Attribute
    path: tuple[str, ...] = ()


def parse_condition_key(text: str) -> ConditionKey:
    """Parse a key. For use by validators."""
    found = _KEY.fullmatch(text)
    path = tuple(_NAMES.findall(found[2])) if found else ()
    if found is None or found[1] not in set(Attribute):
        raise PydanticCustomError("condition_key", "must be one of {keys}", {"keys": ", ".join(Attribute)})
    attribute = Attribute(found[1])
    match attribute:
        case Attribute.REQUEST_HEADER if len(path) == 1:
            return ConditionKey(attribute, (check_header_name(path[0]),))
        case Attribute.REQUEST_HEADER:
            raise PydanticCustomError("condition_key", "must name one header, as in request.headers[x-user]")
        case Attribute.REQUEST_CLAIM if not path:
            raise PydanticCustomError("condition_key", "must name a claim, as in request.auth.claims[groups]")
        case _ if path and attribute is not Attribute.REQUEST_CLAIM:
            raise PydanticCustomError("condition_key", "{key} has no names in brackets", {"key": attribute})
    return ConditionKey(attribute, path)


class Condition(StrictModel):
    """One more thing that must hold. Values are text; their form depends on the key, and is checked here."""

    key: str
    values: Sequence[str] | None = None
    not_values: Sequence[str] | None = None

    @property
    def parsed_key(self) -> ConditionKey:
        return parse_condition_key(self.key)

    @field_validator("key")
    @classmethod
    def _check_key(cls, key: str) -> str:
        if parse_condition_key(key).attribute not in L4_ATTRIBUTES and not is_choosy():
            raise PydanticCustomError(
                "needs_targets",
                "ztunnel, which enforces this policy, can judge only {keys}; for others name a Gateway or Service in "
                "targetRefs, or select a gateway by its labels",
                {"keys": ", ".join(L4_ATTRIBUTES)},
            )
        return key

    @field_validator("values", "not_values")
    @classmethod
    def _check_values(cls, values: Sequence[str] | None, info: ValidationInfo) -> Sequence[str] | None:
        key = info.data.get("key")
        if key is not None:  # one that is not known was refused already
            check = _CHECKS.get(parse_condition_key(key).attribute, check_pattern)
            for value in values or ():
                check(value)
        return values

    @model_validator(mode="after")
    def _check_not_empty(self) -> "Condition":
        if not self.values and not self.not_values:
            raise PydanticCustomError("empty_match", "must have values or notValues")
        return self
