//! What came over discovery's streams, and how these ended (ztunnel.md 8.3).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::metrics::{family, line, pair};

/// By type, how many responses and bytes; by reason, how many streams ended.
#[derive(Default)]
pub struct XdsCounters {
    messages: Mutex<BTreeMap<String, Received>>,
    terminations: Mutex<BTreeMap<&'static str, u64>>,
}

#[derive(Clone, Copy, Default)]
struct Received {
    messages: u64,
    bytes: u64,
}

/// Types that are counted by name: we ask for two, and what else a controller sends is counted together.
const MOST_TYPES: usize = 8;

impl XdsCounters {
    /// A response of so many bytes.
    pub(crate) fn received(&self, type_url: &str, bytes: usize) {
        let mut all = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let is_named = all.len() < MOST_TYPES || all.contains_key(type_url);
        let received = all
            .entry(if is_named { type_url } else { "other" }.to_owned())
            .or_default();
        received.messages += 1;
        received.bytes += bytes as u64;
    }

    /// A stream ended, or did not come about.
    pub(crate) fn terminated(&self, reason: &'static str) {
        let mut all = self.terminations.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(reason).or_default() += 1;
    }

    pub(super) fn render(&self, text: &mut String) {
        let received = self.messages.lock().unwrap_or_else(PoisonError::into_inner).clone();
        type Count = fn(&Received) -> u64;
        let families: [(&str, &str, Count); 2] = [
            ("istio_xds_message", "Discovery responses (unstable)", |one| {
                one.messages
            }),
            (
                "istio_xds_message_bytes",
                "Bytes of discovery responses (unstable)",
                |one| one.bytes,
            ),
        ];
        for (name, help, count) in families {
            let samples = received.iter().map(|(url, one)| (url.as_str(), count(one)));
            render_counter(text, name, help, "url", samples);
        }
        let ended = self.terminations.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let name = "istio_xds_connection_terminations";
        render_counter(
            text,
            name,
            "Discovery streams that ended (unstable)",
            "reason",
            ended.into_iter(),
        );
    }
}

/// Without samples nothing: a family that is empty is not told.
fn render_counter<'a>(
    text: &mut String,
    name: &str,
    help: &str,
    label: &str,
    samples: impl Iterator<Item = (&'a str, u64)>,
) {
    let mut samples = samples.peekable();
    if samples.peek().is_some() {
        family(text, name, "counter", help);
    }
    for (value, count) in samples {
        let mut labels = String::new();
        pair(&mut labels, label, value);
        line(text, &format!("{name}_total"), &labels, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_and_reason_is_a_series() {
        let counters = XdsCounters::default();
        let mut text = String::new();
        counters.render(&mut text);
        assert_eq!(text, "");
        counters.received("type/a", 10);
        counters.received("type/a", 5);
        (0..20).for_each(|number| counters.received(&format!("type/{number}"), 1));
        counters.terminated("Complete");
        counters.render(&mut text);
        for expected in [
            "istio_xds_message_total{url=\"type/a\"} 2\n",
            "istio_xds_message_bytes_total{url=\"type/a\"} 15\n",
            "istio_xds_message_total{url=\"other\"} 13\n",
            "istio_xds_connection_terminations_total{reason=\"Complete\"} 1\n",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }
}
