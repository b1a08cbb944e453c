//! The parser: bytes to frames, gathered whole unless they are DATA.

use super::connection::{Connection, Role};
use super::frame::{FRAME_HEAD_BYTES, FrameHead, PREFACE, flag, kind};
use super::limits::{KEPT_BUFFER_BYTES, MAX_CONTINUATIONS, MAX_SETTINGS_ENTRIES};
use super::types::{ConnectionError, ErrorCode, Event, StreamId};

/// What the next byte belongs to. A frame's payload takes one of three ways: streamed (`Data`), gathered until it is
/// whole (`Payload`) or dropped (`Skip`).
#[derive(Clone, Copy, Debug)]
pub(super) enum Reading {
    /// The client's preface, of which so many bytes have matched.
    Preface { matched: usize },
    /// A frame's head, of which so many bytes have come.
    Head { filled: usize },
    /// The first `want` bytes of a control frame's payload; the rest is dropped.
    Payload { head: FrameHead, want: usize },
    /// The length of a DATA frame's padding.
    PadLength { head: FrameHead },
    /// `left` bytes of data, never 0, and then padding.
    Data {
        stream: StreamId,
        left: usize,
        padding: usize,
        end: bool,
    },
    /// Bytes that mean nothing.
    Skip { left: usize },
}

impl Reading {
    pub(super) fn first(role: Role) -> Self {
        match role {
            Role::Client => Self::Head { filled: 0 },
            Role::Server => Self::Preface { matched: 0 },
        }
    }

    pub(super) fn skip(left: usize) -> Self {
        if left == 0 {
            Self::Head { filled: 0 }
        } else {
            Self::Skip { left }
        }
    }
}

/// The fragments of a header block so far; until it is complete no other frame may come (RFC 9113 section 6.10).
#[derive(Debug)]
pub(super) struct HeaderBlock {
    pub(super) stream: u32,
    pub(super) end_stream: bool,
    pub(super) bytes: Vec<u8>,
    pub(super) continuations: u32,
}

/// What one step of the parser came to.
enum Step<'a> {
    Event(Event<'a>),
    Advanced,
    /// More input is needed.
    Starved,
}

impl<'a> From<Option<Event<'a>>> for Step<'a> {
    fn from(event: Option<Event<'a>>) -> Self {
        event.map_or(Self::Advanced, Self::Event)
    }
}

pub(super) fn error(code: ErrorCode, detail: &'static str) -> ConnectionError {
    ConnectionError { code, detail }
}

impl Connection {
    /// Consume bytes from the front of `input` up to the next event; `None` when all are used up.
    ///
    /// Call it until it gives `None`, then send [`Self::outgoing`]. After an error GOAWAY is in the outgoing bytes:
    /// send them and close; further calls give the same error.
    pub fn receive<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, ConnectionError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        loop {
            if let Some(event) = self.pending_event() {
                return Ok(Some(event));
            }
            match self.advance(input) {
                Ok(Step::Event(event)) => return Ok(Some(event)),
                Ok(Step::Advanced) => {}
                Ok(Step::Starved) => return Ok(None),
                Err(error) => {
                    self.failed = Some(error);
                    self.go_away(error.code);
                    return Err(error);
                }
            }
        }
    }

    fn advance<'a>(&mut self, input: &mut &'a [u8]) -> Result<Step<'a>, ConnectionError> {
        match self.reading {
            Reading::Data {
                stream,
                left,
                padding,
                end,
            } => {
                if input.is_empty() {
                    return Ok(Step::Starved);
                }
                let bytes = take(input, left);
                let is_last = bytes.len() == left;
                self.reading = if is_last {
                    Reading::skip(padding)
                } else {
                    Reading::Data {
                        stream,
                        left: left - bytes.len(),
                        padding,
                        end,
                    }
                };
                Ok(self.deliver(stream, bytes, end && is_last).into())
            }
            Reading::Head { filled } => self.read_head(input, filled),
            Reading::Payload { head, want } => self.read_payload(input, head, want),
            Reading::PadLength { head } => {
                let Some(&length) = input.first() else {
                    return Ok(Step::Starved);
                };
                take(input, 1);
                Ok(self.begin_padded(head, usize::from(length))?.into())
            }
            Reading::Skip { left } => {
                if input.is_empty() {
                    return Ok(Step::Starved);
                }
                self.reading = Reading::skip(left - take(input, left).len());
                Ok(Step::Advanced)
            }
            Reading::Preface { matched } => self.read_preface(input, matched),
        }
    }

    fn read_preface<'a>(&mut self, input: &mut &'a [u8], matched: usize) -> Result<Step<'a>, ConnectionError> {
        let expected = PREFACE.get(matched..).unwrap_or(&[]);
        let bytes = take(input, expected.len());
        if !expected.starts_with(bytes) {
            return Err(error(
                ErrorCode::PROTOCOL_ERROR,
                "the connection does not begin with HTTP/2's preface",
            ));
        }
        if bytes.len() < expected.len() {
            self.reading = Reading::Preface {
                matched: matched + bytes.len(),
            };
            return Ok(Step::Starved);
        }
        self.reading = Reading::Head { filled: 0 };
        Ok(Step::Advanced)
    }

    fn read_head<'a>(&mut self, input: &mut &'a [u8], filled: usize) -> Result<Step<'a>, ConnectionError> {
        let bytes = take(input, FRAME_HEAD_BYTES - filled);
        let filled_now = filled + bytes.len();
        if let Some(target) = self.head_bytes.get_mut(filled..filled_now) {
            target.copy_from_slice(bytes);
        }
        if filled_now < FRAME_HEAD_BYTES {
            self.reading = Reading::Head { filled: filled_now };
            return Ok(Step::Starved);
        }
        let head = FrameHead::parse(&self.head_bytes);
        Ok(self.begin_frame(head)?.into())
    }

    /// Gather a payload: in place when the input holds all of it, otherwise in `partial`.
    fn read_payload<'a>(
        &mut self,
        input: &mut &'a [u8],
        head: FrameHead,
        want: usize,
    ) -> Result<Step<'a>, ConnectionError> {
        let bytes = take(input, want - self.partial.len());
        if self.partial.len() + bytes.len() < want {
            self.partial.extend_from_slice(bytes);
            return Ok(Step::Starved);
        }
        self.reading = Reading::skip(head.length as usize - want);
        if self.partial.is_empty() {
            return Ok(self.end_frame(head, bytes)?.into());
        }
        let mut payload = std::mem::take(&mut self.partial);
        payload.extend_from_slice(bytes);
        let event = self.end_frame(head, &payload)?;
        if payload.capacity() <= KEPT_BUFFER_BYTES {
            payload.clear();
            self.partial = payload;
        }
        Ok(event.into())
    }

    /// Judge a frame by its head, before any of its payload is kept.
    fn begin_frame(&mut self, head: FrameHead) -> Result<Option<Event<'static>>, ConnectionError> {
        self.check_head(head)?;
        let length = head.length as usize;
        let want = match head.kind {
            kind::DATA => return self.begin_data(head),
            kind::HEADERS => {
                self.check_headers(head)?;
                length
            }
            kind::CONTINUATION => {
                self.check_continuation(head)?;
                length
            }
            kind::PRIORITY => exactly(head, 5)?,
            kind::RST_STREAM | kind::WINDOW_UPDATE => exactly(head, 4)?,
            kind::PING => exactly(head, 8)?,
            kind::SETTINGS => {
                check_settings(head)?;
                length
            }
            kind::GOAWAY if length >= 8 => 8,
            kind::GOAWAY => return Err(error(ErrorCode::FRAME_SIZE_ERROR, "a GOAWAY shorter than eight bytes")),
            kind::PUSH_PROMISE => return Err(error(ErrorCode::PROTOCOL_ERROR, "a push, which was not allowed")),
            _ => {
                self.allowance.spend_frame("frames of unknown types")?;
                self.reading = Reading::skip(length);
                return Ok(None);
            }
        };
        self.reading = Reading::Payload { head, want };
        Ok(None)
    }

    /// The rules that hold for frames of all types.
    fn check_head(&mut self, head: FrameHead) -> Result<(), ConnectionError> {
        if head.length > self.settings.max_frame_size {
            return Err(error(
                ErrorCode::FRAME_SIZE_ERROR,
                "a frame longer than SETTINGS_MAX_FRAME_SIZE",
            ));
        }
        if !self.has_peer_settings && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(error(ErrorCode::PROTOCOL_ERROR, "the first frame is not SETTINGS"));
        }
        let is_continued = self.block.as_ref().is_some_and(|block| block.stream == head.stream);
        if self.block.is_some() && !(head.kind == kind::CONTINUATION && is_continued) {
            return Err(error(ErrorCode::PROTOCOL_ERROR, "a frame inside a header block"));
        }
        if matches!(head.kind, kind::SETTINGS | kind::PING | kind::GOAWAY) && head.stream != 0 {
            return Err(error(ErrorCode::PROTOCOL_ERROR, "SETTINGS, PING or GOAWAY on a stream"));
        }
        let needs_stream = matches!(
            head.kind,
            kind::DATA | kind::HEADERS | kind::PRIORITY | kind::RST_STREAM
        );
        if needs_stream && head.stream == 0 {
            return Err(error(
                ErrorCode::PROTOCOL_ERROR,
                "DATA, HEADERS, PRIORITY or RST_STREAM without a stream",
            ));
        }
        let needs_open = matches!(head.kind, kind::DATA | kind::RST_STREAM | kind::WINDOW_UPDATE);
        if needs_open && head.stream != 0 && self.is_idle(head.stream) {
            return Err(error(
                ErrorCode::PROTOCOL_ERROR,
                "a frame on a stream that was never opened",
            ));
        }
        Ok(())
    }

    /// A stream that nobody has opened. Servers open none, so even ids are idle for ever.
    fn is_idle(&self, stream: u32) -> bool {
        let is_used = match self.role {
            Role::Client => stream < self.next_id,
            Role::Server => stream <= self.highest_seen,
        };
        stream.is_multiple_of(2) || !is_used
    }

    /// A block longer than the list we announced is cut here: fields cost 32 bytes each in the list and at most
    /// eleven beside their text in the block, so no honest block is longer than its list.
    fn check_headers(&self, head: FrameHead) -> Result<(), ConnectionError> {
        // Padding with its length, and the obsolete priority fields.
        const MAX_EXTRA: u32 = 256 + 5;
        if head.stream.is_multiple_of(2) || (self.role == Role::Client && self.is_idle(head.stream)) {
            return Err(error(
                ErrorCode::PROTOCOL_ERROR,
                "HEADERS on a stream that the peer must not open",
            ));
        }
        if head.length > self.settings.max_header_list.saturating_add(MAX_EXTRA) {
            return Err(error(
                ErrorCode::ENHANCE_YOUR_CALM,
                "a header block longer than the header list may be",
            ));
        }
        Ok(())
    }

    fn check_continuation(&mut self, head: FrameHead) -> Result<(), ConnectionError> {
        let limit = self.settings.max_header_list as usize;
        let Some(block) = &mut self.block else {
            return Err(error(ErrorCode::PROTOCOL_ERROR, "a CONTINUATION without HEADERS"));
        };
        block.continuations += 1;
        if block.continuations > MAX_CONTINUATIONS || block.bytes.len() + head.length as usize > limit {
            return Err(error(
                ErrorCode::ENHANCE_YOUR_CALM,
                "a header block longer than the header list may be",
            ));
        }
        Ok(())
    }

    /// The peer broke a rule on one stream: reset that stream.
    pub(super) fn refuse_stream(
        &mut self,
        stream: StreamId,
        code: ErrorCode,
    ) -> Result<Event<'static>, ConnectionError> {
        self.allowance.spend_stream("streams that break the rules")?;
        self.outgoing.check_room()?;
        self.forget(stream, code);
        Ok(Event::Reset { stream, code })
    }
}

fn check_settings(head: FrameHead) -> Result<(), ConnectionError> {
    let is_sound = if head.has(flag::ACK) {
        head.length == 0
    } else {
        head.length.is_multiple_of(6)
    };
    if !is_sound {
        return Err(error(
            ErrorCode::FRAME_SIZE_ERROR,
            "a SETTINGS frame of an impossible length",
        ));
    }
    if head.length > MAX_SETTINGS_ENTRIES * 6 {
        return Err(error(ErrorCode::ENHANCE_YOUR_CALM, "more settings than there can be"));
    }
    Ok(())
}

fn exactly(head: FrameHead, length: u32) -> Result<usize, ConnectionError> {
    if head.length != length {
        return Err(error(ErrorCode::FRAME_SIZE_ERROR, "a control frame of a wrong length"));
    }
    Ok(length as usize)
}

/// Cut up to `count` bytes off the front of `input`.
fn take<'a>(input: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(count.min(input.len()));
    *input = rest;
    taken
}
