//! DATA frames: charged to the windows by their head, handed out as they come.

use super::connection::Connection;
use super::frame::{FrameHead, flag};
use super::receive::{Reading, error};
use super::types::{ConnectionError, ErrorCode, Event, StreamId};

impl Connection {
    /// Charge a DATA frame to the windows and find out whether anybody wants it.
    pub(super) fn begin_data(&mut self, head: FrameHead) -> Result<Option<Event<'static>>, ConnectionError> {
        if !self.receive.take(head.length) {
            return Err(error(
                ErrorCode::FLOW_CONTROL_ERROR,
                "more bytes than the connection's window",
            ));
        }
        let stream = StreamId(head.stream);
        let length = head.length as usize;
        let Some(open) = self.streams.get_mut(stream) else {
            self.drop_data(length);
            if length == 0 {
                self.allowance.spend_frame("empty DATA frames")?;
            }
            return Ok(None);
        };
        let refusal = if open.peer_done {
            Some(ErrorCode::STREAM_CLOSED)
        } else if !open.peer_head {
            Some(ErrorCode::PROTOCOL_ERROR)
        } else if !open.receive.take(head.length) {
            Some(ErrorCode::FLOW_CONTROL_ERROR)
        } else {
            None
        };
        if let Some(code) = refusal {
            self.drop_data(length);
            return self.refuse_stream(stream, code).map(Some);
        }
        if !head.has(flag::PADDED) {
            return self.begin_payload(stream, length, 0, head.has(flag::END_STREAM));
        }
        if length == 0 {
            return Err(error(
                ErrorCode::FRAME_SIZE_ERROR,
                "a padded DATA frame without a padding length",
            ));
        }
        self.reading = Reading::PadLength { head };
        Ok(None)
    }

    /// Nobody wants the payload that follows. It still went through the connection's window.
    fn drop_data(&mut self, length: usize) {
        self.credit(length);
        self.reading = Reading::skip(length);
    }

    pub(super) fn begin_padded(
        &mut self,
        head: FrameHead,
        padding: usize,
    ) -> Result<Option<Event<'static>>, ConnectionError> {
        let after_length = head.length as usize - 1;
        let Some(left) = after_length.checked_sub(padding) else {
            return Err(error(ErrorCode::PROTOCOL_ERROR, "padding longer than its frame"));
        };
        let stream = StreamId(head.stream);
        // The application never sees padding, so its credit returns at once.
        if let Some(open) = self.streams.get_mut(stream)
            && let Some(increment) = open.receive.give_back(padding + 1)
        {
            self.outgoing.window_update(stream.0, increment);
        }
        self.credit(padding + 1);
        self.begin_payload(stream, left, padding, head.has(flag::END_STREAM))
    }

    fn begin_payload(
        &mut self,
        stream: StreamId,
        left: usize,
        padding: usize,
        end: bool,
    ) -> Result<Option<Event<'static>>, ConnectionError> {
        if left > 0 {
            self.reading = Reading::Data {
                stream,
                left,
                padding,
                end,
            };
            return Ok(None);
        }
        self.reading = Reading::skip(padding);
        if end {
            return Ok(self.finish_peer(stream));
        }
        self.allowance.spend_frame("empty DATA frames")?;
        Ok(None)
    }

    /// Hand out bytes, unless their stream was reset since the frame began: then they only return their credit.
    pub(super) fn deliver<'a>(&mut self, stream: StreamId, bytes: &'a [u8], end: bool) -> Option<Event<'a>> {
        let Some(open) = self.streams.get_mut(stream) else {
            self.credit(bytes.len());
            return None;
        };
        open.held += bytes.len();
        open.peer_done = end;
        self.allowance.earn_bytes(bytes.len());
        Some(Event::Data { stream, bytes, end })
    }

    /// The peer's half ended without data.
    pub(super) fn finish_peer(&mut self, stream: StreamId) -> Option<Event<'static>> {
        self.streams.get_mut(stream)?.peer_done = true;
        self.settle(stream);
        Some(Event::Finished { stream })
    }
}
