//! Memory that a burst of connections, or a large response, needed goes back to the system when it is over: glibc keeps it
//! otherwise.

use crate::telemetry::Metrics;

/// So many connections must have ended since the last time: a handful leaves nothing worth collecting.
const WORTHWHILE: u64 = 100;

/// Blocks of this size are the system's, and go back to it when they are freed. glibc would raise this bound to the largest
/// block that was ever freed, up to 32 MiB, and keep what is smaller: after one large response it keeps its share.
const LARGE_BLOCK: i32 = 512 * 1024;

/// Hold glibc to `LARGE_BLOCK`. For the start of the process.
#[cfg(target_env = "gnu")]
pub(crate) fn return_large_blocks() {
    // SAFETY: mallopt changes a number under glibc's own lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BLOCK);
    }
}

#[cfg(not(target_env = "gnu"))]
pub(crate) fn return_large_blocks() {}

/// Responses of so many resources leave something worth collecting.
const LARGE_RESPONSE: usize = 1000;

/// Give back what a response of so many resources needed; to be called when it is gone.
pub(crate) fn give_back_after(resources: usize) {
    if resources >= LARGE_RESPONSE {
        trim();
    }
}

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
