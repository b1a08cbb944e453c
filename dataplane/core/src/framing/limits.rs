//! Every bound on what a peer can make us hold or do, and the allowance that floods are counted against.

use super::types::{ConnectionError, ErrorCode};

/// SETTINGS entries in one frame: ten are defined, so 100 leave room for extensions and greasing.
pub(super) const MAX_SETTINGS_ENTRIES: u32 = 100;

/// Frames of one header block after the first: 64 KiB of block in the smallest legal maximum frame (16 KiB) need 4,
/// and CVE-2024-27316 was servers that took any number of empty ones.
pub(super) const MAX_CONTINUATIONS: u32 = 16;

/// Bytes in the outgoing queue at which a frame that asks for an answer ends the connection: the peer does not read
/// our answers (CVE-2019-9512 and its kin). A full house of 200 streams answering at once needs half of it.
pub(super) const MAX_UNSENT_BYTES: usize = 128 << 10;

/// Streams in the table are at most this many times the concurrency limit. Ended streams whose bytes the application
/// has not taken yet do not count as concurrent, and without a bound a peer could leave one byte in each.
pub(super) const TABLE_FACTOR: usize = 2;

/// Buffers that held more than this are given back when they are empty, so that idle connections stay small.
pub(super) const KEPT_BUFFER_BYTES: usize = 4096;

/// How many units of useless work a peer may cause. An honest one stays near zero: even a receiver that updates both
/// windows after every 4 KiB earns more than it spends.
const FULL: u32 = 10_000;

/// Starting a tunnel costs a policy decision and a connection to the application; resetting it at once, or asking for
/// what must be refused, costs the peer 13 bytes (CVE-2023-44487). 1,000 in a row are taken.
const WASTED_STREAM: u32 = 10;

/// Bytes of DATA, sent or received, that earn one unit.
const BYTES_PER_UNIT: u32 = 1024;

/// What a DATA frame of ours earns besides its bytes: receivers may update both windows after each, however small.
const SENT_FRAME: u32 = 2;

/// How much useless work the peer may still cause on this connection.
///
/// Spent by frames that carry nothing (PING, SETTINGS, PRIORITY, RST_STREAM, WINDOW_UPDATE, empty DATA, unknown ones)
/// and by streams that come to nothing; earned by bytes carried and streams completed, and restored in full when the
/// connection's owner sends a PING: it does so every few seconds, which lets idle connections live for ever and turns
/// the allowance into a rate although there is no clock in here.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u32,
    /// Bytes carried that have not yet made a whole unit.
    bytes: u32,
}

impl Allowance {
    pub(super) fn new() -> Self {
        Self { left: FULL, bytes: 0 }
    }

    /// A frame that carries nothing useful.
    pub(super) fn spend_frame(&mut self, detail: &'static str) -> Result<(), ConnectionError> {
        self.spend(1, detail)
    }

    /// A SETTINGS frame: every entry may shift the windows of all streams.
    pub(super) fn spend_settings(&mut self, payload: &[u8]) -> Result<(), ConnectionError> {
        self.spend(1 + (payload.len() / 6) as u32, "SETTINGS frames")
    }

    /// A stream that came to nothing.
    pub(super) fn spend_stream(&mut self, detail: &'static str) -> Result<(), ConnectionError> {
        self.spend(WASTED_STREAM, detail)
    }

    fn spend(&mut self, units: u32, detail: &'static str) -> Result<(), ConnectionError> {
        let code = ErrorCode::ENHANCE_YOUR_CALM;
        self.left = self.left.checked_sub(units).ok_or(ConnectionError { code, detail })?;
        Ok(())
    }

    /// Bytes of DATA were received for an open stream.
    pub(super) fn earn_bytes(&mut self, count: usize) {
        let bytes = self.bytes.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        self.bytes = bytes % BYTES_PER_UNIT;
        self.earn(bytes / BYTES_PER_UNIT);
    }

    /// A DATA frame of ours was sent.
    pub(super) fn earn_sent_frame(&mut self, count: usize) {
        self.earn(SENT_FRAME);
        self.earn_bytes(count);
    }

    /// A stream ran its course.
    pub(super) fn earn_stream(&mut self) {
        self.earn(WASTED_STREAM);
    }

    /// Time has passed.
    pub(super) fn restore(&mut self) {
        self.left = FULL;
    }

    fn earn(&mut self, units: u32) {
        self.left = self.left.saturating_add(units).min(FULL);
    }
}
