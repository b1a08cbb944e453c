//! Sockets of applications and peers that are open now (`istio_tcp_sockets_open`, ztunnel.md 8.3).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use super::metrics::{family, line};
use super::{Direction, Metrics};

/// How many, by who reports them.
#[derive(Default)]
pub struct SocketCounts {
    inbound: AtomicI64,
    outbound: AtomicI64,
}

impl SocketCounts {
    fn of(&self, direction: Direction) -> &AtomicI64 {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }

    pub(super) fn render(&self, text: &mut String) {
        let name = "istio_tcp_sockets_open";
        family(text, name, "gauge", "Accepted connections that are open (unstable)");
        for direction in [Direction::Inbound, Direction::Outbound] {
            let labels = format!("reporter=\"{}\"", direction.reporter());
            line(text, name, &labels, self.of(direction).load(Relaxed));
        }
    }
}

/// Counts one accepted socket as open for as long as it lives.
pub(crate) struct OpenSocket {
    metrics: Arc<Metrics>,
    direction: Direction,
}

impl OpenSocket {
    pub(crate) fn count(metrics: &Arc<Metrics>, direction: Direction) -> Self {
        metrics.sockets.of(direction).fetch_add(1, Relaxed);
        Self {
            metrics: Arc::clone(metrics),
            direction,
        }
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.metrics.sockets.of(self.direction).fetch_sub(1, Relaxed);
    }
}
