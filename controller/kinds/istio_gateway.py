"""Istio's Gateway: where requests from outside come in, at the proxies whose labels its selector picks.

VirtualServices bind to it by its name. Gateway API's kind of the same name is in `gateway_api`.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from controller.kinds.hosts import check_route_host
from controller.kinds.meta import PortNumber, StrictModel, check_label
from controller.kinds.networking import NetworkingObject
from controller.kinds.refusals import Unsupported
from controller.kinds.server_tls import TLS_PROTOCOLS, ServerTls

_REQUEST_PROTOCOLS = ("HTTP", "HTTP2", "GRPC")
"""Requests without TLS. One listener takes them all: which of HTTP's versions a client speaks, its first bytes say."""
_BYTES_PROTOCOL = "TCP"
_CARRIED_OUT = (*_REQUEST_PROTOCOLS, *TLS_PROTOCOLS, _BYTES_PROTOCOL)
_NOT_CARRIED_OUT = ("GRPC-WEB", "MONGO")
_ANY, _OWN = "*", "."


class ServerSort(Enum):
    """What a port of proxies has: servers of one sort only can share it."""

    REQUESTS = "requests in plaintext"
    TLS = "TLS"
    BYTES = "connections as they are"


def _check_protocol(value: str) -> str:
    protocol = value.upper()
    if protocol in _NOT_CARRIED_OUT:
        raise PydanticCustomError(
            "unsupported", "of a server is not carried out; {known} are", {"known": ", ".join(_CARRIED_OUT)}
        )
    if protocol not in _CARRIED_OUT:
        raise PydanticCustomError("protocol_value", "is not one of {known}", {"known": ", ".join(_CARRIED_OUT)})
    return protocol


def _check_server_host(value: str) -> str:
    namespace, slash, name = value.rpartition("/")
    if slash and namespace not in (_ANY, _OWN):
        check_label(namespace)
    if name != "*" and "." not in name:
        raise PydanticCustomError("host_value", "is not a whole name, as in www.example.com, *.example.com or *")
    return f"{namespace}{slash}{name if name == '*' else check_route_host(name)}"


class ServerPort(StrictModel):
    """Where a server listens, and what is spoken there."""

    number: PortNumber
    name: Annotated[str, Field(min_length=1)]
    protocol: Annotated[str, AfterValidator(_check_protocol)]
    target_port: Unsupported = None


class Server(StrictModel):
    """A port, and for which hosts requests are taken there, each with whose VirtualServices may serve it."""

    port: ServerPort
    hosts: Annotated[Sequence[Annotated[str, AfterValidator(_check_server_host)]], Field(min_length=1)]
    tls: ServerTls | None = None
    name: str | None = None
    bind: Unsupported = None
    default_endpoint: Unsupported = None

    @model_validator(mode="after")
    def _check_tls(self) -> "Server":
        if self.sort is ServerSort.TLS:
            if self.tls is None:
                raise PydanticCustomError("combination", "protocols HTTPS and TLS need tls, with its mode")
            self.tls.check_mode()
        elif self.tls and (self.tls.says_how_it_ends or not self.tls.passes_through):
            raise PydanticCustomError("combination", "tls with more than httpsRedirect needs protocol HTTPS or TLS")
        elif self.tls and self.tls.https_redirect and self.sort is ServerSort.BYTES:
            raise PydanticCustomError("combination", "httpsRedirect is for requests, and not for protocol TCP")
        return self

    @property
    def sort(self) -> ServerSort:
        """What it makes of its port."""
        if self.port.protocol in TLS_PROTOCOLS:
            return ServerSort.TLS
        return ServerSort.BYTES if self.port.protocol == _BYTES_PROTOCOL else ServerSort.REQUESTS

    @property
    def redirects_to_https(self) -> bool:
        """Whether it serves nothing else."""
        return bool(self.sort is ServerSort.REQUESTS and self.tls and self.tls.https_redirect)

    @property
    def passes_through(self) -> bool:
        """Whether TLS is left to the backends."""
        return bool(self.sort is ServerSort.TLS and self.tls and self.tls.passes_through)

    @property
    def serves_requests(self) -> bool:
        """Whether http rules are for it; tls rules are where it passes TLS through, and else tcp rules."""
        return self.sort is ServerSort.REQUESTS or (self.port.protocol == "HTTPS" and not self.passes_through)

    @property
    def bare_hosts(self) -> tuple[str, ...]:
        """Its hosts, whoever may serve them."""
        return tuple(dict.fromkeys(host.rpartition("/")[2] for host in self.hosts))

    def hosts_for(self, namespace: str, own: str) -> tuple[str, ...]:
        """Its hosts that VirtualServices of `namespace` may serve; the Gateway's own namespace is `own`."""
        meant = {_ANY: namespace, "": namespace, _OWN: own}
        split = (host.rpartition("/") for host in self.hosts)
        return tuple(dict.fromkeys(name for place, _, name in split if meant.get(place, place) == namespace))


class IstioGatewaySpec(StrictModel):
    """At whose proxies, which servers."""

    servers: Annotated[Sequence[Server], Field(min_length=1)]
    selector: Mapping[str, str] | None = None

    @model_validator(mode="after")
    def _check_ports(self) -> "IstioGatewaySpec":
        names = [server.port.name for server in self.servers]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise PydanticCustomError("server_twice", "two ports of servers are called {name}", {"name": twice})
        return self


class IstioGateway(NetworkingObject):
    """A place where requests come in, carried out by the proxies with the selector's labels."""

    KIND: ClassVar[str] = "Gateway"

    spec: IstioGatewaySpec
