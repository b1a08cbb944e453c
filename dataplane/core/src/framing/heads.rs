//! HEADERS: from header blocks to requests, responses and trailers.

use super::connection::{Connection, Role};
use super::fields::Fields;
use super::frame::{FrameHead, flag};
use super::limits::TABLE_FACTOR;
use super::receive::{HeaderBlock, error};
use super::streams::Stream;
use super::types::{ConnectionError, ErrorCode, Event, StreamId};

impl Connection {
    pub(super) fn on_headers(
        &mut self,
        head: FrameHead,
        payload: &[u8],
    ) -> Result<Option<Event<'static>>, ConnectionError> {
        let fragment = strip(head, payload)
            .ok_or_else(|| error(ErrorCode::PROTOCOL_ERROR, "a HEADERS frame shorter than its padding"))?;
        let end_stream = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.end_block(StreamId(head.stream), end_stream, fragment);
        }
        self.block = Some(HeaderBlock {
            stream: head.stream,
            end_stream,
            bytes: fragment.to_vec(),
            continuations: 0,
        });
        Ok(None)
    }

    pub(super) fn on_continuation(
        &mut self,
        head: FrameHead,
        payload: &[u8],
    ) -> Result<Option<Event<'static>>, ConnectionError> {
        let Some(block) = &mut self.block else { return Ok(None) };
        block.bytes.extend_from_slice(payload);
        if !head.has(flag::END_HEADERS) {
            return Ok(None);
        }
        match self.block.take() {
            Some(block) => self.end_block(StreamId(block.stream), block.end_stream, &block.bytes),
            None => Ok(None),
        }
    }

    /// Every block is decoded, whoever it is for: the next one may refer to its fields.
    fn end_block(
        &mut self,
        stream: StreamId,
        end: bool,
        block: &[u8],
    ) -> Result<Option<Event<'static>>, ConnectionError> {
        let mut fields = Fields::new(self.settings.max_header_list as usize);
        self.decoder
            .decode(block, &mut |name, value| fields.add(name, value))
            .map_err(|cause| error(ErrorCode::COMPRESSION_ERROR, cause.detail()))?;
        self.outgoing.check_room()?;
        if self.role == Role::Server && stream.0 > self.highest_seen {
            return self.accept(stream, end, fields);
        }
        match self.streams.get(stream) {
            Some(open) if !open.peer_head => self.answered(stream, end, fields),
            Some(open) if open.peer_done => self.refuse_stream(stream, ErrorCode::STREAM_CLOSED).map(Some),
            Some(_) if end => Ok(self.finish_peer(stream)),
            Some(_) => self.refuse_stream(stream, ErrorCode::PROTOCOL_ERROR).map(Some),
            None => {
                self.allowance.spend_frame("HEADERS on closed streams")?;
                Ok(None)
            }
        }
    }

    /// A client opens a stream.
    fn accept(
        &mut self,
        stream: StreamId,
        end: bool,
        fields: Fields,
    ) -> Result<Option<Event<'static>>, ConnectionError> {
        self.highest_seen = stream.0;
        if self.goaway_sent.is_some_and(|last| stream.0 > last) {
            // The client learns from the GOAWAY that nothing was done.
            self.allowance.spend_frame("streams after GOAWAY")?;
            return Ok(None);
        }
        let limit = self.settings.max_concurrent_streams.unwrap_or(u32::MAX);
        if self.streams.active() >= limit as usize || self.streams.len() >= self.table_limit(limit) {
            self.allowance.spend_stream("streams above the limit")?;
            self.outgoing.reset(stream.0, ErrorCode::REFUSED_STREAM);
            return Ok(None);
        }
        let request = fields.into_request();
        if request.is_err() {
            self.allowance.spend_stream("malformed requests")?;
        }
        self.streams.push(Stream {
            peer_head: true,
            peer_done: end,
            ..self.new_stream(stream)
        });
        Ok(Some(Event::Request { stream, request, end }))
    }

    /// A server answers our CONNECT.
    fn answered(
        &mut self,
        stream: StreamId,
        end: bool,
        fields: Fields,
    ) -> Result<Option<Event<'static>>, ConnectionError> {
        let response = match fields.into_response() {
            Some(response) if response.status < 200 && !end => {
                self.allowance.spend_frame("informational responses")?;
                return Ok(None);
            }
            Some(response) if response.status >= 200 => response,
            _ => return self.refuse_stream(stream, ErrorCode::PROTOCOL_ERROR).map(Some),
        };
        if let Some(open) = self.streams.get_mut(stream) {
            open.peer_head = true;
            open.peer_done = end;
        }
        self.settle(stream);
        Ok(Some(Event::Response {
            stream,
            status: response.status,
            baggage: response.baggage,
            refusal: response.refusal,
            end,
        }))
    }

    pub(super) fn table_limit(&self, concurrent: u32) -> usize {
        (concurrent as usize).saturating_mul(TABLE_FACTOR)
    }
}

/// Cut padding and the obsolete priority fields off a HEADERS payload.
fn strip(head: FrameHead, payload: &[u8]) -> Option<&[u8]> {
    let (padding, mut fragment) = if head.has(flag::PADDED) {
        let (&padding, rest) = payload.split_first()?;
        (usize::from(padding), rest)
    } else {
        (0, payload)
    };
    if head.has(flag::PRIORITY) {
        fragment = fragment.get(5..)?;
    }
    fragment.get(..fragment.len().checked_sub(padding)?)
}
