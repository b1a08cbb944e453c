"""The values that policies compare with: patterns, identities, addresses, ports, paths, hosts and methods."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

IpBlock = IPv4Network | IPv6Network

ANY_SEGMENT, ANY_SEGMENTS = "{*}", "{**}"
"""Istio's path templates: one segment, and any number of them."""


def check_pattern(value: str) -> str:
    """Istio's string patterns: `*`, `x*`, `*x`, or exact. A star elsewhere would be matched literally, so never."""
    if not value:
        raise PydanticCustomError("pattern_empty", "must not be empty; write '*' for any value")
    if "*" in (value[1:] if value.startswith("*") else value[:-1]):
        raise PydanticCustomError("pattern_star", "may have one '*', at its beginning or its end")
    return value


def check_principal(value: str) -> str:
    """A pattern of identities."""
    if value.startswith("spiffe:"):
        raise PydanticCustomError(
            "principal_prefix", "is written without spiffe://, as in cluster.local/ns/NAMESPACE/sa/SERVICE-ACCOUNT"
        )
    return check_pattern(value)


def check_request_principal(value: str) -> str:
    """A pattern of ISSUER/SUBJECT."""
    if "*" not in value and "/" not in value:
        raise PydanticCustomError("request_principal", "must be ISSUER/SUBJECT, or a pattern with '*'")
    return check_pattern(value)


def check_service_account(value: str) -> str:
    """An account, of the policy's namespace where it names none."""
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


def parse_port(value: object) -> int:
    """Parse a port that is text. For use by validators."""
    if not isinstance(value, str):
        raise PydanticCustomError("port_type", 'must be a port as text, as in "8080"')
    if not (value.isascii() and value.isdigit() and 0 < int(value[:6]) <= 65535):
        raise PydanticCustomError("port_value", "is not a port between 1 and 65535")
    return int(value)


def _check_method(value: str) -> str:
    if value != value.upper():
        raise PydanticCustomError("method_value", "no request has it: methods are written in capital letters")
    return check_pattern(value)


def is_template(path: str) -> bool:
    """Whether a path of a policy is a template and no pattern."""
    return "{" in path or "}" in path


def _check_path(value: str) -> str:
    """A template, or a pattern of paths as proxies see them: normalised, without query and fragment."""
    is_normal = not any(each in f"{value}/" for each in ("?", "#", "/./", "/../"))
    if not (is_normal and value.startswith(("/", "*"))):
        raise PydanticCustomError(
            "path_value", "must begin with '/' or '*', and have none of /./, /../, # and ?: no normalised path does"
        )
    if not is_template(value):
        return check_pattern(value)
    operators: list[str] = []
    for segment in value.split("/"):
        if segment in (ANY_SEGMENT, ANY_SEGMENTS):
            operators.append(segment)
        elif any(each in segment for each in "{}*"):
            raise PydanticCustomError("path_template", "in a template {*} and {**} are whole segments, and no other *")
    if ANY_SEGMENTS in operators[:-1]:
        raise PydanticCustomError("path_template", "{**} must be the last one of a template")
    return value


Pattern = Annotated[str, AfterValidator(check_pattern)]
Principal = Annotated[str, AfterValidator(check_principal)]
RequestPrincipal = Annotated[str, AfterValidator(check_request_principal)]
ServiceAccountName = Annotated[str, AfterValidator(check_service_account)]
MethodPattern = Annotated[str, AfterValidator(_check_method)]
PathPattern = Annotated[str, AfterValidator(_check_path)]
IpBlockText = Annotated[IpBlock, BeforeValidator(parse_ip_block), WithJsonSchema({"type": "string"})]
PortText = Annotated[int, BeforeValidator(parse_port), PlainSerializer(str), WithJsonSchema({"type": "string"})]

Patterns = Sequence[Pattern]
IpBlocks = Sequence[IpBlockText]
