"""The native module's surface. Every call that may wait releases the interpreter while it does.

Errors are `mesh.kit.errors.AmbitError`s: `TransientError` where trying again later may help, `InvalidInputError`
where it cannot.
"""

from collections.abc import Mapping, Sequence
from typing import final

@final
class ControlPlane:
    """Where the controller is, and how this node proves itself to it."""

    def __new__(
        cls,
        *,
        address: str,
        root_ca: str,
        server_name: str | None,
        token: str | None,
        cluster_id: str,
    ) -> ControlPlane:
        """`address` is `https://host:port`; `root_ca` and `token` are files, read again at every use; `server_name` is
        the name in the controller's certificate where that is not the host."""

@final
class TrafficSettings:
    """How connections are carried. Names, defaults and bounds: ztunnel/settings.py."""

    def __new__(
        cls,
        *,
        packet_mark: int,
        ipv6: bool,
        port_reuse: bool,
        original_source: bool | None,
        keepalive: tuple[float, float, int] | None,
        user_timeout: bool,
        streams_per_tunnel: int,
        unused_release_seconds: float,
        stream_window: int,
        connection_window: int,
        frame_size: int,
        baggage: bool,
        localhost_application_tunnel: bool,
        node_local: bool,
        busy_poll: bool,
        socks5: bool,
        dns: tuple[str, str, str, str | None] | None,
    ) -> TrafficSettings:
        """`original_source` None means where the kernel permits it; `keepalive` is seconds of silence, seconds between
        probes, and how many go unanswered; windows and frames are bytes; `dns` is where pods'
        DNS is served, the name servers' file, the cluster's domain, and the namespace that breaks ties; or None."""

@final
class SecuritySettings:
    """How identities are proved and policies are reported. Names and defaults: ztunnel/security.py."""

    def __new__(
        cls,
        *,
        certificate_lifetime_seconds: float,
        revocation_lists: str | None,
        post_quantum_only: bool,
        log_dry_runs: bool,
    ) -> SecuritySettings:
        """`revocation_lists` is a file, read again when it changes; `log_dry_runs` logs what policies in dry run would
        have done at level info instead of debug."""

@final
class ZtunnelSettings:
    """Everything the data plane is told at its start. Names and defaults: ztunnel/settings.py."""

    def __new__(
        cls,
        *,
        node_name: str,
        cluster_id: str,
        network: str,
        node_id: str,
        node_metadata: Mapping[str, str],
        discovery: ControlPlane,
        on_demand: bool,
        authority: ControlPlane,
        workers: int,
        traffic: TrafficSettings,
        security: SecuritySettings,
        admin_port: int,
        stats_port: int,
        readiness_port: int,
    ) -> ZtunnelSettings:
        """`workers` threads carry connections, at least 1; ports are TCP, admin's on loopback only. `on_demand` asks
        the controller for what connections need, instead of for the whole mesh."""

@final
class DiscoveryResponse:
    """What one response of the controller did to the mesh's state. It is applied already."""

    type_url: str
    nonce: str
    accepted: int
    removed: int
    rejections: list[tuple[str, str]]
    """Resource name and reason, for each resource that was not taken."""
    knows_summaries: bool
    """Whether the controller understands a summary of what is here."""

@final
class DiscoveryStream:
    """One delta-ADS stream."""

    def receive(self) -> DiscoveryResponse:
        """Wait for the next response and apply it. Raises TransientError when the stream ends or `close` is called,
        and of these UnknownSummaryError when the controller does not know the summary."""

    def acknowledge(self, type_url: str, nonce: str, error: str | None) -> None:
        """Answer a response: ACK, or NACK with `error`. Raises TransientError when the stream has ended."""

    def close(self) -> None:
        """End the stream; a `receive` that waits raises."""

@final
class CertificateWanted:
    """A pod needs a certificate, and there is none that is valid. Told again when a connection needs it too, and once
    more after each fetch that failed."""

    identity: str
    for_traffic: bool
    """A connection waits for it, or failed for want of it."""

@final
class CertificateFetched:
    """A fetch succeeded. Times are seconds since 1970."""

    identity: str
    not_before: float
    not_after: float

@final
class CertificateFailed:
    """A fetch failed. A certificate that is still valid stays in use."""

    identity: str
    reason: str
    valid_until: float | None
    """The end of the certificate that stays in use, if there is one. Seconds since 1970."""

@final
class CertificateDiscarded:
    """A fetch ended, or was not begun, because its identity has left this node."""

    identity: str

@final
class AddWorkload:
    """Serve this pod; its network namespace comes as a file descriptor beside the message."""

    uid: str
    name: str
    namespace: str
    service_account: str

@final
class KeepWorkload:
    """Go on serving this pod."""

    uid: str

@final
class DelWorkload:
    """Stop serving this pod."""

    uid: str

@final
class SnapshotSent:
    """All pods of the node have been named: drop the others."""

def zds_hello() -> bytes:
    """The packet that opens an enrolment connection (ztunnel.md 6.3)."""

def zds_acknowledgement(error: str) -> bytes:
    """The answer to a request; an empty `error` accepts it."""

def parse_workload_request(packet: bytes) -> AddWorkload | KeepWorkload | DelWorkload | SnapshotSent:
    """Parse one enrolment packet. Raises InvalidInputError when it is not a request that we know."""

def log(level: str, scope: str, message: str, fields: Mapping[str, str]) -> None:
    """Write a line to the process's log, beside the access log. `level` is error, warn, info or debug."""

def flush_log() -> None:
    """Wait until every line so far has been written, at most a second. For a process that is about to end."""

def start_log(filter: str, format: str) -> None:
    """Log the lines that `filter` allows, a level or one by scope (`info,access=debug`), in `format`: plain or json.
    Raises InvalidInputError for another format, and for a filter that makes no sense."""

@final
class Ztunnel:
    """The data plane of one node: its workers, the mesh's state, certificates, and the admin, metrics and readiness
    servers."""

    def __new__(cls, settings: ZtunnelSettings, inherited: Sequence[int]) -> Ztunnel:
        """Start the threads and servers. Takes the sockets over that are `inherited` from a predecessor: those on the
        servers' ports are used instead of new ones. Raises InvalidInputError when a port cannot be listened on."""

    def open_discovery(self, type_urls: Sequence[str], by_summary: bool) -> DiscoveryStream:
        """Connect to the controller and subscribe to all resources of `type_urls`, in this order, naming the versions
        that are here already, or their summary. Raises TransientError when it cannot be reached or refuses."""

    def next_certificate_event(
        self, timeout_seconds: float
    ) -> CertificateWanted | CertificateFetched | CertificateFailed | CertificateDiscarded | None:
        """Wait for the next event, at most so long."""

    def fetch_certificate(self, identity: str) -> None:
        """Begin to fetch a certificate; the outcome comes as an event. Raises InvalidInputError when `identity` is not
        a SPIFFE URI."""

    def add_pod(self, pod: AddWorkload, netns: int, inherited: Sequence[int]) -> None:
        """Open the listeners in the pod's network namespace, but for those that are `inherited`, and serve them. Takes
        the descriptors over. A pod that is served from the same namespace already is left as it is. Raises
        TransientError when the listeners cannot be opened."""

    def hand_over(self, inode: int, device: int) -> list[int]:
        """Duplicates of the sockets that are listened on in a network namespace. Those of the process's own servers are
        among them in its own namespace; the servers then stop."""

    def resume(self) -> None:
        """Serve again what `hand_over` stopped. Raises TransientError when a port is taken."""

    def serve_own(self, namespace: str, name: str, service_account: str) -> None:
        """Take tunnels to ztunnel itself, as the pod of these names. Raises TransientError when something else listens
        on 15008 in the process's namespace."""

    def remove_pod(self, uid: str) -> None:
        """Close the pod's listeners and connections at once. An unknown pod is fine."""

    def pods(self) -> list[str]:
        """The uids of the pods that are served."""

    def set_pending_pods(self, count: int) -> None:
        """Tell the metrics how many pods wait for their listeners."""

    def set_ready(self, task: str, ready: bool) -> None:
        """The process is ready when every task that was ever named here is, and the two that each ztunnel has."""

    def metrics(self) -> str:
        """All metrics as OpenMetrics text."""

    def drain(self, deadline_seconds: float) -> None:
        """Stop accepting, let connections finish until the deadline, then end them."""

@final
class GrpcIdentity:
    """A serving certificate: a key and a chain in PEM."""

    def __new__(cls, key: bytes, chain: bytes) -> GrpcIdentity:
        """Raises InvalidInputError when they are none, or do not belong together."""

    def replace(self, key: bytes, chain: bytes) -> None:
        """Show this one from the next handshake on. Raises InvalidInputError, and keeps what there was."""

@final
class GrpcCall:
    """One call of a gRPC server."""

    id: int
    """Its number, never used again."""
    path: str
    """`/package.Service/Method`."""
    peer: str
    """Who calls, as gRPC writes it: `ipv4:ADDRESS:PORT`, `ipv6:[ADDRESS]:PORT`."""
    metadata: list[tuple[str, str]]
    """Its headers that are text, names in lower case."""
    is_at_end: bool
    """Nothing more comes: the client has ended its side and all its messages were taken, or the call has ended."""

    def take(self) -> bytes | None:
        """The next message that has come. None when there is none: the call is readable again when one comes."""

    def send(self, parts: Sequence[bytes]) -> bool:
        """Send a message of these parts. Gives whether more may follow before the call is writable. Raises
        TransientError when it has ended."""

    def finish(self, code: int, message: str) -> None:
        """End the call with a status, after what was sent. The first status counts."""

@final
class GrpcServer:
    """The transport of a gRPC server: sockets, TLS, HTTP/2 and framing. Its threads hand over events."""

    def __new__(
        cls,
        *,
        paths: Sequence[str],
        max_message_bytes: int,
        keepalive: tuple[float, float],
        max_age: tuple[float, float] | None,
        threads: int,
    ) -> GrpcServer:
        """Start the threads. `paths` are served (`/package.Service/Method`), others are answered as unimplemented.
        `keepalive`: seconds between pings, and to answer one. `max_age`: about the seconds after which a connection's
        client is told to make a new one, and those that its calls may go on. Raises TransientError."""

    def listen(self, host: str, port: int, identity: GrpcIdentity | None) -> int:
        """Listen on an address, and on all addresses of a name, with TLS where there is an identity. Gives the port.
        Raises TransientError."""

    def fileno(self) -> int:
        """A descriptor that is readable while there are events."""

    def take_events(self) -> tuple[list[GrpcCall], list[int], list[int], list[int]]:
        """What happened: calls that are new, and the numbers of calls that are readable, writable after `send` gave
        False, and at their end, to be taken in this order."""

    def send_all(self, messages: Sequence[tuple[GrpcCall, Sequence[bytes]]]) -> list[bool | None]:
        """Send messages, each of several parts, each to its call. Gives for each what `send` gives, and None for a call
        that has ended. Parts that are equal objects are one block of memory, however many calls they go to."""

    def close(self, grace_seconds: float) -> None:
        """Take no more connections, tell clients to go elsewhere, and wait until they have, so long at most. Then
        everything ends."""

__all__ = [
    "AddWorkload",
    "CertificateDiscarded",
    "CertificateFailed",
    "CertificateFetched",
    "CertificateWanted",
    "ControlPlane",
    "DelWorkload",
    "DiscoveryResponse",
    "DiscoveryStream",
    "GrpcCall",
    "GrpcIdentity",
    "GrpcServer",
    "KeepWorkload",
    "SecuritySettings",
    "SnapshotSent",
    "TrafficSettings",
    "Ztunnel",
    "ZtunnelSettings",
    "flush_log",
    "log",
    "parse_workload_request",
    "start_log",
    "zds_acknowledgement",
    "zds_hello",
]
