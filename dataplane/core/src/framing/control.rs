//! What complete control frames do to the connection.

use super::connection::{Connection, Role};
use super::frame::{
    DEFAULT_MAX_FRAME_SIZE, FrameHead, LARGEST_MAX_FRAME_SIZE, LARGEST_WINDOW, flag, kind, setting, u32_at,
};
use super::receive::error;
use super::types::{ConnectionError, ErrorCode, Event, StreamId};

impl Connection {
    /// Events that follow from an earlier frame and need no input.
    pub(super) fn pending_event(&mut self) -> Option<Event<'static>> {
        if std::mem::take(&mut self.windows_opened) {
            return Some(Event::WindowOpened { stream: None });
        }
        let last = self.goaway_received.filter(|_| self.role == Role::Client)?;
        let refused = self.streams.pop_above(StreamId(last))?;
        self.credit(refused.held);
        Some(Event::Reset {
            stream: refused.id,
            code: ErrorCode::REFUSED_STREAM,
        })
    }

    /// Act on a frame whose payload is whole; `begin_frame` has judged its length and stream.
    pub(super) fn end_frame(
        &mut self,
        head: FrameHead,
        payload: &[u8],
    ) -> Result<Option<Event<'static>>, ConnectionError> {
        match head.kind {
            kind::HEADERS => self.on_headers(head, payload),
            kind::CONTINUATION => self.on_continuation(head, payload),
            kind::RST_STREAM => self.on_reset(StreamId(head.stream), ErrorCode(u32_at(payload, 0))),
            kind::SETTINGS if head.has(flag::ACK) => self.on_settings_ack(),
            kind::SETTINGS => self.on_settings(payload).map(Some),
            kind::PING => self.on_ping(head, payload),
            kind::GOAWAY => self
                .on_go_away(u32_at(payload, 0), ErrorCode(u32_at(payload, 4)))
                .map(Some),
            kind::WINDOW_UPDATE => self.on_window_update(head.stream, u32_at(payload, 0)),
            // PRIORITY is obsolete (RFC 9113 section 5.3).
            _ => {
                self.allowance.spend_frame("PRIORITY frames")?;
                Ok(None)
            }
        }
    }

    /// A reset before our answer is the rapid one that wastes a policy decision and a connection. One of an ended
    /// stream says nothing new, and the bytes that are held of it stay valid.
    fn on_reset(&mut self, stream: StreamId, code: ErrorCode) -> Result<Option<Event<'static>>, ConnectionError> {
        let Some(open) = self.streams.get(stream).filter(|open| !open.is_ended()) else {
            self.allowance.spend_frame("resets of closed streams")?;
            return Ok(None);
        };
        if open.our_head {
            self.allowance.spend_frame("resets")?;
        } else {
            self.allowance.spend_stream("streams that are reset at once")?;
        }
        let held = self.streams.remove(stream).map_or(0, |gone| gone.held);
        self.credit(held);
        Ok(Some(Event::Reset { stream, code }))
    }

    fn on_settings(&mut self, payload: &[u8]) -> Result<Event<'static>, ConnectionError> {
        self.allowance.spend_settings(payload)?;
        self.outgoing.check_room()?;
        if !self.has_peer_settings {
            self.has_peer_settings = true;
            // From here on a limit that the peer does not state is no limit.
            self.peer.max_streams = u32::MAX;
        }
        for entry in payload.chunks_exact(6) {
            if let [i0, i1, v0, v1, v2, v3] = *entry {
                self.apply_setting(u16::from_be_bytes([i0, i1]), u32::from_be_bytes([v0, v1, v2, v3]))?;
            }
        }
        self.outgoing.frame(kind::SETTINGS, flag::ACK, 0, &[]);
        Ok(Event::SettingsReceived)
    }

    /// SETTINGS_HEADER_TABLE_SIZE needs nothing: our encoder has closed its table.
    fn apply_setting(&mut self, id: u16, value: u32) -> Result<(), ConnectionError> {
        match id {
            setting::ENABLE_PUSH if value > 1 || (value == 1 && self.role == Role::Client) => {
                Err(error(ErrorCode::PROTOCOL_ERROR, "an impossible SETTINGS_ENABLE_PUSH"))
            }
            setting::MAX_CONCURRENT_STREAMS => {
                self.peer.max_streams = value;
                Ok(())
            }
            setting::INITIAL_WINDOW_SIZE => self.apply_initial_window(value),
            setting::MAX_FRAME_SIZE if !(DEFAULT_MAX_FRAME_SIZE..=LARGEST_MAX_FRAME_SIZE).contains(&value) => Err(
                error(ErrorCode::PROTOCOL_ERROR, "an impossible SETTINGS_MAX_FRAME_SIZE"),
            ),
            setting::MAX_FRAME_SIZE => {
                self.peer.max_frame_size = value;
                Ok(())
            }
            setting::MAX_HEADER_LIST_SIZE => {
                self.peer.max_header_list = value;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Shift the windows of all open streams by the difference, below zero if need be (RFC 9113 section 6.9.2).
    fn apply_initial_window(&mut self, value: u32) -> Result<(), ConnectionError> {
        let overflow = error(
            ErrorCode::FLOW_CONTROL_ERROR,
            "SETTINGS_INITIAL_WINDOW_SIZE overflows a window",
        );
        if value > LARGEST_WINDOW {
            return Err(overflow);
        }
        let delta = i64::from(value) - i64::from(self.peer.initial_window);
        self.peer.initial_window = value;
        for stream in self.streams.iter_mut() {
            self.windows_opened |= stream.send.shift(delta).map_err(|_| overflow)?;
        }
        Ok(())
    }

    /// From here on the peer keeps to our initial window, also where it is smaller than the protocol's.
    fn on_settings_ack(&mut self) -> Result<Option<Event<'static>>, ConnectionError> {
        self.allowance.spend_frame("acknowledgements of SETTINGS")?;
        self.initial_window = self.settings.initial_window;
        for stream in self.streams.iter_mut() {
            stream.receive.resize(self.settings.initial_window);
        }
        Ok(None)
    }

    fn on_ping(&mut self, head: FrameHead, payload: &[u8]) -> Result<Option<Event<'static>>, ConnectionError> {
        self.allowance.spend_frame("PING frames")?;
        if head.has(flag::ACK) {
            let payload = payload.first_chunk().copied().unwrap_or_default();
            return Ok(Some(Event::PingAck { payload }));
        }
        self.outgoing.check_room()?;
        self.outgoing.frame(kind::PING, flag::ACK, 0, payload);
        Ok(None)
    }

    fn on_go_away(&mut self, last_stream: u32, code: ErrorCode) -> Result<Event<'static>, ConnectionError> {
        self.allowance.spend_frame("GOAWAY frames")?;
        let last = (last_stream & LARGEST_WINDOW).min(self.goaway_received.unwrap_or(u32::MAX));
        self.goaway_received = Some(last);
        Ok(Event::GoAway {
            last_stream: StreamId(last),
            code,
        })
    }

    fn on_window_update(&mut self, stream: u32, increment: u32) -> Result<Option<Event<'static>>, ConnectionError> {
        self.allowance.spend_frame("WINDOW_UPDATE frames")?;
        let increment = i64::from(increment & LARGEST_WINDOW);
        if stream == 0 {
            return self.widen_connection(increment);
        }
        let stream = StreamId(stream);
        let Some(open) = self.streams.get_mut(stream) else {
            return Ok(None);
        };
        if increment == 0 {
            return self.refuse_stream(stream, ErrorCode::PROTOCOL_ERROR).map(Some);
        }
        match open.send.shift(increment) {
            Ok(is_opened) => {
                let is_news = is_opened && open.may_send();
                Ok(is_news.then_some(Event::WindowOpened { stream: Some(stream) }))
            }
            Err(_) => self.refuse_stream(stream, ErrorCode::FLOW_CONTROL_ERROR).map(Some),
        }
    }

    fn widen_connection(&mut self, increment: i64) -> Result<Option<Event<'static>>, ConnectionError> {
        if increment == 0 {
            return Err(error(ErrorCode::PROTOCOL_ERROR, "a WINDOW_UPDATE of nothing"));
        }
        match self.send.shift(increment) {
            Ok(is_opened) => Ok(is_opened.then_some(Event::WindowOpened { stream: None })),
            Err(_) => Err(error(
                ErrorCode::FLOW_CONTROL_ERROR,
                "a WINDOW_UPDATE overflows the connection's window",
            )),
        }
    }
}
