"""Gateway API's HTTPRoute: which requests go where.

Of filters and fields, what is not carried out is refused by name: a filter that is skipped would let through what its
author wanted changed (Gateway API: such requests must fail).
"""

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from controller.kinds.durations import Duration
from controller.kinds.gateway_api import (
    BackendReference,
    GatewayApiObject,
    ParentReference,
    RouteHost,
)
from controller.kinds.meta import PortNumber, StrictModel
from controller.kinds.patterns import check_regex
from controller.kinds.refusals import Unsupported

# RFC 9110, section 5.6.2: a token.
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}")


def check_header_name(value: str) -> str:
    """A header's name, in lower case. For use by validators."""
    if not _TOKEN.fullmatch(value):
        raise PydanticCustomError("header_name", "is no header name: letters, digits and !#$%&'*+.^_`|~-")
    return value.lower()


def _check_changed_name(value: str) -> str:
    name = check_header_name(value)
    if name == "host":
        raise PydanticCustomError("unsupported", "the host is changed with a URLRewrite filter")
    return name


def _check_header_value(value: str) -> str:
    if any((ord(each) < 0x20 and each != "\t") or ord(each) == 0x7F for each in value):
        raise PydanticCustomError("header_value", "has a control character")
    return value


def _check_path(value: str) -> str:
    if not value.startswith("/") or any(bad in value for bad in ("//", "/./", "/../", "%2f", "%2F", "#", "?")):
        raise PydanticCustomError("path_value", "must begin with '/', and have none of //, /./, /../, %2F, # and ?")
    return value


HeaderName = Annotated[str, AfterValidator(check_header_name)]
ChangedName = Annotated[str, AfterValidator(_check_changed_name)]
HeaderValue = Annotated[str, AfterValidator(_check_header_value)]
Path = Annotated[str, AfterValidator(_check_path)]


class PathMatch(StrictModel):
    """Which paths, without their query. A prefix is one of whole elements: /a is one of /a/b, and not of /ab."""

    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    value: Annotated[str, Field(max_length=1024)] = "/"

    @model_validator(mode="after")
    def _check_value(self) -> "PathMatch":
        (check_regex if self.type == "RegularExpression" else _check_path)(self.value)
        return self


class NamedMatch(StrictModel):
    """A header, or a parameter of the query, with this value."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: HeaderName
    value: str

    @model_validator(mode="after")
    def _check_value(self) -> "NamedMatch":
        if self.type == "RegularExpression":
            check_regex(self.value)
        return self


class QueryMatch(NamedMatch):
    """A parameter of the query with this value. Its name may have capital letters."""

    name: Annotated[str, Field(min_length=1, max_length=256)]


class HttpMatch(StrictModel):
    """Requests that meet all of it."""

    path: PathMatch = PathMatch()
    headers: Sequence[NamedMatch] | None = None
    query_params: Sequence[QueryMatch] | None = None
    method: Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"] | None = None


class Header(StrictModel):
    """A header and its value."""

    name: ChangedName
    value: HeaderValue


class HeaderModifier(StrictModel):
    """Headers that are set, added beside what is there, or taken away."""

    set: Sequence[Header] | None = None
    add: Sequence[Header] | None = None
    remove: Sequence[ChangedName] | None = None


class PathModifier(StrictModel):
    """Another path: whole, or in place of the prefix that matched."""

    type: Literal["ReplaceFullPath", "ReplacePrefixMatch"]
    replace_full_path: str | None = None
    replace_prefix_match: str | None = None

    @model_validator(mode="after")
    def _check_value(self) -> "PathModifier":
        is_full = self.type == "ReplaceFullPath"
        value = self.replace_full_path if is_full else self.replace_prefix_match
        other = self.replace_prefix_match if is_full else self.replace_full_path
        if value is None or other is not None:
            field = "replaceFullPath" if is_full else "replacePrefixMatch"
            raise PydanticCustomError("combination", "{type} needs {field} only", {"type": self.type, "field": field})
        return self

    @property
    def value(self) -> str:
        """What is put in its place."""
        return self.replace_full_path or self.replace_prefix_match or ""


class RequestRedirect(StrictModel):
    """An answer that sends the client elsewhere."""

    scheme: Literal["http", "https"] | None = None
    hostname: RouteHost | None = None
    path: PathModifier | None = None
    port: PortNumber | None = None
    status_code: Literal[301, 302, 303, 307, 308] = 302


class UrlRewrite(StrictModel):
    """Another host or path for the backend."""

    hostname: RouteHost | None = None
    path: PathModifier | None = None


class Fraction(StrictModel):
    """`numerator` of `denominator`."""

    numerator: Annotated[int, Field(ge=0)]
    denominator: Annotated[int, Field(gt=0)] = 100


class RequestMirror(StrictModel):
    """A copy of requests, whose answers are thrown away."""

    backend_ref: BackendReference
    percent: Annotated[int | None, Field(ge=0, le=100)] = None
    fraction: Fraction | None = None

    @model_validator(mode="after")
    def _check_share(self) -> "RequestMirror":
        if self.percent is not None and self.fraction is not None:
            raise PydanticCustomError("combination", "percent and fraction exclude each other")
        return self

    @property
    def share(self) -> float:
        """From 0 to 1."""
        if self.fraction is not None:
            return min(1.0, self.fraction.numerator / self.fraction.denominator)
        return 1.0 if self.percent is None else self.percent / 100


class Cors(StrictModel):
    """Which pages of other origins may read the answers."""

    allow_origins: Sequence[str] | None = None
    allow_credentials: bool | None = None
    allow_methods: Sequence[str] | None = None
    allow_headers: Sequence[str] | None = None
    expose_headers: Sequence[str] | None = None
    max_age: Annotated[int, Field(ge=1)] = 5


_FILTERS = {
    "RequestHeaderModifier": "request_header_modifier",
    "ResponseHeaderModifier": "response_header_modifier",
    "RequestRedirect": "request_redirect",
    "URLRewrite": "url_rewrite",
    "RequestMirror": "request_mirror",
    "CORS": "cors",
}


class Filter(StrictModel):
    """One thing that is done to a request or its answer."""

    type: Literal[
        "RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite", "RequestMirror", "CORS"
    ]
    request_header_modifier: HeaderModifier | None = None
    response_header_modifier: HeaderModifier | None = None
    request_redirect: RequestRedirect | None = None
    url_rewrite: UrlRewrite | None = None
    request_mirror: RequestMirror | None = None
    cors: Cors | None = None
    extension_ref: Unsupported = None
    external_auth: Unsupported = None

    @model_validator(mode="after")
    def _check_field(self) -> "Filter":
        for kind, field in _FILTERS.items():
            if (getattr(self, field) is not None) != (kind == self.type):
                raise PydanticCustomError(
                    "combination", "a filter of type {type} has the field of that name only", {"type": self.type}
                )
        return self


class HttpBackend(BackendReference):
    """A share of the requests, by weight, and what is done to it."""

    weight: Annotated[int, Field(ge=0, le=1_000_000)] = 1
    filters: Sequence[Filter] | None = None

    @model_validator(mode="after")
    def _check_filters(self) -> "HttpBackend":
        for each in self.filters or ():
            if each.type not in ("RequestHeaderModifier", "ResponseHeaderModifier"):
                raise PydanticCustomError("unsupported", "a backend's filter can only change headers")
        return self


class Timeouts(StrictModel):
    """How long a request may take with all its retries, and each try of it. 0 is as long as it takes."""

    request: Duration | None = None
    backend_request: Duration | None = None

    @model_validator(mode="after")
    def _check_order(self) -> "Timeouts":
        if self.request and self.backend_request and self.backend_request > self.request:
            raise PydanticCustomError("combination", "backendRequest is longer than request, which covers it")
        return self


class Retry(StrictModel):
    """Which answers are tried again, how often, and after which pause."""

    codes: Sequence[Annotated[int, Field(ge=400, le=599)]] | None = None
    attempts: Annotated[int, Field(ge=0, le=100)] | None = None
    backoff: Duration | None = None


class RouteRule(StrictModel):
    """What rules of all routes have in common: what is done with requests, and where they go."""

    name: str | None = None
    filters: Sequence[Filter] | None = None
    backend_refs: Sequence[HttpBackend] | None = None
    session_persistence: Unsupported = None

    @model_validator(mode="after")
    def _check_once(self) -> "RouteRule":
        kinds = [each.type for each in self.filters or ()]
        for kind in kinds:
            if kind != "RequestMirror" and kinds.count(kind) > 1:
                raise PydanticCustomError("combination", "the filter {kind} stands twice in a rule", {"kind": kind})
        return self


class HttpRule(RouteRule):
    """What is done with the requests that any of its matches meets."""

    matches: Sequence[HttpMatch] | None = None
    timeouts: Timeouts | None = None
    retry: Retry | None = None

    @model_validator(mode="after")
    def _check_filters(self) -> "HttpRule":
        kinds = [each.type for each in self.filters or ()]
        if "RequestRedirect" in kinds and ("URLRewrite" in kinds or self.backend_refs):
            raise PydanticCustomError("combination", "a rule that redirects has no backends and rewrites nothing")
        for each in self.filters or ():
            change = each.url_rewrite or each.request_redirect
            if change and change.path and change.path.type == "ReplacePrefixMatch":
                self._check_prefixes()
        return self

    def _check_prefixes(self) -> None:
        if any(match.path.type != "PathPrefix" for match in self.matches or ()):
            raise PydanticCustomError("combination", "ReplacePrefixMatch needs matches of type PathPrefix only")


class HttpRouteSpec(StrictModel):
    """For which hosts, attached to what, which rules."""

    parent_refs: Sequence[ParentReference] | None = None
    hostnames: Sequence[RouteHost] | None = None
    rules: Sequence[HttpRule] | None = None
    use_default_gateways: Unsupported = None


class HTTPRoute(GatewayApiObject):
    """Where HTTP requests go that come to a Gateway, or to a Service."""

    spec: HttpRouteSpec = HttpRouteSpec()

    @property
    def rules(self) -> Sequence[HttpRule]:
        """Its rules; one that sends everything nowhere where it has none (Gateway API's default)."""
        return self.spec.rules if self.spec.rules is not None else (HttpRule(),)

    @property
    def hostnames(self) -> Sequence[str]:
        """The hosts that it is for; any where it has none."""
        return self.spec.hostnames or ()
