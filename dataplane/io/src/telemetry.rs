//! What is told about each connection: one access-log line and the same facts as metrics, with Istio's names and labels
//! (ztunnel.md 8.3 and 8.4).

mod dns;
mod metrics;
mod process;
mod security;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use ambit_core::identity::Identity;
use ambit_core::mesh_state::{ServiceKey, Workload};

pub use dns::DnsMetrics;
pub(crate) use dns::{DnsLabels, DnsProtocol};
pub use metrics::Metrics;
use metrics::Series;
pub use security::SecurityCounters;

use crate::logging::{self, Fields, Level};

/// Which side of a connection reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The server's side.
    Inbound,
    /// The client's side.
    Outbound,
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

/// Addresses in the access log.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// The client's.
    pub source: SocketAddr,
    /// Outbound: the next hop; inbound: what the tunnel's or the client's connection was made to.
    pub destination: SocketAddr,
}

/// A connection that is being told about. Dropping it without `complete` reports an abort.
///
/// There are as many of these as open connections: what they have in common stands once, in the series.
pub struct ConnectionReport {
    metrics: Arc<Metrics>,
    series: Arc<Series>,
    pods: Pods,
    addresses: Addresses,
    /// CONNECT's authority, when there is a tunnel.
    authority: Option<Box<str>>,
    started: Instant,
    /// It was counted as opened.
    counted: bool,
    completed: bool,
}

impl ConnectionReport {
    /// Count the connection as opened.
    pub fn opened(
        metrics: &Arc<Metrics>,
        labels: &TrafficLabels,
        pods: Pods,
        addresses: Addresses,
        authority: Option<String>,
        started: Instant,
    ) -> Self {
        let mut report = Self::pending(metrics, labels, pods, addresses, authority, started);
        report.count();
        report
    }

    /// A connection whose destination is still to be learnt; until then it is not counted.
    pub fn pending(
        metrics: &Arc<Metrics>,
        labels: &TrafficLabels,
        pods: Pods,
        addresses: Addresses,
        authority: Option<String>,
        started: Instant,
    ) -> Self {
        Self {
            metrics: Arc::clone(metrics),
            series: metrics.series(labels),
            pods,
            addresses,
            authority: authority.map(String::into_boxed_str),
            started,
            counted: false,
            completed: false,
        }
    }

    /// The destination of a pending connection said who it is: count it as opened.
    pub fn learn_destination(&mut self, destination: Peer) {
        let mut labels = self.series.labels.clone();
        labels.destination = destination;
        self.series = self.metrics.series(&labels);
        self.pods.destination = None;
        self.count();
    }

    fn count(&mut self) {
        if !std::mem::replace(&mut self.counted, true) {
            self.series.opened();
        }
    }

    /// Write the log line and count the connection as closed. `forth` are bytes from client to server, `back` the other way.
    pub fn complete(mut self, forth: u64, back: u64, failure: Option<(Flag, &str)>) {
        self.finish(forth, back, failure);
    }

    fn finish(&mut self, forth: u64, back: u64, failure: Option<(Flag, &str)>) {
        self.completed = true;
        self.count();
        let flag = failure.map_or(Flag::None, |(flag, _)| flag);
        self.series.closed(flag, failure.is_some(), forth, back);
        self.metrics.count_closed();
        let level = if failure.is_some() { Level::Error } else { Level::Info };
        if logging::is_enabled(level) {
            let error = failure.map_or("", |(_, error)| error);
            logging::write(level, "access", "connection complete", &self.fields(forth, back, error));
        }
    }

    fn fields(&self, forth: u64, back: u64, error: &str) -> Fields {
        let TrafficLabels {
            direction,
            source,
            destination,
            service,
            security,
        } = &self.series.labels;
        let proved = |peer: &'_ Peer| match (security, &peer.principal) {
            (SecurityPolicy::MutualTls | SecurityPolicy::NodeLocal, Some(identity)) => identity.uri().to_owned(),
            _ => String::new(),
        };
        let name_of = |pod: &Option<Arc<Workload>>, peer: &Peer| match pod {
            Some(pod) if !pod.name().is_empty() => pod.name().to_owned(),
            _ => peer.canonical_name.to_string(),
        };
        // Each side's `sent` is what it sent: the client's agent towards the server, the server's agent back.
        let (name, sent, received) = match direction {
            Direction::Outbound => ("outbound", forth, back),
            Direction::Inbound => ("inbound", back, forth),
        };
        Fields::default()
            .plain("src.addr", self.addresses.source)
            .text("src.workload", &name_of(&self.pods.source, source))
            .text("src.namespace", &source.namespace)
            .text("src.identity", &proved(source))
            .text("src.cluster", &source.cluster)
            .plain("dst.addr", self.addresses.destination)
            .text("dst.hbone_addr", self.authority.as_deref().unwrap_or_default())
            .text("dst.service", service.as_ref().map_or("", |(key, _)| key.hostname()))
            .text("dst.workload", &name_of(&self.pods.destination, destination))
            .text("dst.namespace", &destination.namespace)
            .text("dst.identity", &proved(destination))
            .text("dst.cluster", &destination.cluster)
            .text("direction", name)
            .plain("bytes_sent", sent)
            .plain("bytes_recv", received)
            .text("duration", &format!("{}ms", self.started.elapsed().as_millis()))
            .text("error", error)
    }
}

impl Drop for ConnectionReport {
    fn drop(&mut self) {
        if !self.completed {
            self.finish(
                0,
                0,
                Some((Flag::None, "the pod was removed from the mesh, or the proxy is ending")),
            );
        }
    }
}

/// Tell about a connection that failed before anything was known of its ends (ztunnel.md 8.4).
pub fn report_early_failure(metrics: &Metrics, direction: Direction, addresses: Addresses, error: &str) {
    metrics.failed_early(direction);
    let fields = Fields::default()
        .plain("src.addr", addresses.source)
        .plain("dst.addr", addresses.destination)
        .text(
            "direction",
            if direction == Direction::Inbound {
                "inbound"
            } else {
                "outbound"
            },
        )
        .text("error", error);
    logging::write(Level::Warn, "access", "connection failed", &fields);
}
