"""Istio's RequestAuthentication: whose tokens (JWTs) are believed at a target, and where they are looked for.

It is carried out by Envoys only: those of its targets, or of the gateways that it selects, or all of its namespace
(facts of the control plane, section 12).
"""

import json
from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from controller.kinds.durations import Duration
from controller.kinds.http_route import HeaderName, HeaderValue
from controller.kinds.meta import StrictModel
from controller.kinds.policy_targets import TargetedSpec
from controller.kinds.security import TargetedPolicy

# Istio's, for fetching keys (facts of L7, section 4).
DEFAULT_TIMEOUT_MILLISECONDS = 5_000
# An answer with keys is some kilobytes, and each listener of a target holds a copy.
MAX_KEYS_CHARACTERS = 128 * 1024


def check_keys(text: str) -> str:
    """Refuse what is no set of public keys (RFC 7517, section 5). For use by validators; raises PydanticCustomError."""
    if len(text) > MAX_KEYS_CHARACTERS:
        raise PydanticCustomError("jwks_value", "is longer than {most} characters", {"most": MAX_KEYS_CHARACTERS})
    try:
        document: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PydanticCustomError("jwks_value", "is no JSON") from error
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list) or not keys or not all(isinstance(each, dict) and "kty" in each for each in keys):
        raise PydanticCustomError("jwks_value", "is no set of keys: an object with keys, each of them with its kty")
    return text


def _check_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port)
    except ValueError:
        is_usable = False
    if not is_usable or "@" in parts.netloc:
        raise PydanticCustomError("url_value", "is no URL of http or https without a user")
    return value


Text = Annotated[str, Field(min_length=1)]


class TokenHeader(StrictModel):
    """A header with a token, behind a prefix."""

    name: HeaderName
    prefix: HeaderValue = ""


class ClaimToHeader(StrictModel):
    """A claim, of which the application gets a copy. Dots lead to claims inside of it."""

    header: HeaderName
    claim: Text


class JwtRule(StrictModel):
    """Whose tokens are believed, by which keys, and what the application gets of them."""

    issuer: Text
    audiences: Sequence[Text] | None = None
    jwks: Annotated[str, AfterValidator(check_keys)] | None = None
    jwks_uri: Annotated[str, AfterValidator(_check_url)] | None = None
    from_headers: Sequence[TokenHeader] | None = None
    from_params: Sequence[Text] | None = None
    from_cookies: Sequence[Text] | None = None
    output_payload_to_header: HeaderName | None = None
    output_claim_to_headers: Sequence[ClaimToHeader] | None = None
    forward_original_token: bool = False
    timeout: Duration = DEFAULT_TIMEOUT_MILLISECONDS
    space_delimited_claims: Sequence[Text] | None = None

    @model_validator(mode="after")
    def _check_keys_are_named(self) -> "JwtRule":
        if bool(self.jwks) == bool(self.jwks_uri):
            raise PydanticCustomError("combination", "must have jwks or jwksUri, and not both: issuers are not asked")
        return self


class RequestAuthenticationSpec(TargetedSpec):
    """Any of these rules may accept a token."""

    jwt_rules: Sequence[JwtRule] | None = None


class RequestAuthentication(TargetedPolicy):
    """A request without a token passes, one with a token that is not accepted gets 401."""

    spec: RequestAuthenticationSpec

    @property
    def key_urls(self) -> Sequence[str]:
        """Where its rules have their keys from, if not from the rules themselves."""
        return [rule.jwks_uri for rule in self.spec.jwt_rules or () if rule.jwks_uri]
