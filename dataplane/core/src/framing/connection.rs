//! The state of a connection, and everything its owner tells it to do.

use super::frame::{
    DEFAULT_MAX_FRAME_SIZE, DEFAULT_WINDOW, FRAME_HEAD_BYTES, FrameHead, LARGEST_STREAM_ID, PREFACE, flag, kind,
    setting,
};
use super::hpack::{Decoder, Encoder};
use super::limits::Allowance;
use super::outgoing::Outgoing;
use super::receive::{HeaderBlock, Reading};
use super::streams::{Stream, Streams};
use super::types::{ConnectHead, ConnectionError, ErrorCode, OpenError, Settings, StreamGone, StreamId};
use super::window::{ReceiveWindow, SendWindow};

/// Streams we open before the peer's SETTINGS tell its limit: what HBONE servers have to grant at least
/// (facts/ztunnel.md section 13).
const ASSUMED_STREAM_LIMIT: u32 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Client,
    Server,
}

/// What the peer announced.
#[derive(Debug)]
pub(super) struct PeerSettings {
    pub(super) initial_window: u32,
    pub(super) max_frame_size: u32,
    pub(super) max_streams: u32,
    pub(super) max_header_list: u32,
}

/// One HTTP/2 connection, seen from one end. See the [module](super) for how it is driven.
#[derive(Debug)]
pub struct Connection {
    pub(super) role: Role,
    pub(super) settings: Settings,
    pub(super) peer: PeerSettings,
    pub(super) streams: Streams,
    pub(super) send: SendWindow,
    pub(super) receive: ReceiveWindow,
    /// The window that new streams give the peer: at least the protocol's until it acknowledged ours.
    pub(super) initial_window: u32,
    /// Server: the highest stream id that the client used.
    pub(super) highest_seen: u32,
    /// Client: the id of the next stream.
    pub(super) next_id: u32,
    /// The last stream in the GOAWAY that we sent.
    pub(super) goaway_sent: Option<u32>,
    /// The last stream in the GOAWAY that the peer sent.
    pub(super) goaway_received: Option<u32>,
    pub(super) decoder: Decoder,
    encoder: Encoder,
    pub(super) outgoing: Outgoing,
    pub(super) allowance: Allowance,
    pub(super) reading: Reading,
    pub(super) head_bytes: [u8; FRAME_HEAD_BYTES],
    /// The part of a control frame's payload that came in earlier slices.
    pub(super) partial: Vec<u8>,
    /// A header block whose END_HEADERS has not come.
    pub(super) block: Option<HeaderBlock>,
    pub(super) has_peer_settings: bool,
    /// A SETTINGS frame opened windows, which is still to be told.
    pub(super) windows_opened: bool,
    pub(super) failed: Option<ConnectionError>,
}

impl Connection {
    /// The end that opens tunnels. Preface, SETTINGS and WINDOW_UPDATE are in the outgoing bytes.
    pub fn client(settings: Settings) -> Self {
        let mut connection = Self::new(Role::Client, settings);
        connection.outgoing.raw(PREFACE);
        connection.announce(&[(setting::ENABLE_PUSH, 0)]);
        connection
    }

    /// The end that accepts tunnels; expects the preface. SETTINGS and WINDOW_UPDATE are in the outgoing bytes.
    pub fn server(settings: Settings) -> Self {
        let mut connection = Self::new(Role::Server, settings);
        connection.announce(&[]);
        connection
    }

    fn new(role: Role, settings: Settings) -> Self {
        Self {
            role,
            peer: PeerSettings {
                initial_window: DEFAULT_WINDOW,
                max_frame_size: DEFAULT_MAX_FRAME_SIZE,
                max_streams: ASSUMED_STREAM_LIMIT,
                max_header_list: u32::MAX,
            },
            streams: Streams::default(),
            send: SendWindow::new(DEFAULT_WINDOW),
            receive: ReceiveWindow::new(settings.connection_window.max(DEFAULT_WINDOW)),
            initial_window: settings.initial_window.max(DEFAULT_WINDOW),
            highest_seen: 0,
            next_id: 1,
            goaway_sent: None,
            goaway_received: None,
            decoder: Decoder::new(),
            encoder: Encoder::new(),
            outgoing: Outgoing::default(),
            allowance: Allowance::new(),
            reading: Reading::first(role),
            head_bytes: [0; FRAME_HEAD_BYTES],
            partial: Vec::new(),
            block: None,
            has_peer_settings: false,
            windows_opened: false,
            failed: None,
            settings,
        }
    }

    fn announce(&mut self, first: &[(u16, u32)]) {
        let mut entries = first.to_vec();
        entries.extend(
            self.settings
                .max_concurrent_streams
                .map(|count| (setting::MAX_CONCURRENT_STREAMS, count)),
        );
        entries.extend([
            (setting::INITIAL_WINDOW_SIZE, self.settings.initial_window),
            (setting::MAX_FRAME_SIZE, self.settings.max_frame_size),
            (setting::MAX_HEADER_LIST_SIZE, self.settings.max_header_list),
        ]);
        self.outgoing.settings(&entries);
        if self.settings.connection_window > DEFAULT_WINDOW {
            self.outgoing
                .window_update(0, self.settings.connection_window - DEFAULT_WINDOW);
        }
    }

    /// Bytes that wait to be sent, before any DATA that the caller makes from now on.
    pub fn outgoing(&self) -> &[u8] {
        self.outgoing.unsent()
    }

    /// The first `count` bytes of [`Self::outgoing`] were sent.
    pub fn consume_outgoing(&mut self, count: usize) {
        self.outgoing.consume(count);
    }

    /// Move all waiting bytes to the end of `into`.
    pub fn take_outgoing(&mut self, into: &mut Vec<u8>) {
        into.extend_from_slice(self.outgoing.unsent());
        self.outgoing.consume(usize::MAX);
    }

    /// True if [`Self::open`] would take a stream now (clients).
    pub fn can_open(&self) -> bool {
        self.check_open().is_ok()
    }

    fn check_open(&self) -> Result<(), OpenError> {
        let is_spent = self.next_id > LARGEST_STREAM_ID || self.role == Role::Server;
        if is_spent || self.is_draining() || self.failed.is_some() {
            return Err(OpenError::Draining);
        }
        let limit = self.settings.open_limit.min(self.peer.max_streams) as usize;
        if self.streams.active() >= limit || self.streams.len() >= self.table_limit(self.settings.open_limit) {
            return Err(OpenError::TooManyStreams);
        }
        Ok(())
    }

    /// Ask for a tunnel (clients): HEADERS go to the outgoing bytes. Data may be sent before the response, but a
    /// server need not take it.
    pub fn open(&mut self, head: &ConnectHead<'_>) -> Result<StreamId, OpenError> {
        self.check_open()?;
        let fields = [
            (":method", Some("CONNECT")),
            (":authority", Some(head.authority)),
            ("baggage", head.baggage),
            ("forwarded", head.forwarded),
            ("traceparent", head.traceparent),
            ("x-forwarded-network", head.x_forwarded_network),
        ];
        let fields = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let size: usize = fields.clone().map(|(name, value)| name.len() + value.len() + 32).sum();
        if size > self.peer.max_header_list as usize {
            return Err(OpenError::HeadTooLarge);
        }
        let id = StreamId(self.next_id);
        self.next_id += 2;
        let block = self.encoder.encode(fields);
        self.outgoing.headers(id.0, &block, self.peer.max_frame_size, false);
        self.streams.push(Stream {
            our_head: true,
            ..self.new_stream(id)
        });
        Ok(id)
    }

    pub(super) fn new_stream(&self, id: StreamId) -> Stream {
        Stream {
            id,
            send: SendWindow::new(self.peer.initial_window),
            receive: ReceiveWindow::new(self.initial_window),
            held: 0,
            peer_head: false,
            our_head: false,
            peer_done: false,
            we_done: false,
        }
    }

    /// Answer a request (servers), once. Without `end` the tunnel is open; with it this is a refusal: the stream is
    /// gone, and a client that could still send is told to stop (RST_STREAM with NO_ERROR, RFC 9113 section 8.1).
    pub fn respond(
        &mut self,
        stream: StreamId,
        status: u16,
        headers: &[(&str, &str)],
        end: bool,
    ) -> Result<(), StreamGone> {
        let open = self
            .streams
            .get_mut(stream)
            .filter(|stream| !stream.our_head)
            .ok_or(StreamGone)?;
        open.our_head = true;
        open.we_done = end;
        let status = status.to_string();
        let fields = std::iter::once((":status", status.as_str())).chain(headers.iter().copied());
        let block = self.encoder.encode(fields);
        self.outgoing.headers(stream.0, &block, self.peer.max_frame_size, end);
        if end {
            self.forget(stream, ErrorCode::NO_ERROR);
        }
        Ok(())
    }

    /// True until the stream has ended in both directions and all its bytes were consumed, or was reset.
    pub fn has_stream(&self, stream: StreamId) -> bool {
        self.streams.get(stream).is_some()
    }

    /// How many bytes the next DATA frame of the stream may have: the least of the stream's window, the connection's
    /// and the peer's largest frame; 0 when nothing may be sent. Other streams and the peer change it.
    pub fn sendable(&self, stream: StreamId) -> usize {
        match self.streams.get(stream) {
            Some(open) if open.may_send() && self.failed.is_none() => open
                .send
                .room()
                .min(self.send.room())
                .min(self.peer.max_frame_size as usize),
            _ => 0,
        }
    }

    /// Account for a DATA frame of `length` bytes and give its head; `end` makes it the last.
    ///
    /// `None` if the frame must not be sent: it is longer than [`Self::sendable`] is by now, or our half is closed.
    pub fn data_head(&mut self, stream: StreamId, length: usize, end: bool) -> Option<[u8; FRAME_HEAD_BYTES]> {
        if length > self.sendable(stream) {
            return None;
        }
        let open = self.streams.get_mut(stream).filter(|open| open.may_send())?;
        open.send.take(length);
        open.we_done = end;
        self.send.take(length);
        if length > 0 {
            self.allowance.earn_sent_frame(length);
        }
        if end {
            self.settle(stream);
        }
        let flags = if end { flag::END_STREAM } else { 0 };
        Some(
            FrameHead {
                length: length as u32,
                kind: kind::DATA,
                flags,
                stream: stream.0,
            }
            .bytes(),
        )
    }

    /// End our half without further bytes: an empty DATA frame goes to the outgoing bytes, so send the DATA made
    /// before first. No effect if our half is closed or, on a server, not open yet.
    pub fn finish(&mut self, stream: StreamId) {
        if let Some(head) = self.data_head(stream, 0, true) {
            self.outgoing.raw(&head);
        }
    }

    /// The application took `count` bytes of the stream: give the peer credit for more.
    ///
    /// No effect after a reset, which returns all that was held.
    pub fn consumed(&mut self, stream: StreamId, count: usize) {
        let Some(open) = self.streams.get_mut(stream) else {
            return;
        };
        let count = count.min(open.held);
        open.held -= count;
        if !open.peer_done
            && let Some(increment) = open.receive.give_back(count)
        {
            self.outgoing.window_update(stream.0, increment);
        }
        self.credit(count);
        self.settle(stream);
    }

    /// End the stream in both directions at once: RST_STREAM goes to the outgoing bytes, what was held is returned.
    pub fn reset(&mut self, stream: StreamId, code: ErrorCode) {
        self.forget(stream, code);
    }

    /// Ask for a sign of life; [`super::Event::PingAck`] answers. Also restores what the peer may cause in useless
    /// work (`limits.rs`), so call it at intervals of some seconds, not in answer to anything the peer does.
    pub fn ping(&mut self, payload: [u8; 8]) {
        self.allowance.restore();
        self.outgoing.frame(kind::PING, 0, 0, &payload);
    }

    /// Whether this is the end that takes streams.
    pub fn is_server(&self) -> bool {
        self.role == Role::Server
    }

    /// Announce the end: the peer should open no more streams, but those under way are taken (GOAWAY with the largest
    /// id). Follow with [`Self::go_away`] a round trip later, for instance when a ping was answered.
    pub fn drain(&mut self) {
        if self.goaway_sent.is_none() {
            self.goaway_sent = Some(LARGEST_STREAM_ID);
            self.outgoing.go_away(LARGEST_STREAM_ID, ErrorCode::NO_ERROR);
        }
    }

    /// Take no more streams (final GOAWAY). Open ones go on; with a code other than NO_ERROR the caller should close
    /// the connection once the outgoing bytes are sent.
    pub fn go_away(&mut self, code: ErrorCode) {
        let last = self.goaway_sent.unwrap_or(LARGEST_STREAM_ID).min(self.highest_seen);
        self.goaway_sent = Some(last);
        self.outgoing.go_away(last, code);
    }

    /// Streams that have not ended in both directions.
    pub fn active_streams(&self) -> usize {
        self.streams.active()
    }

    /// One end has announced that it takes no more streams.
    pub fn is_draining(&self) -> bool {
        self.goaway_sent.is_some() || self.goaway_received.is_some()
    }

    /// Nothing more can happen: the connection failed, or is draining for good and no stream is left.
    pub fn is_closed(&self) -> bool {
        let is_final = |last: Option<u32>| last.is_some_and(|last| last < LARGEST_STREAM_ID);
        let is_drained = is_final(self.goaway_sent) || is_final(self.goaway_received);
        self.failed.is_some() || (is_drained && self.streams.len() == 0)
    }

    /// Remove a stream whatever its state, telling the peer if it could still expect something of it.
    pub(super) fn forget(&mut self, stream: StreamId, code: ErrorCode) {
        let Some(gone) = self.streams.remove(stream) else {
            return;
        };
        self.credit(gone.held);
        if !gone.is_ended() {
            self.outgoing.reset(stream.0, code);
        }
    }

    /// Remove the stream if it has ended and nothing of it is held.
    pub(super) fn settle(&mut self, stream: StreamId) {
        if self
            .streams
            .get(stream)
            .is_some_and(|stream| stream.is_ended() && stream.held == 0)
        {
            self.streams.remove(stream);
            self.allowance.earn_stream();
        }
    }

    /// Return credit on the connection's window.
    pub(super) fn credit(&mut self, count: usize) {
        if let Some(increment) = self.receive.give_back(count) {
            self.outgoing.window_update(0, increment);
        }
    }
}
