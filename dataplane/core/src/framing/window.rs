//! Flow-control sums (RFC 9113 section 5.2 and 6.9).

use super::frame::LARGEST_WINDOW;

/// Room for what we send. Negative after the peer lowered its initial window under bytes in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct SendWindow(i64);

/// A window was widened past 2^31 - 1.
#[derive(Debug)]
pub(super) struct WindowOverflow;

impl SendWindow {
    pub(super) fn new(size: u32) -> Self {
        Self(i64::from(size))
    }

    /// How many bytes may be sent.
    pub(super) fn room(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    pub(super) fn take(&mut self, count: usize) {
        self.0 -= count as i64;
    }

    /// Widen (WINDOW_UPDATE) or shift (SETTINGS_INITIAL_WINDOW_SIZE); true if it was shut and now is not.
    pub(super) fn shift(&mut self, delta: i64) -> Result<bool, WindowOverflow> {
        let was_shut = self.0 <= 0;
        self.0 += delta;
        if self.0 > i64::from(LARGEST_WINDOW) {
            return Err(WindowOverflow);
        }
        Ok(was_shut && self.0 > 0)
    }
}

/// Room that we gave the peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceiveWindow {
    /// What the peer may still send.
    left: i64,
    /// Consumed, but the peer was not told yet.
    unannounced: u32,
    /// What is left when everything is consumed and announced.
    size: u32,
}

impl ReceiveWindow {
    pub(super) fn new(size: u32) -> Self {
        Self {
            left: i64::from(size),
            unannounced: 0,
            size,
        }
    }

    /// The peer sent `count` bytes; false if it had no room for them. Nothing needs no room, also while the window is
    /// negative because the peer had sent more before it saw our smaller initial window.
    pub(super) fn take(&mut self, count: u32) -> bool {
        self.left -= i64::from(count);
        self.left >= 0 || count == 0
    }

    /// `count` bytes were consumed; the increment for a WINDOW_UPDATE when one is due.
    ///
    /// Announced by quarters: the peer never sees less than three quarters of the window for our laziness, and an
    /// update of 13 bytes for each MiB of a 4 MiB window is no load.
    pub(super) fn give_back(&mut self, count: usize) -> Option<u32> {
        self.unannounced = self
            .unannounced
            .saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        if self.unannounced < (self.size / 4).max(1) {
            return None;
        }
        self.left += i64::from(self.unannounced);
        Some(std::mem::take(&mut self.unannounced))
    }

    /// The peer acknowledged another initial window.
    pub(super) fn resize(&mut self, size: u32) {
        self.left += i64::from(size) - i64::from(self.size);
        self.size = size;
    }
}
