//! Counters, kept per set of labels, and their text form (OpenMetrics).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use ambit_core::mesh_state::ServiceKey;

use super::{Direction, Flag, Peer, SecurityCounters, SecurityPolicy, TrafficLabels};
use crate::logging;

/// So many sets of labels are kept; past that, those without an open connection are forgotten.
const SERIES_KEPT: usize = 20_000;

/// Counters of one set of labels, each split by how connections ended.
pub(super) struct Series {
    pub(super) labels: TrafficLabels,
    opened: AtomicU64,
    ended: [Ended; Flag::ALL.len()],
}

#[derive(Default)]
struct Ended {
    closed: AtomicU64,
    failed: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

impl Series {
    pub(super) fn opened(&self) {
        self.opened.fetch_add(1, Relaxed);
    }

    /// So many bytes more. While a connection lasts nobody knows how it will end: they count under no flag.
    pub(super) fn moved(&self, flag: Flag, forth: u64, back: u64) {
        let ended = &self.ended[flag as usize];
        ended.received.fetch_add(forth, Relaxed);
        ended.sent.fetch_add(back, Relaxed);
    }

    pub(super) fn closed(&self, flag: Flag, failed: bool) {
        let ended = &self.ended[flag as usize];
        ended.closed.fetch_add(1, Relaxed);
        ended.failed.fetch_add(u64::from(failed), Relaxed);
    }
}

/// All metrics of this process. Locked once when a connection opens, never for its bytes or when it closes.
#[derive(Default)]
pub struct Metrics {
    series: Mutex<HashMap<TrafficLabels, Arc<Series>>>,
    /// Of DNS.
    pub dns: super::DnsMetrics,
    /// Of all series.
    closed: AtomicU64,
    early_failures_inbound: AtomicU64,
    early_failures_outbound: AtomicU64,
    /// Accepted and not closed.
    pub sockets: super::SocketCounts,
    /// Of handshakes and policies.
    pub security: Arc<SecurityCounters>,
    /// Pods whose traffic is served.
    pub active_proxies: AtomicI64,
    /// Pods whose listeners could not be opened yet.
    pub pending_proxies: AtomicI64,
    /// Proxies started.
    pub proxies_started: AtomicU64,
    /// Proxies stopped.
    pub proxies_stopped: AtomicU64,
    /// Of discovery.
    pub xds: super::XdsCounters,
}

impl Metrics {
    /// All at zero, but for what `security` has counted.
    pub(crate) fn new(security: Arc<SecurityCounters>) -> Self {
        Self {
            security,
            ..Self::default()
        }
    }

    pub(super) fn series(&self, labels: &TrafficLabels) -> Arc<Series> {
        let mut all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = all.get(labels) {
            return Arc::clone(series);
        }
        if all.len() >= SERIES_KEPT {
            all.retain(|_, series| Arc::strong_count(series) > 1);
        }
        let series = Arc::new(Series {
            labels: labels.clone(),
            opened: AtomicU64::new(0),
            ended: Default::default(),
        });
        all.insert(labels.clone(), Arc::clone(&series));
        series
    }

    pub(super) fn count_closed(&self) {
        self.closed.fetch_add(1, Relaxed);
    }

    pub(super) fn failed_early(&self, direction: Direction) {
        match direction {
            Direction::Inbound => &self.early_failures_inbound,
            Direction::Outbound => &self.early_failures_outbound,
        }
        .fetch_add(1, Relaxed);
    }

    /// How many connections have ended since the start.
    pub(crate) fn connections_closed(&self) -> u64 {
        self.closed.load(Relaxed)
    }

    /// Everything as OpenMetrics text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        self.render_traffic(&mut text);
        self.sockets.render(&mut text);
        self.security.render(&mut text);
        self.dns.render(&mut text);
        self.xds.render(&mut text);
        super::process::render(&mut text);
        let early = [
            ("reporter=\"destination\"", self.early_failures_inbound.load(Relaxed)),
            ("reporter=\"source\"", self.early_failures_outbound.load(Relaxed)),
        ];
        family(
            &mut text,
            "ambit_tcp_early_failures",
            "counter",
            "Connections that failed before their ends were known",
        );
        for (labels, value) in early {
            line(&mut text, "ambit_tcp_early_failures_total", labels, value);
        }
        let singles = [
            (
                "workload_manager_active_proxy_count",
                "gauge",
                "Pods whose traffic is served",
                self.active_proxies.load(Relaxed),
            ),
            (
                "workload_manager_pending_proxy_count",
                "gauge",
                "Pods whose listeners are not open yet",
                self.pending_proxies.load(Relaxed),
            ),
            (
                "workload_manager_proxies_started",
                "counter",
                "Proxies started",
                total(&self.proxies_started),
            ),
            (
                "workload_manager_proxies_stopped",
                "counter",
                "Proxies stopped",
                total(&self.proxies_stopped),
            ),
            (
                "ambit_log_lines_dropped",
                "counter",
                "Log lines that a slow reader cost",
                i64::try_from(logging::dropped()).unwrap_or(i64::MAX),
            ),
        ];
        for (name, kind, help, value) in singles {
            family(&mut text, name, kind, help);
            line(&mut text, &sample_name(name, kind), "", value);
        }
        family(&mut text, "istio_build", "gauge", "Version of this component");
        line(
            &mut text,
            "istio_build",
            &format!("component=\"ztunnel\",tag=\"ambit-{}\"", env!("CARGO_PKG_VERSION")),
            1,
        );
        text.push_str("# EOF\n");
        text
    }

    fn render_traffic(&self, text: &mut String) {
        let all: Vec<_> = {
            let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
            series.values().map(Arc::clone).collect()
        };
        let name = "istio_tcp_connections_opened";
        family(text, name, "counter", "Connections opened");
        for series in &all {
            let labels = render_labels(&series.labels, Flag::None);
            line(
                text,
                &sample_name(name, "counter"),
                &labels,
                series.opened.load(Relaxed),
            );
        }
        type Counter = fn(&Ended) -> &AtomicU64;
        let families: [(&str, &str, Counter); 4] = [
            ("istio_tcp_connections_closed", "Connections closed", |e| &e.closed),
            (
                "istio_tcp_connections_failed",
                "Connections that ended with an error",
                |e| &e.failed,
            ),
            ("istio_tcp_received_bytes", "Bytes from client to server", |e| {
                &e.received
            }),
            ("istio_tcp_sent_bytes", "Bytes from server to client", |e| &e.sent),
        ];
        for (name, help, counter) in families {
            family(text, name, "counter", help);
            let name = sample_name(name, "counter");
            for series in &all {
                for (flag, ended) in Flag::ALL.into_iter().zip(&series.ended) {
                    if flag == Flag::None || ended.closed.load(Relaxed) > 0 {
                        line(
                            text,
                            &name,
                            &render_labels(&series.labels, flag),
                            counter(ended).load(Relaxed),
                        );
                    }
                }
            }
        }
    }
}

fn total(counter: &AtomicU64) -> i64 {
    i64::try_from(counter.load(Relaxed)).unwrap_or(i64::MAX)
}

fn sample_name(name: &str, kind: &str) -> String {
    if kind == "counter" {
        format!("{name}_total")
    } else {
        name.to_owned()
    }
}

pub(super) fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}.\n# TYPE {name} {kind}");
}

pub(super) fn line(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = if labels.is_empty() {
        writeln!(text, "{name} {value}")
    } else {
        writeln!(text, "{name}{{{labels}}} {value}")
    };
}

/// The traffic labels in Istio's order.
fn render_labels(labels: &TrafficLabels, flag: Flag) -> String {
    let TrafficLabels {
        direction,
        source,
        destination,
        service,
        security,
    } = labels;
    let mut text = String::with_capacity(1024);
    pair(&mut text, "reporter", direction.reporter());
    render_peer(&mut text, "source", source, true, *security);
    let part = |of: fn(&(ServiceKey, Arc<str>)) -> &str| service.as_ref().map_or("", of);
    pair(&mut text, "destination_service", part(|(key, _)| key.hostname()));
    pair(
        &mut text,
        "destination_service_namespace",
        part(|(key, _)| key.namespace()),
    );
    pair(&mut text, "destination_service_name", part(|(_, name)| name));
    render_peer(&mut text, "destination", destination, false, *security);
    pair(&mut text, "request_protocol", "tcp");
    pair(&mut text, "response_flags", flag.label());
    pair(&mut text, "connection_security_policy", security.label());
    let places = [
        ("source_region", &source.region),
        ("source_zone", &source.zone),
        ("destination_region", &destination.region),
        ("destination_zone", &destination.zone),
    ];
    if places.iter().any(|(_, place)| !place.is_empty()) {
        places.iter().for_each(|(name, place)| pair(&mut text, name, place));
    }
    text
}

pub(super) fn render_peer(text: &mut String, side: &str, peer: &Peer, proved_only: bool, security: SecurityPolicy) {
    let is_hidden = proved_only && security == SecurityPolicy::Unknown;
    let principal = peer
        .principal
        .as_ref()
        .filter(|_| !is_hidden)
        .map_or("", |identity| identity.uri());
    for (name, value) in [
        ("workload", &*peer.workload),
        ("canonical_service", &*peer.canonical_name),
        ("canonical_revision", &*peer.canonical_revision),
        ("workload_namespace", &*peer.namespace),
        ("principal", principal),
        ("app", &*peer.canonical_name),
        ("version", &*peer.canonical_revision),
        ("cluster", &*peer.cluster),
    ] {
        pair(text, &format!("{side}_{name}"), value);
    }
}

pub(super) fn pair(text: &mut String, name: &str, value: &str) {
    if !text.is_empty() {
        text.push(',');
    }
    let value = if value.is_empty() { "unknown" } else { value };
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let _ = write!(text, "{name}=\"{escaped}\"");
}
