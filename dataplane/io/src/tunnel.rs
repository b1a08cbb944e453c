//! A tunnel: one mTLS connection that carries many application connections as HTTP/2 CONNECT streams.
//!
//! Theory of operation. A tunnel belongs to one worker, so nothing here is locked. Two buffers per worker, INBOX and OUTBOX,
//! serve all its connections, one at a time; only what cannot be moved on at once is copied into a connection's own memory:
//! - receiving: the tunnel's task fills INBOX from the socket, opens the records in place, lets the framer say which bytes
//!   belong to which stream, and writes those straight to the applications' sockets. What a socket does not take goes to
//!   the stream's `backlog`, which flow control bounds, since credit is given back only for what was written.
//! - sending: a stream's task reads its application straight into the gaps of OUTBOX, where heads and tags have their
//!   places, seals in place and writes to the tunnel's socket. What the socket does not take goes to `pending`; while
//!   anything is pending, no stream reads its application, so a slow peer costs one OUTBOX at most.
//!
//! Idle connections therefore own no buffers at all. Read `receiving` next, then `stream` and `buffers`.

pub(crate) mod allotment;
mod buffers;
mod receiving;
mod relay_end;
pub(crate) mod revocable;
mod stream;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::ready;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use ambit_core::framing::{self, Connection, ErrorCode, StreamId};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::signal::Signal;
use crate::sockets;
use crate::tls::handshake::Established;
use crate::tls::records::{RecordError, RecordLayer};
use allotment::Allotment;
use buffers::{OUTBOX, Pending};
pub(crate) use relay_end::RelayEnd;
use stream::Side;
pub(crate) use stream::{Request, Stream};

/// A PING goes out this often, busy or not (ztunnel.md 1.7): it also restores what the framer lets a peer waste.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// A peer that does not answer a PING this long is gone (ztunnel.md 1.7).
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The PING that follows a GOAWAY, and how long its answer is waited for: round trips inside a region are far shorter.
const FAREWELL: [u8; 8] = *b"ambitbye";
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a tunnel that is not read looks whether it may be again.
const PAUSE: Duration = Duration::from_millis(5);

/// How long the answer to a client that does not wait for it may wait for the application's first bytes: together they are
/// one packet, and wake the other end once.
const ANSWER_PATIENCE: Duration = Duration::from_millis(1);

/// A peer's requests that are begun in one turn: each costs as much as dozens of messages of connections that are open.
const BEGUN_AT_ONCE: usize = 4;

/// A batch up to so many bytes may wait for others, and so many bytes in all: a larger one is worth its own write.
const GATHER_BATCH: usize = 4 * 1024;
const GATHER_MOST: usize = 64 * 1024;

/// Why a tunnel ended.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum TunnelEnd {
    /// Either side finished its work.
    #[error("the tunnel was closed")]
    Closed,
    /// The network failed.
    #[error("the tunnel's connection failed: {0}")]
    Io(String),
    /// The peer broke TLS.
    #[error("the tunnel broke: {0}")]
    Tls(String),
    /// The peer broke HTTP/2.
    #[error("the tunnel broke: {0}")]
    Http2(String),
    /// The peer's certificate was taken back.
    #[error("closed because the peer's certificate has been revoked")]
    Revoked,
    /// The peer stopped answering.
    #[error("the peer did not answer a ping for 20 s")]
    Unresponsive,
}

/// One connection between two ends of the mesh.
pub(crate) struct Tunnel {
    socket: TcpStream,
    state: RefCell<State>,
    /// There is something for the tunnel's task to do: pending bytes, or an end.
    attention: Signal,
    /// The tunnel's task is to look at `State::answer_by`.
    held: Signal,
    closing: Cell<bool>,
    /// Until when the peer may answer our farewell, if it has not.
    farewell_until: Cell<Option<Instant>>,
    /// What it shares with the peer's others.
    allotment: Rc<Allotment>,
}

struct State {
    records: RecordLayer,
    framer: Connection,
    pending: Pending,
    /// Small batches of several streams, to be sent with one write. Empty whenever `pending` is not.
    gathered: Vec<u8>,
    /// The beginning of a record whose end has not arrived.
    undecrypted: Vec<u8>,
    streams: HashMap<StreamId, Rc<Stream>>,
    /// The peer's, not begun yet.
    requests: VecDeque<Request>,
    /// When the answers that are held back leave, whether or not anything goes along.
    answer_by: Option<Instant>,
    pinged_at: Instant,
    /// The last PING has no answer, nor any other sign of life, yet.
    ping_unanswered: bool,
    end: Option<TunnelEnd>,
}

impl Tunnel {
    /// A tunnel over an established connection. `framer` is a client's when we dialled. Run `drive` to make it work.
    pub(crate) fn new(
        socket: TcpStream,
        established: Established,
        framer: Connection,
        allotment: Rc<Allotment>,
    ) -> (Rc<Self>, Vec<u8>) {
        let Established {
            records,
            early,
            undecrypted,
            ..
        } = established;
        let state = State {
            records,
            framer,
            pending: Pending::default(),
            gathered: Vec::new(),
            undecrypted,
            streams: HashMap::new(),
            requests: VecDeque::new(),
            answer_by: None,
            pinged_at: Instant::now(),
            ping_unanswered: false,
            end: None,
        };
        let tunnel = Self {
            socket,
            state: RefCell::new(state),
            attention: Signal::default(),
            held: Signal::default(),
            closing: Cell::new(false),
            farewell_until: Cell::new(None),
            allotment,
        };
        (Rc::new(tunnel), early)
    }

    /// Whether another stream can be opened now.
    pub(crate) fn can_open(&self) -> bool {
        let state = self.state.borrow();
        state.end.is_none() && !self.closing.get() && state.framer.can_open()
    }

    /// Whether it carries anything.
    pub(crate) fn has_streams(&self) -> bool {
        !self.state.borrow().streams.is_empty()
    }

    /// Whether the tunnel has ended or is ending.
    pub(crate) fn is_over(&self) -> bool {
        self.closing.get() || self.state.borrow().end.is_some()
    }

    /// End the tunnel when its last stream has ended; no new ones are opened.
    ///
    /// The peer may be opening one at this moment. So a server first learns from the answer to a PING, which comes behind
    /// whatever was on its way, that the peer knows.
    pub(crate) fn retire(&self) {
        if !self.closing.replace(true) {
            let mut state = self.state.borrow_mut();
            state.framer.drain();
            if state.framer.is_server() {
                state.framer.ping(FAREWELL);
                self.farewell_until.set(Some(Instant::now() + FAREWELL_TIMEOUT));
            }
        }
        self.attention.raise();
    }

    /// The peer answered the farewell, or does not any more.
    fn may_leave(&self) -> bool {
        self.farewell_until.get().is_none_or(|until| Instant::now() >= until)
    }

    /// End the tunnel now, and all of its streams.
    pub(crate) fn abort(&self) {
        self.finish(TunnelEnd::Closed);
        self.attention.raise();
    }

    /// End the tunnel now, because its peer's certificate was taken back.
    fn revoke(&self) {
        self.state.borrow_mut().framer.go_away(ErrorCode::NO_ERROR);
        self.flush();
        self.finish(TunnelEnd::Revoked);
        self.attention.raise();
    }

    /// Open a stream towards `head`'s authority; the answer arrives through `Stream::response`.
    ///
    /// The CONNECT leaves with what the stream's task sends next, or when every task that is ready has run.
    pub(crate) fn open(self: &Rc<Self>, head: &framing::ConnectHead<'_>) -> Result<Rc<Stream>, framing::OpenError> {
        let stream = {
            let mut state = self.state.borrow_mut();
            let id = state.framer.open(head)?;
            let stream = Rc::new(Stream::new(id, Rc::clone(self), Side::Client));
            state.streams.insert(id, Rc::clone(&stream));
            stream
        };
        self.attention.raise();
        Ok(stream)
    }

    /// Serve the connection until it ends. `early` is what `new` returned; `accept` gets each CONNECT of a peer.
    pub(crate) async fn drive(self: &Rc<Self>, early: Vec<u8>, accept: &dyn Fn(Request)) -> TunnelEnd {
        self.flush();
        if !early.is_empty() {
            self.receive_early(&early);
        }
        if !self.state.borrow().undecrypted.is_empty() {
            self.receive();
        }
        loop {
            let end = self.state.borrow().end.clone();
            if let Some(end) = end {
                // Streams may outlive us a little; the peer should not wait for them.
                let _ = socket2::SockRef::from(&self.socket).shutdown(std::net::Shutdown::Both);
                self.release_streams();
                return end;
            }
            let is_crowded = self.begin_requests(accept);
            if is_crowded {
                // Whoever else is on this worker goes in between.
                tokio::task::yield_now().await;
            }
            self.step(is_crowded).await;
        }
    }

    /// Begin the next of the peer's requests; returns whether more wait. What was reset meanwhile costs nothing.
    fn begin_requests(&self, accept: &dyn Fn(Request)) -> bool {
        let mut begun = 0;
        while begun < BEGUN_AT_ONCE {
            let next = self.state.borrow_mut().requests.pop_front();
            match next {
                Some(request) if request.stream.has_failed() => {}
                Some(request) => {
                    accept(request);
                    begun += 1;
                }
                None => return false,
            }
        }
        !self.state.borrow().requests.is_empty()
    }

    /// Do what is to be done next, or wait for it unless `is_crowded`.
    async fn step(self: &Rc<Self>, is_crowded: bool) {
        let is_leaving = self.closing.get() && self.state.borrow().streams.is_empty();
        if is_leaving && self.may_leave() {
            self.say_goodbye();
            return;
        }
        let is_paused = self.allotment.is_exhausted();
        if is_paused {
            // What the peer may have answered has not been read.
            self.state.borrow_mut().pinged_at = Instant::now();
        }
        let (blocked, deadline) = {
            let state = self.state.borrow();
            let patience = if state.ping_unanswered {
                PING_TIMEOUT
            } else {
                PING_INTERVAL
            };
            let farewell = self.farewell_until.get().filter(|_| is_leaving);
            let deadline = (state.pinged_at + patience).min(farewell.unwrap_or(state.pinged_at + patience));
            let blocked = !state.pending.is_empty();
            let deadline = match state.answer_by {
                _ if is_paused => Instant::now() + PAUSE,
                Some(answer_by) if !blocked => deadline.min(answer_by),
                _ => deadline,
            };
            (blocked, deadline)
        };
        tokio::select! {
            biased;
            result = sockets::readable(&self.socket), if !is_paused => match result {
                Ok(()) => self.receive(),
                Err(error) => self.finish(TunnelEnd::Io(error.to_string())),
            },
            result = sockets::writable(&self.socket), if blocked => match result {
                Ok(()) => self.flush(),
                Err(error) => self.finish(TunnelEnd::Io(error.to_string())),
            },
            () = self.attention.wait() => self.flush(),
            () = self.held.wait() => {}
            () = ready(()), if is_crowded => {}
            () = tokio::time::sleep_until(deadline) => self.check_alive(),
        }
    }

    fn hold_answer(&self) {
        let by = Instant::now() + ANSWER_PATIENCE;
        self.state.borrow_mut().answer_by.get_or_insert(by);
        self.held.raise();
    }

    fn finish(&self, end: TunnelEnd) {
        self.state.borrow_mut().end.get_or_insert(end);
    }

    fn check_alive(&self) {
        let now = Instant::now();
        {
            let mut state = self.state.borrow_mut();
            if state.ping_unanswered && now >= state.pinged_at + PING_TIMEOUT {
                state.end.get_or_insert(TunnelEnd::Unresponsive);
            } else if !state.ping_unanswered && now >= state.pinged_at + PING_INTERVAL {
                state.framer.ping(*b"ambit-up");
                state.pinged_at = now;
                state.ping_unanswered = true;
            }
        }
        self.flush();
    }

    fn say_goodbye(&self) {
        self.state.borrow_mut().framer.go_away(ErrorCode::NO_ERROR);
        self.flush();
        OUTBOX.with_borrow_mut(|outbox| {
            let mut state = self.state.borrow_mut();
            if state.pending.is_empty()
                && let Ok(size) = state.records.seal_close(outbox)
            {
                // The connection ends in either case; the peer sees a clean close if there is room for it.
                let _ = self.socket.try_write(&outbox[..size]);
            }
        });
        self.finish(TunnelEnd::Closed);
    }

    /// Tell every stream that there will be nothing more.
    fn release_streams(&self) {
        let (streams, requests) = {
            let mut state = self.state.borrow_mut();
            (std::mem::take(&mut state.streams), std::mem::take(&mut state.requests))
        };
        for stream in streams.into_values() {
            stream.tunnel_ended();
        }
        drop(requests); // They hold their streams, which hold us.
    }

    /// Send what is pending and what the framer wants said; wake the streams that waited for it.
    fn flush(&self) {
        let result = OUTBOX.with_borrow_mut(|outbox| self.flush_with(outbox));
        if let Err(end) = result {
            self.finish(end);
            self.attention.raise();
        }
    }

    fn flush_with(&self, outbox: &mut [u8]) -> Result<(), TunnelEnd> {
        let mut state = self.state.borrow_mut();
        if state.end.is_some() {
            return Ok(());
        }
        let was_blocked = !state.pending.is_empty();
        if was_blocked {
            state
                .pending
                .write_to(&self.socket)
                .map_err(|error| TunnelEnd::Io(error.to_string()))?;
            if !state.pending.is_empty() {
                return Ok(());
            }
        }
        self.flush_gathered(&mut state)?;
        if !state.pending.is_empty() {
            return Ok(());
        }
        let sealed = state.seal_control(outbox, 0).map_err(|error| tls_end(&error))?;
        if sealed > 0 {
            self.write_or_keep(&mut state, &outbox[..sealed])?;
        }
        if was_blocked && state.pending.is_empty() {
            state.wake_senders();
        }
        Ok(())
    }

    /// Send a stream's batch: at once, or when other streams that have something to say now have said it.
    ///
    /// A small batch of one of several streams waits for the tunnel's task, which runs after every stream that is ready: their
    /// batches then leave with one write, as one packet, and wake the other end once.
    fn send_batch(&self, state: &mut State, sealed: &[u8]) -> Result<(), TunnelEnd> {
        if sealed.len() <= GATHER_BATCH && state.streams.len() > 1 {
            state.gathered.extend_from_slice(sealed);
            if state.gathered.len() < GATHER_MOST {
                self.attention.raise();
                return Ok(());
            }
            return self.flush_gathered(state);
        }
        self.flush_gathered(state)?;
        if state.pending.is_empty() {
            self.write_or_keep(state, sealed)
        } else {
            state.pending.keep(sealed);
            Ok(())
        }
    }

    fn flush_gathered(&self, state: &mut State) -> Result<(), TunnelEnd> {
        if state.gathered.is_empty() {
            return Ok(());
        }
        let gathered = std::mem::take(&mut state.gathered);
        self.write_or_keep(state, &gathered)
    }

    fn write_or_keep(&self, state: &mut State, sealed: &[u8]) -> Result<(), TunnelEnd> {
        let written = match self.socket.try_write(sealed) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(TunnelEnd::Io(error.to_string())),
        };
        if written < sealed.len() {
            state.pending.keep(&sealed[written..]);
            self.attention.raise();
        }
        Ok(())
    }

    fn forget(&self, id: StreamId) {
        self.state.borrow_mut().streams.remove(&id);
        if self.closing.get() {
            self.attention.raise();
        }
    }
}

impl State {
    fn wake_senders(&self) {
        for stream in self.streams.values() {
            stream.may_send();
        }
    }

    /// Seal the framer's control bytes into `outbox[position..]`; returns the new end.
    fn seal_control(&mut self, outbox: &mut [u8], mut position: usize) -> Result<usize, RecordError> {
        position += self.records.seal_key_update(&mut outbox[position..])?;
        self.answer_by = None;
        loop {
            let waiting = self.framer.outgoing();
            let room = outbox
                .len()
                .saturating_sub(position + buffers::OVERHEAD)
                .min(buffers::MAX_CONTENT);
            let length = waiting.len().min(room);
            if length == 0 {
                return Ok(position);
            }
            let content = position + buffers::HEAD;
            outbox[content..content + length].copy_from_slice(&waiting[..length]);
            self.framer.consume_outgoing(length);
            position += self.records.seal(&mut outbox[position..], length)?;
        }
    }
}

fn tls_end(error: &RecordError) -> TunnelEnd {
    TunnelEnd::Tls(error.to_string())
}
