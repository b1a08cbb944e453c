"""Routes of requests as the mesh sees them, whoever wrote them: Gateway API's HTTPRoute or Istio's VirtualService.

A table is chosen by where a request arrived, a virtual host by the host that it asks for, a route by order: the first
whose match is met. Times are in milliseconds.
"""

from dataclasses import dataclass
from enum import Enum


class PathForm(Enum):
    """How a path is compared: whole, by its beginning, by its first elements, or by an RE2 expression of the whole."""

    EXACT = "exact"
    PREFIX = "prefix"
    ELEMENTS = "elements"
    REGEX = "regex"


class TextForm(Enum):
    """How a text is compared: whole, by its beginning, by an RE2 expression of the whole, or only for being there."""

    EXACT = "exact"
    PREFIX = "prefix"
    REGEX = "regex"
    PRESENT = "present"


@dataclass(frozen=True, slots=True)
class PathMatch:
    """A path without its query. One of ELEMENTS has no '/' at its end."""

    form: PathForm
    value: str
    ignores_case: bool = False


ANY_PATH = PathMatch(PathForm.PREFIX, "/")


@dataclass(frozen=True, slots=True)
class TextMatch:
    """What a text must be like."""

    form: TextForm
    value: str = ""


@dataclass(frozen=True, slots=True)
class NamedMatch:
    """A header, or a parameter of the query, and what it must be like; or must not, where it is inverted."""

    name: str
    text: TextMatch
    is_inverted: bool = False


@dataclass(frozen=True, slots=True)
class RequestMatch:
    """Requests that meet all of it. Pseudo headers (`:method`) are among the headers."""

    path: PathMatch = ANY_PATH
    headers: tuple[NamedMatch, ...] = ()
    query: tuple[NamedMatch, ...] = ()


@dataclass(frozen=True, slots=True)
class HeaderChanges:
    """Headers that are set, added beside what is there, or taken away."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


NO_CHANGES = HeaderChanges()


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """A port of a service, by what its clusters are named after; of those that serve it all, or a named subset.

    One that is secured is spoken to over TLS, as a BackendTLSPolicy says.
    """

    namespace: str
    host: str
    port: int
    subset: str = ""
    is_secured: bool = False

    @property
    def cluster(self) -> str:
        """The name of its cluster, which is Istio's; one over TLS is another."""
        return f"outbound|{self.port}|{self.subset}|{self.host}" + ("|tls" if self.is_secured else "")


@dataclass(frozen=True, slots=True)
class Destination:
    """A share of the requests, and what is done to it. Without a target, they fail."""

    target: Target | None
    weight: int = 1
    request: HeaderChanges = NO_CHANGES
    response: HeaderChanges = NO_CHANGES
    host: str = ""


class PathChangeForm(Enum):
    """What of a path is put in another's place: all, the elements that matched, the text that matched, or by regex."""

    FULL = "full"
    ELEMENTS = "elements"
    PREFIX = "prefix"
    REGEX = "regex"


@dataclass(frozen=True, slots=True)
class PathChange:
    """Another path. `pattern` is RE2, and `value` may name its groups, where the form is REGEX."""

    form: PathChangeForm
    value: str
    pattern: str = ""


@dataclass(frozen=True, slots=True)
class Redirect:
    """An answer that sends the client elsewhere; what is empty stays as it was."""

    status: int
    scheme: str = ""
    host: str = ""
    port: int = 0
    path: PathChange | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the proxy's own."""

    status: int
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a request is tried again, on which of Envoy's conditions, and after which pause."""

    attempts: int
    conditions: tuple[str, ...]
    codes: tuple[int, ...] = ()
    try_milliseconds: int = 0
    pause_milliseconds: int = 0
    avoids_previous: bool = True


SAFE_RETRIES = Retries(2, ("connect-failure", "refused-stream", "reset-before-request"))
"""What is tried again where nobody said so: what no application has seen (facts of L7, section 7, b)."""
NO_RETRIES = Retries(0, ())


@dataclass(frozen=True, slots=True)
class Mirror:
    """Where a share (0 to 1) of the requests is copied to."""

    target: Target
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Cors:
    """Which pages of other origins may read the answers."""

    origins: tuple[TextMatch, ...] = ()
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    max_age_seconds: int | None = None
    allows_credentials: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """Pauses and failures for a share (0 to 1) of the requests, to see what they do.

    A failure has a status of HTTP, or of gRPC.
    """

    delay_milliseconds: int = 0
    delay_share: float = 0.0
    status: int = 0
    grpc_status: int | None = None
    abort_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Forward:
    """Requests that go on to somebody. A timeout of 0 is none.

    Those whose destination leads nowhere are answered with `missing_status`, 500 or 503.
    """

    destinations: tuple[Destination, ...]
    host: str = ""
    path: PathChange | None = None
    timeout_milliseconds: int = 0
    retries: Retries = SAFE_RETRIES
    mirrors: tuple[Mirror, ...] = ()
    missing_status: int = 500


Action = Forward | Redirect | Reply


@dataclass(frozen=True, slots=True)
class Route:
    """What is done with the requests that meet a match."""

    name: str
    match: RequestMatch
    action: Action
    request: HeaderChanges = NO_CHANGES
    response: HeaderChanges = NO_CHANGES
    cors: Cors | None = None
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """The routes, in order, of requests for one of these hosts; where TLS is required, others are sent to https."""

    name: str
    domains: tuple[str, ...]
    routes: tuple[Route, ...]
    requires_tls: bool = False


def escape_regex(text: str) -> str:
    """The RE2 expression of a text itself."""
    return "".join(each if each.isalnum() or each in "/:-_" else f"\\{each}" for each in text)


def find_targets(routes: tuple[Route, ...]) -> set[Target]:
    """All that these routes send requests to."""
    found: set[Target] = set()
    for route in routes:
        if isinstance(route.action, Forward):
            found.update(each.target for each in route.action.destinations if each.target)
            found.update(each.target for each in route.action.mirrors)
    return found
