//! The queue of bytes that the state machine wants sent: everything but DATA with a payload.

use super::frame::{FrameHead, flag, kind};
use super::limits::{KEPT_BUFFER_BYTES, MAX_UNSENT_BYTES};
use super::types::{ConnectionError, ErrorCode};

/// Frames in the order in which they must be sent.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outgoing {
    pub(super) fn unsent(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or(&[])
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.sent = self.sent.saturating_add(count);
        if self.sent < self.bytes.len() {
            return;
        }
        self.sent = 0;
        self.bytes.clear();
        if self.bytes.capacity() > KEPT_BUFFER_BYTES {
            self.bytes = Vec::new();
        }
    }

    /// Refuse to answer a peer that does not read our answers.
    pub(super) fn check_room(&self) -> Result<(), ConnectionError> {
        if self.bytes.len() - self.sent > MAX_UNSENT_BYTES {
            let code = ErrorCode::ENHANCE_YOUR_CALM;
            return Err(ConnectionError {
                code,
                detail: "frames that ask for answers, while the answers are not read",
            });
        }
        Ok(())
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.raw(
            &FrameHead {
                length: payload.len() as u32,
                kind,
                flags,
                stream,
            }
            .bytes(),
        );
        self.raw(payload);
    }

    /// A header block in one HEADERS frame and as many CONTINUATIONs as the peer's frame size demands.
    pub(super) fn headers(&mut self, stream: u32, block: &[u8], max_frame_size: u32, end: bool) {
        let end_stream = if end { flag::END_STREAM } else { 0 };
        let (first, mut rest) = block.split_at(block.len().min(max_frame_size as usize));
        let last = |rest: &[u8]| if rest.is_empty() { flag::END_HEADERS } else { 0 };
        self.frame(kind::HEADERS, end_stream | last(rest), stream, first);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(max_frame_size as usize));
            rest = after;
            self.frame(kind::CONTINUATION, last(rest), stream, piece);
        }
    }

    pub(super) fn settings(&mut self, entries: &[(u16, u32)]) {
        let payload: Vec<u8> = entries
            .iter()
            .flat_map(|&(id, value)| setting_bytes(id, value))
            .collect();
        self.frame(kind::SETTINGS, 0, 0, &payload);
    }

    pub(super) fn window_update(&mut self, stream: u32, increment: u32) {
        self.frame(kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes());
    }

    pub(super) fn reset(&mut self, stream: u32, code: ErrorCode) {
        self.frame(kind::RST_STREAM, 0, stream, &code.0.to_be_bytes());
    }

    pub(super) fn go_away(&mut self, last_stream: u32, code: ErrorCode) {
        let payload = [last_stream.to_be_bytes(), code.0.to_be_bytes()].concat();
        self.frame(kind::GOAWAY, 0, 0, &payload);
    }
}

fn setting_bytes(id: u16, value: u32) -> [u8; 6] {
    let ([i0, i1], [v0, v1, v2, v3]) = (id.to_be_bytes(), value.to_be_bytes());
    [i0, i1, v0, v1, v2, v3]
}
