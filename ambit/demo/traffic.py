"""The demo's requests: which there are (a pure function of the lab's status), and how one is made and read.

Each request carries a marker of its own, in its URL. The server's log line with the marker tells from which address
that very request came, and a capture is searched for the marker.
"""

import re
import secrets
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv6Address, ip_address

from ambit.lab.client import Lab
from ambit.lab.status import LabStatus, PodStatus, ServiceStatus
from mesh.kit.errors import TransientError

SERVER_PORT = 8080
"""Where the servers of examples/demo/mesh.yaml listen."""

OUTSIDE = "outside"
"""The namespace there that is not in the mesh. What is expected must not depend on what the mesh says it does."""

ANSWER_TIMEOUT_SECONDS = 3.0
"""For one request; nothing that works takes a tenth of it."""

_REPORT = "%{http_code} %{time_total} %{local_ip} %{local_port}"
"""What curl prints of a request (curl(1), --write-out)."""

_SERVER_LOG_LINE = re.compile(r'^(\S+) - - \[[^\]]*\] "GET /\?marker=(\w+) ', re.MULTILINE)
"""A line of Python's http.server."""


class Placement(StrEnum):
    """Where client and server are to each other."""

    ACROSS_NODES = "across nodes"
    ON_ONE_NODE = "on one node"
    FROM_OUTSIDE = "from outside"


class Addressing(StrEnum):
    """What the client dials."""

    NAME = "by service name"
    SERVICE = "by service VIP"
    POD = "by pod IP"


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request to be made. `family` is 4 or 6."""

    client: PodStatus
    server: PodStatus
    placement: Placement
    addressing: Addressing
    family: int
    url: str
    marker: str

    @property
    def is_meshed(self) -> bool:
        return self.placement is not Placement.FROM_OUTSIDE


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request. `status` is HTTP's, 0 without an answer; `client` the socket's own address and port."""

    request: Request
    status: int
    seconds: float
    client_address: str
    client_port: int
    failure: str

    @property
    def is_ok(self) -> bool:
        return self.status == 200

    @property
    def client(self) -> str:
        """The client's end as access logs write it."""
        host = f"[{self.client_address}]" if ":" in self.client_address else self.client_address
        return f"{host}:{self.client_port}"


def pod_identity(pod: PodStatus) -> str:
    """The SPIFFE identity that a pod must have."""
    return f"spiffe://cluster.local/ns/{pod.namespace}/sa/{pod.service_account}"


def plan_requests(status: LabStatus, new_marker: Callable[[], str] = lambda: make_marker()) -> list[Request]:
    """Every way from every client pod to every service, in the lab of examples/demo/mesh.yaml.

    Servers are the pods that a service of their name selects, all other pods are clients.
    """
    services = {(service.namespace, service.name): service for service in status.services}
    servers = [pod for pod in status.pods if (pod.namespace, pod.name) in services]
    clients = [pod for pod in status.pods if pod not in servers]
    return [
        build_request(client, server, addressing, family, services[server.namespace, server.name], new_marker())
        for client in clients
        for server in servers
        for addressing in Addressing
        for family in (4, 6)
        if client.namespace != OUTSIDE or _is_readable_way(client, server, addressing)
    ]


def _is_readable_way(client: PodStatus, server: PodStatus, addressing: Addressing) -> bool:
    """Whether a request from outside proves something: on the underlay, where its text must be seen, and to a pod.

    Outside of the mesh, services are the business of kube-proxy and the cluster's DNS.
    """
    return client.node != server.node and addressing is Addressing.POD


def build_request(
    client: PodStatus, server: PodStatus, addressing: Addressing, family: int, service: ServiceStatus, marker: str
) -> Request:
    """The request on one way; raises StopIteration when that family has no address."""
    if client.namespace == OUTSIDE:
        placement = Placement.FROM_OUTSIDE
    else:
        placement = Placement.ON_ONE_NODE if client.node == server.node else Placement.ACROSS_NODES
    address = _of_family(server.addresses if addressing is Addressing.POD else service.addresses, family)
    host = f"[{address}]" if family == 6 else address
    if addressing is Addressing.NAME:
        # The shortest form that means it where the client is.
        host = service.name if client.namespace == service.namespace else f"{service.name}.{service.namespace}"
    port = SERVER_PORT if addressing is Addressing.POD else service.ports[0].port
    url = f"http://{host}:{port}/?marker={marker}"
    return Request(client, server, placement, addressing, family, url, marker)


def make_marker() -> str:
    """A text that is on the wire only if this request is."""
    return f"marker{secrets.token_hex(12)}"


def send(lab: Lab, request: Request) -> Answer:
    """Make the request with curl in the client's pod; what goes wrong with it is in the answer."""
    client = request.client
    options = ("--silent", "--show-error", "--max-time", str(ANSWER_TIMEOUT_SECONDS), f"--ipv{request.family}")
    command = ("curl", *options, "--output", "/dev/null", "--write-out", _REPORT, request.url)
    try:
        done = lab.exec(client.name, *command, namespace=client.namespace, timeout=3 * ANSWER_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise TransientError(f"curl in {client.namespace}/{client.name} did not end by itself") from error
    return read_answer(request, done.stdout, done.stderr)


def read_answer(request: Request, report: str, errors: str) -> Answer:
    """The answer from what curl printed."""
    parts = report.split(" ")
    if len(parts) != 4:
        return Answer(request, 0, 0.0, "", 0, errors.strip() or "curl did not run")
    status, seconds, address, port = parts
    return Answer(
        request=request,
        status=int(status),
        seconds=float(seconds),
        client_address=address,
        client_port=max(0, int(port)),
        failure=errors.strip(),
    )


def read_client_addresses(server_log: str) -> dict[str, str]:
    """By marker, the address that the server of that request saw as its client."""
    return {marker: _plain_address(seen) for seen, marker in _SERVER_LOG_LINE.findall(server_log)}


def _plain_address(text: str) -> str:
    """The address without IPv6's cloak for IPv4 (`::ffff:10.0.0.1`), which a dual-stack socket puts on."""
    try:
        address = ip_address(text)
    except ValueError:
        return text
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def _of_family(addresses: Iterable[str], family: int) -> str:
    return next(address for address in addresses if ip_address(address).version == family)
