//! Memory that a burst of connections needed goes back to the system when the burst is over: glibc keeps it otherwise.

use crate::telemetry::Metrics;

/// So many connections must have ended since the last time: a handful leaves nothing worth collecting.
const WORTHWHILE: u64 = 100;

/// Remembers when there was last something to give back.
#[derive(Default)]
pub(crate) struct Memory {
    given_back_at: u64,
    last_seen: u64,
}

impl Memory {
    /// Give back what is free, if connections have ended and none ended since the last call: while a burst lasts, the
    /// memory would only be taken again.
    pub(crate) fn give_back(&mut self, metrics: &Metrics) {
        let closed = metrics.connections_closed();
        let is_quiet = closed == self.last_seen;
        self.last_seen = closed;
        if is_quiet && closed - self.given_back_at >= WORTHWHILE {
            self.given_back_at = closed;
            trim();
        }
    }
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: malloc_trim takes glibc's own locks and frees nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}
