//! What an operator can set about how connections are carried (facts/ztunnel.md 9.1). Defaults are Istio's.

use std::net::{AddrParseError, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ambit_core::dns::Resolver;
use ambit_core::framing;

use crate::logging::Level;
pub use crate::tls::KeyExchange;

/// All of it. One value for the whole process; workers share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficSettings {
    /// Options of the sockets.
    pub sockets: SocketSettings,
    /// Shared tunnels.
    pub pool: PoolSettings,
    /// Windows and frames inside tunnels.
    pub http2: Http2Settings,
    /// Whether workloads describe themselves to each other in answers, and are believed what they say in requests
    /// (`ENABLE_RESPONSE_BAGGAGE`).
    pub baggage: Baggage,
    /// Where an application that takes PROXY headers is dialled.
    pub application_tunnel: ApplicationTunnelAddress,
    /// Whether pods of this node speak to each other without a tunnel, where neither end demands one
    /// (`AMBIT_NODE_LOCAL`, ours).
    pub node_local: bool,
    /// Whether a worker waits awake for the next message of a dense dialogue (`AMBIT_BUSY_POLL`, ours): less latency for
    /// some of the node's spare time.
    pub busy_poll: bool,
    /// Whether pods have a SOCKS5 port (`UNSTABLE_ENABLE_SOCKS5`).
    pub socks5: bool,
    /// Pods' DNS; `None` switches the proxy off (`ISTIO_META_DNS_CAPTURE`).
    pub dns: Option<DnsSettings>,
}

/// The DNS proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsSettings {
    /// Where it listens in each pod.
    pub address: DnsAddress,
    /// Names the node's name servers (`DNS_RESOLV_CONF`, ours).
    pub resolv_conf: PathBuf,
    /// What answers depend on.
    pub resolver: Resolver,
}

/// Where the DNS proxy listens in each pod (`ISTIO_META_DNS_PROXY_ADDR`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsAddress {
    /// On loopback, IPv4 and IPv6.
    Localhost(u16),
    /// At one address.
    At(SocketAddr),
}

impl DnsAddress {
    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Localhost(port) => *port,
            Self::At(address) => address.port(),
        }
    }
}

impl FromStr for DnsAddress {
    type Err = AddrParseError;

    /// `localhost:port` or `address:port`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("localhost:").map(str::parse) {
            Some(Ok(port)) => Ok(Self::Localhost(port)),
            _ => text.parse().map(Self::At),
        }
    }
}

/// Whether baggage is exchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Baggage {
    /// Answers carry it, and that of requests is read.
    #[default]
    Exchanged,
    /// Neither.
    Ignored,
}

/// Where an application that takes PROXY headers is dialled (`LOCALHOST_APP_TUNNEL`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApplicationTunnelAddress {
    /// On the pod's loopback, so that its port need not be reachable from outside.
    #[default]
    Loopback,
    /// At the pod's address.
    Pod,
}

/// Options of every socket in pods' namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketSettings {
    /// `SO_MARK`: the pod's redirect rules let what carries it pass (`PACKET_MARK`).
    pub mark: u32,
    /// Whether IPv6 is listened on (`IPV6_ENABLED`).
    pub ipv6: bool,
    /// `SO_REUSEPORT` on listeners (`INPOD_PORT_REUSE`). Several workers need it.
    pub port_reuse: bool,
    /// Whether applications see their original clients' addresses (`ENABLE_ORIG_SRC`).
    pub original_source: OriginalSource,
    /// TCP keepalive; `None` switches it off (`KEEPALIVE_*`).
    pub keepalive: Option<Keepalive>,
    /// Also bound how long sent bytes may stay unacknowledged, to what keepalive takes to give up
    /// (`USER_TIMEOUT_ENABLED`).
    pub user_timeout: bool,
}

impl Default for SocketSettings {
    fn default() -> Self {
        Self {
            // 1337 (facts/ztunnel.md 0.27).
            mark: 0x539,
            ipv6: true,
            port_reuse: true,
            original_source: OriginalSource::WherePermitted,
            keepalive: Some(Keepalive::default()),
            user_timeout: false,
        }
    }
}

/// Whether connections to an application come from its client's own address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OriginalSource {
    /// Where the kernel permits it; else from the pod's own address.
    #[default]
    WherePermitted,
    /// Always; a pod in which it is not permitted is not served.
    Always,
    /// Never: from the pod's own address.
    Never,
}

/// When a silent peer is asked whether it is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// After so much silence.
    pub time: Duration,
    /// Then this often.
    pub interval: Duration,
    /// So many times without an answer end the connection.
    pub retries: u32,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(180),
            interval: Duration::from_secs(180),
            retries: 9,
        }
    }
}

impl Keepalive {
    /// How long it takes until a peer that vanished is given up.
    pub(crate) fn patience(&self) -> Duration {
        self.time + self.interval * self.retries
    }
}

/// Tunnels that connections share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// Past so many streams another tunnel carries more (`POOL_MAX_STREAMS_PER_CONNECTION`).
    pub streams_per_tunnel: u32,
    /// A tunnel that nobody asked for this long is closed (`POOL_UNUSED_RELEASE_TIMEOUT`).
    pub unused_release: Duration,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            streams_per_tunnel: framing::Settings::client().open_limit,
            unused_release: Duration::from_secs(300),
        }
    }
}

/// HTTP/2 inside tunnels, both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http2Settings {
    /// Bytes that may be on their way on one stream (`HTTP2_STREAM_WINDOW_SIZE`).
    pub stream_window: u32,
    /// The same for a whole tunnel (`HTTP2_CONNECTION_WINDOW_SIZE`).
    pub connection_window: u32,
    /// The largest frame that we take (`HTTP2_FRAME_SIZE`).
    pub frame_size: u32,
}

impl Default for Http2Settings {
    fn default() -> Self {
        let framing::Settings {
            initial_window,
            connection_window,
            max_frame_size,
            ..
        } = framing::Settings::client();
        Self {
            stream_window: initial_window,
            connection_window,
            frame_size: max_frame_size,
        }
    }
}

impl TrafficSettings {
    /// What the end that opens tunnels announces.
    pub(crate) fn client(&self) -> framing::Settings {
        framing::Settings {
            open_limit: self.pool.streams_per_tunnel,
            ..self.announce(framing::Settings::client())
        }
    }

    /// What the end that accepts tunnels announces.
    pub(crate) fn server(&self) -> framing::Settings {
        self.announce(framing::Settings::server())
    }

    fn announce(&self, base: framing::Settings) -> framing::Settings {
        framing::Settings {
            initial_window: self.http2.stream_window,
            connection_window: self.http2.connection_window,
            max_frame_size: self.http2.frame_size,
            ..base
        }
    }
}

/// What an operator can set about identities and policies (ztunnel.md 9.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecuritySettings {
    /// The lifetime that is asked for (`SECRET_TTL`).
    pub certificate_lifetime: Duration,
    /// File with revocation lists (`CRL_PATH`).
    pub revocation_lists: Option<PathBuf>,
    /// Which key exchanges are allowed (`COMPLIANCE_POLICY`).
    pub key_exchange: KeyExchange,
    /// At which level the log tells what policies in dry run would have done (`AUTHZ_POLICY_INFO_LOGGING`).
    pub dry_run_level: Level,
}
