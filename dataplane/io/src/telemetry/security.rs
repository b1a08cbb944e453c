//! What revocation and policies in dry run count.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::Direction;
use super::metrics::{family, line, pair};

/// Series of policies in dry run, at most. A mesh rehearses a few at a time; what is beyond is counted without a name.
const MAX_SERIES: usize = 4096;

/// Counters that handshakes and policies write to.
#[derive(Debug, Default)]
pub struct SecurityCounters {
    refused_servers: AtomicU64,
    refused_clients: AtomicU64,
    dry_runs: Mutex<BTreeMap<(Box<str>, &'static str), u64>>,
}

impl SecurityCounters {
    /// A handshake failed because the peer is revoked.
    pub(crate) fn revoked(&self, direction: Direction) {
        match direction {
            Direction::Outbound => &self.refused_servers,
            Direction::Inbound => &self.refused_clients,
        }
        .fetch_add(1, Relaxed);
    }

    /// A policy in dry run was asked. `policy` is empty where it took all of them to say so.
    pub(crate) fn dry_run(&self, policy: &str, outcome: &'static str) {
        let mut all = self.dry_runs.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Box::from(policy), outcome);
        let key = if all.len() < MAX_SERIES || all.contains_key(&key) {
            key
        } else {
            (Box::from("other"), outcome)
        };
        *all.entry(key).or_default() += 1;
    }

    pub(super) fn render(&self, text: &mut String) {
        let name = "istio_crl_policy_rejections";
        family(
            text,
            name,
            "counter",
            "Handshakes refused by a revocation list (unstable)",
        );
        for (reporter, count) in [
            ("source", &self.refused_servers),
            ("destination", &self.refused_clients),
        ] {
            let labels = format!("reporter=\"{reporter}\"");
            line(text, &format!("{name}_total"), &labels, count.load(Relaxed));
        }
        let name = "ambit_policy_dry_runs";
        family(
            text,
            name,
            "counter",
            "What policies in dry run would have done to connections",
        );
        let all = self.dry_runs.lock().unwrap_or_else(PoisonError::into_inner);
        for ((policy, outcome), count) in &*all {
            let mut labels = String::new();
            pair(&mut labels, "policy", policy);
            pair(&mut labels, "outcome", outcome);
            line(text, &format!("{name}_total"), &labels, count);
        }
    }
}
