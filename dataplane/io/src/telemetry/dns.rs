//! Istio's metrics of DNS (ztunnel.md 8.3).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ambit_core::mesh_state::Workload;

use super::metrics::{family, line, pair, render_peer};
use super::{Peer, SecurityPolicy};

/// Upper bounds in seconds, and how the text names them.
const BUCKETS: [(f64, &str); 6] = [
    (0.0005, "0.0005"),
    (0.001, "0.001"),
    (0.01, "0.01"),
    (0.1, "0.1"),
    (1.0, "1.0"),
    (5.0, "5.0"),
];

/// How a client asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum DnsProtocol {
    Udp,
    Tcp,
}

/// What identifies a series.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DnsLabels {
    /// One of a fixed set.
    pub(crate) query_type: &'static str,
    pub(crate) protocol: DnsProtocol,
    canonical_name: Arc<str>,
    canonical_revision: Arc<str>,
}

impl DnsLabels {
    pub(crate) fn new(query_type: &'static str, protocol: DnsProtocol, source: Option<&Workload>) -> Self {
        let text = |of: fn(&Workload) -> &Arc<str>| source.map_or_else(|| Arc::from(""), |w| Arc::clone(of(w)));
        Self {
            query_type,
            protocol,
            canonical_name: text(|w| &w.profile.canonical_name),
            canonical_revision: text(|w| &w.profile.canonical_revision),
        }
    }

    fn render(&self) -> String {
        let protocol = match self.protocol {
            DnsProtocol::Udp => "udp",
            DnsProtocol::Tcp => "tcp",
        };
        let mut text = String::new();
        pair(&mut text, "request_query_type", self.query_type);
        pair(&mut text, "request_protocol", protocol);
        pair(&mut text, "source_canonical_service", &self.canonical_name);
        pair(&mut text, "source_canonical_revision", &self.canonical_revision);
        text
    }
}

/// Counters of one set of labels.
#[derive(Default)]
pub(crate) struct DnsSeries {
    pub(crate) requests: AtomicU64,
    pub(crate) forwarded: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) duration: Durations,
}

/// A histogram.
#[derive(Default)]
pub(crate) struct Durations {
    buckets: [AtomicU64; BUCKETS.len()],
    count: AtomicU64,
    microseconds: AtomicU64,
}

impl Durations {
    pub(crate) fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bounds = BUCKETS.iter().zip(&self.buckets);
        for (_, bucket) in bounds.filter(|((bound, _), _)| seconds <= *bound) {
            bucket.fetch_add(1, Relaxed);
        }
        self.count.fetch_add(1, Relaxed);
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.microseconds.fetch_add(microseconds, Relaxed);
    }
}

/// All series.
#[derive(Default)]
pub struct DnsMetrics {
    series: Mutex<HashMap<DnsLabels, Arc<DnsSeries>>>,
    /// Connections to endpoints that have a name instead of an address, by client and name.
    on_demand: Mutex<HashMap<(Peer, Arc<str>), u64>>,
}

impl DnsMetrics {
    pub(crate) fn series(&self, labels: &DnsLabels) -> Arc<DnsSeries> {
        let mut all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = all.get(labels) {
            return Arc::clone(series);
        }
        Arc::clone(all.entry(labels.clone()).or_default())
    }

    /// Count a connection of `source` to the endpoint of this name.
    pub(crate) fn count_on_demand(&self, source: Peer, hostname: &Arc<str>) {
        let mut all = self.on_demand.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry((source, Arc::clone(hostname))).or_default() += 1;
    }

    fn render_on_demand(&self, text: &mut String) {
        let name = "istio_on_demand_dns";
        family(
            text,
            name,
            "counter",
            "Connections to endpoints whose name was resolved for them",
        );
        for ((source, hostname), count) in &*self.on_demand.lock().unwrap_or_else(PoisonError::into_inner) {
            let mut labels = String::new();
            render_peer(&mut labels, "source", source, true, SecurityPolicy::NodeLocal);
            pair(&mut labels, "hostname", hostname);
            line(text, &format!("{name}_total"), &labels, *count);
        }
    }

    pub(super) fn render(&self, text: &mut String) {
        self.render_on_demand(text);
        let all: Vec<_> = {
            let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
            series.iter().map(|(l, s)| (l.render(), Arc::clone(s))).collect()
        };
        type Counter = fn(&DnsSeries) -> &AtomicU64;
        let families: [(&str, &str, Counter); 3] = [
            ("istio_dns_requests", "DNS queries of pods", |s| &s.requests),
            ("istio_dns_upstream_requests", "Queries handed to name servers", |s| {
                &s.forwarded
            }),
            (
                "istio_dns_upstream_failures",
                "Queries that no name server answered",
                |s| &s.failed,
            ),
        ];
        for (name, help, counter) in families {
            family(text, name, "counter", help);
            for (labels, series) in &all {
                line(text, &format!("{name}_total"), labels, counter(series).load(Relaxed));
            }
        }
        let name = "istio_dns_upstream_request_duration_seconds";
        family(text, name, "histogram", "How long name servers took");
        for (labels, series) in &all {
            render_histogram(text, name, labels, &series.duration);
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a sum of durations, exact to 285 years in microseconds"
)]
fn render_histogram(text: &mut String, name: &str, labels: &str, durations: &Durations) {
    let bucket = format!("{name}_bucket");
    for ((_, bound), count) in BUCKETS.iter().zip(&durations.buckets) {
        line(text, &bucket, &format!("{labels},le=\"{bound}\""), count.load(Relaxed));
    }
    let count = durations.count.load(Relaxed);
    line(text, &bucket, &format!("{labels},le=\"+Inf\""), count);
    let seconds = durations.microseconds.load(Relaxed) as f64 / 1e6;
    line(text, &format!("{name}_sum"), labels, seconds);
    line(text, &format!("{name}_count"), labels, count);
}
