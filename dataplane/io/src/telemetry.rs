//! What is told about each connection: one access-log line and the same facts as metrics, with Istio's names and labels
//! (ztunnel.md 8.3 and 8.4).

mod connections;
mod dns;
mod metrics;
mod process;
mod security;
mod sockets;
mod xds;

use std::net::SocketAddr;
use std::sync::Arc;

use ambit_core::identity::Identity;
use ambit_core::mesh_state::{ServiceKey, Workload};

pub(crate) use connections::{ConnectionReport, Moved, OpenConnections};
pub use dns::DnsMetrics;
pub(crate) use dns::{DnsLabels, DnsProtocol};
pub use metrics::Metrics;
pub use security::SecurityCounters;
pub(crate) use sockets::OpenSocket;
pub use sockets::SocketCounts;
pub use xds::XdsCounters;

use crate::logging::{self, Fields, Level};

/// Which side of a connection reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The server's side.
    Inbound,
    /// The client's side.
    Outbound,
}

impl Direction {
    /// In the log.
    fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }

    /// The `reporter` of metrics.
    fn reporter(self) -> &'static str {
        match self {
            Self::Inbound => "destination",
            Self::Outbound => "source",
        }
    }
}

/// How the bytes were protected on their way to or from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SecurityPolicy {
    /// Through a tunnel, both identities proved.
    MutualTls,
    /// Between two pods of this node: not encrypted, both identities known from the pods' namespaces.
    NodeLocal,
    /// Not by the mesh.
    Unknown,
}

impl SecurityPolicy {
    fn label(self) -> &'static str {
        match self {
            Self::MutualTls => "mutual_tls",
            Self::NodeLocal => "node_local",
            Self::Unknown => "unknown",
        }
    }
}

/// `response_flags` of a connection (ztunnel.md 8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flag {
    /// It went as it should.
    None,
    /// A policy refused it.
    Denied,
    /// No connection to the next hop.
    Connect,
    /// A certificate was refused.
    TlsFailure,
    /// No certificate of our own.
    IdentityError,
    /// The peer broke HTTP/2.
    Http2Failure,
    /// No answer on the port of tunnels, as when a NetworkPolicy blocks it.
    NetworkPolicy,
    /// The peer's certificate was taken back.
    CertificateRevoked,
}

impl Flag {
    /// Each of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 8] = [
        Self::None,
        Self::Denied,
        Self::Connect,
        Self::TlsFailure,
        Self::IdentityError,
        Self::Http2Failure,
        Self::NetworkPolicy,
        Self::CertificateRevoked,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Denied => "DENY",
            Self::Connect => "CONNECT",
            Self::TlsFailure => "TLS_FAILURE",
            Self::IdentityError => "IDENTITY_ERROR",
            Self::Http2Failure => "H2_HANDSHAKE_FAILURE",
            Self::NetworkPolicy => "NETWORK_POLICY",
            Self::CertificateRevoked => "CERT_REVOKED",
        }
    }
}

/// One end of a connection, as labels. Empty means unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The owner's name.
    pub workload: Arc<str>,
    /// Canonical service.
    pub canonical_name: Arc<str>,
    /// Its revision.
    pub canonical_revision: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Cluster.
    pub cluster: Arc<str>,
    /// Widest part of its locality.
    pub region: Arc<str>,
    /// Part of the region.
    pub zone: Arc<str>,
    /// Proved, or for a destination's metric label, known from discovery.
    pub principal: Option<Identity>,
}

/// The pods at both ends, where they are known: their names are in the log and in no metric.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    /// The client.
    pub source: Option<Arc<Workload>>,
    /// The server.
    pub destination: Option<Arc<Workload>>,
}

/// What identifies a series.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TrafficLabels {
    /// Which side reports.
    pub direction: Direction,
    /// The client.
    pub source: Peer,
    /// The server.
    pub destination: Peer,
    /// Key and name of the service that was asked for.
    pub service: Option<(ServiceKey, Arc<str>)>,
    /// How bytes were protected.
    pub security: SecurityPolicy,
}

/// Addresses of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// The client's.
    pub source: SocketAddr,
    /// Outbound: the next hop; inbound: what the tunnel's or the client's connection was made to.
    pub destination: SocketAddr,
    /// Outbound: what the application dialled; inbound: the application's address.
    pub asked: SocketAddr,
}

/// Tell about a connection that failed before anything was known of its ends (ztunnel.md 8.4).
pub fn report_early_failure(
    metrics: &Metrics,
    direction: Direction,
    source: SocketAddr,
    destination: SocketAddr,
    error: &str,
) {
    metrics.failed_early(direction);
    let fields = Fields::default()
        .plain("src.addr", source)
        .plain("dst.addr", destination)
        .text("direction", direction.name())
        .text("error", error);
    logging::write(Level::Warn, "access", "connection failed", &fields);
}
