//! One application connection inside a tunnel.

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use ambit_core::framing::{ErrorCode, MalformedRequest, REFUSAL_HEADER, RequestHead, StreamId};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::buffers::{BATCH, HEAD, MAX_CONTENT, OUTBOX, read_into_records};
use super::relay_end::RelayEnd;
use super::{Tunnel, TunnelEnd, tls_end};
use crate::signal::Signal;
use crate::telemetry::Moved;
use crate::{busy_poll, sockets};

/// Length of an HTTP/2 frame's head.
const FRAME_HEAD: usize = 9;
/// Of what a refusal says: a policy's name has at most 253 characters and its namespace 63.
const MAX_REFUSAL: usize = 400;
/// Pieces of one gathered write. More would rarely fill: a read of a tunnel holds about 16 records.
const MAX_PIECES: usize = 64;

/// A peer's CONNECT, to be answered with `Stream::respond` or `Stream::refuse`.
pub(crate) struct Request {
    /// The stream it arrived on.
    pub stream: Rc<Stream>,
    /// Authority and headers, or why it is not a CONNECT that can be answered with a tunnel.
    pub head: Result<RequestHead, MalformedRequest>,
}

/// Which end of a tunnel we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Side {
    /// The application here dialled.
    Client,
    /// The application here serves.
    Server,
}

/// One stream of a tunnel and, once attached, the application's socket.
pub(crate) struct Stream {
    id: StreamId,
    tunnel: Rc<Tunnel>,
    application: RefCell<Option<Rc<TcpStream>>>,
    inbound: RefCell<Inbound>,
    /// The peer's answer, backlog, end or reset is there to be seen.
    received: Signal,
    /// Windows have opened, or the tunnel's socket takes bytes again.
    sendable: Signal,
    side: Side,
    /// Bytes moved so far.
    pub moved: Rc<Moved>,
}

/// What came from the peer and was not handed on yet.
#[derive(Default)]
struct Inbound {
    /// The peer's answer to our CONNECT.
    response: Option<Answer>,
    backlog: Vec<u8>,
    written: usize,
    finished: bool,
    failure: Option<Failure>,
}

/// A peer's answer to our CONNECT.
#[derive(Debug)]
pub(crate) struct Answer {
    /// 200 opens the tunnel, anything else refuses it.
    pub status: u16,
    /// What the peer tells of its workload, or why it refuses.
    pub told: Option<Box<str>>,
}

#[derive(Clone)]
enum Failure {
    Reset(ErrorCode),
    Tunnel,
}

impl Stream {
    pub(super) fn new(id: StreamId, tunnel: Rc<Tunnel>, side: Side) -> Self {
        Self {
            id,
            tunnel,
            application: RefCell::default(),
            inbound: RefCell::default(),
            received: Signal::default(),
            sendable: Signal::default(),
            side,
            moved: Rc::default(),
        }
    }

    /// Whether it ended before its time, by its peer or with its tunnel.
    pub(crate) fn has_failed(&self) -> bool {
        self.inbound.borrow().failure.is_some()
    }

    // ---- what the tunnel's task reports

    pub(super) fn answered(&self, status: u16, mut told: Option<String>) {
        if let Some(text) = told.as_mut().filter(|_| status != 200) {
            // It is ASCII, so that any place can be cut at.
            text.truncate(MAX_REFUSAL);
        }
        let told = told.map(String::into_boxed_str);
        self.inbound.borrow_mut().response = Some(Answer { status, told });
        self.received.raise();
    }

    pub(super) fn may_send(&self) {
        self.sendable.raise();
    }

    pub(super) fn peer_finished(&self) {
        self.inbound.borrow_mut().finished = true;
        self.received.raise();
    }

    pub(super) fn peer_reset(&self, code: ErrorCode) {
        self.fail(Failure::Reset(code));
    }

    pub(super) fn tunnel_ended(&self) {
        self.fail(Failure::Tunnel);
    }

    fn fail(&self, failure: Failure) {
        self.inbound.borrow_mut().failure.get_or_insert(failure);
        self.received.raise();
        self.sendable.raise();
    }

    /// Hand `pieces` to the application at once if it takes them; keep the rest.
    pub(super) fn deliver<'a>(&self, pieces: impl Iterator<Item = &'a [u8]> + Clone, total: usize) {
        let mut inbound = self.inbound.borrow_mut();
        let application = self.application.borrow();
        let written = match application.as_deref() {
            Some(socket) if inbound.backlog.is_empty() => write_pieces(socket, pieces.clone()),
            _ => 0,
        };
        if written > 0 {
            self.credit(written);
        }
        if written == total {
            return;
        }
        let mut skip = written;
        self.tunnel.allotment.hold(total - written);
        for piece in pieces {
            let from = skip.min(piece.len());
            skip -= from;
            inbound.backlog.extend_from_slice(&piece[from..]);
        }
        self.received.raise();
    }

    fn credit(&self, bytes: usize) {
        let from_tunnel = match self.side {
            Side::Client => &self.moved.back,
            Side::Server => &self.moved.forth,
        };
        from_tunnel.set(from_tunnel.get() + bytes as u64);
        self.tunnel.consumed(self.id, bytes);
    }

    // ---- opening

    /// Wait for the peer's answer to our CONNECT.
    pub(crate) async fn response(&self) -> Result<Answer, RelayEnd> {
        loop {
            {
                let mut inbound = self.inbound.borrow_mut();
                if let Some(response) = inbound.response.take() {
                    return Ok(response);
                }
                if let Some(failure) = inbound.failure.clone() {
                    return Err(self.explain(failure));
                }
            }
            self.received.wait().await;
        }
    }

    /// Wait for its end before its time. Nobody relays it meanwhile.
    pub(crate) async fn failed(&self) -> RelayEnd {
        loop {
            if let Some(failure) = self.inbound.borrow().failure.clone() {
                return self.explain(failure);
            }
            self.received.wait().await;
        }
    }

    /// Accept a peer's CONNECT. A client that has said something already does not wait to hear this: then the answer leaves
    /// with the application's first bytes, or a moment later.
    pub(crate) fn respond(&self, headers: &[(&str, &str)]) {
        // When the stream is gone already, `relay` finds out.
        let _ = self
            .tunnel
            .state
            .borrow_mut()
            .framer
            .respond(self.id, 200, headers, false);
        if self.inbound.borrow().backlog.is_empty() {
            self.tunnel.attention.raise();
        } else {
            self.tunnel.hold_answer();
        }
    }

    /// Refuse a peer's CONNECT, and tell one of ours why; the stream ends.
    pub(crate) fn refuse(&self, status: u16, why: Option<&str>) {
        let cut = |why: &str| {
            why.chars()
                .filter(|c| matches!(c, ' '..='~'))
                .take(MAX_REFUSAL)
                .collect()
        };
        let why: Option<String> = why.map(cut);
        let headers: Vec<_> = why.iter().map(|why| (REFUSAL_HEADER, why.trim())).collect();
        // When the stream is gone already, there is nobody left to tell.
        let _ = self
            .tunnel
            .state
            .borrow_mut()
            .framer
            .respond(self.id, status, &headers, true);
        self.tunnel.flush();
        self.tunnel.forget(self.id);
    }

    /// End the stream before its time, in both directions.
    pub(crate) fn reset(&self, code: ErrorCode) {
        self.tunnel.state.borrow_mut().framer.reset(self.id, code);
        self.tunnel.flush();
        self.tunnel.forget(self.id);
    }

    /// Whether there are bytes of the peer that the application has not got.
    #[cfg(test)]
    pub(super) fn has_backlog(&self) -> bool {
        !self.inbound.borrow().backlog.is_empty()
    }

    fn explain(&self, failure: Failure) -> RelayEnd {
        match failure {
            Failure::Reset(code) => RelayEnd::PeerReset(code),
            Failure::Tunnel => RelayEnd::Tunnel(self.tunnel.state.borrow().end.clone().unwrap_or(TunnelEnd::Closed)),
        }
    }

    // ---- moving bytes

    /// Move bytes both ways between `application` and the peer until both directions have ended.
    ///
    /// An end of one direction is passed on and the other goes on (half-close). When it fails, the stream is reset and the
    /// application's connection is reset too, so that a cut transfer never looks complete. Cancelling it does the same.
    pub(crate) async fn relay(&self, application: Rc<TcpStream>) -> Result<(), RelayEnd> {
        self.relay_once(application, std::future::ready(Ok(()))).await
    }

    /// The same on a stream that we opened and that is not answered yet, which may take `patience`.
    ///
    /// What the application says meanwhile goes along with the CONNECT (RFC 9113, 8.5 lets it; the peer is authenticated, and
    /// keeps it until its policies have permitted the connection): that saves a round trip of every new connection. Nothing
    /// is handed to the application before the answer, and any other than 200 ends the connection.
    pub(crate) async fn open_and_relay(&self, application: Rc<TcpStream>, patience: Duration) -> Result<(), RelayEnd> {
        self.open_and_relay_with(application, patience, |_| {}).await
    }

    /// The same; `heard` gets what the peer tells of its workload when it opens the stream.
    pub(crate) async fn open_and_relay_with(
        &self,
        application: Rc<TcpStream>,
        patience: Duration,
        heard: impl FnOnce(Option<&str>),
    ) -> Result<(), RelayEnd> {
        // Pinned here and below: a future that is moved into another is room for it twice, as long as the connection lasts.
        let answer = pin!(async {
            match timeout(patience, self.response()).await {
                Ok(Ok(Answer { status: 200, told })) => {
                    heard(told.as_deref());
                    Ok(())
                }
                Ok(Ok(Answer { status, told })) => Err(RelayEnd::Refused(status, told)),
                Ok(Err(end)) => Err(end),
                Err(_) => Err(RelayEnd::NoAnswer(patience)),
            }
        });
        self.relay_once(application, answer).await
    }

    async fn relay_once(
        &self,
        application: Rc<TcpStream>,
        opened: impl Future<Output = Result<(), RelayEnd>>,
    ) -> Result<(), RelayEnd> {
        let mut cut = CutOnDrop {
            stream: self,
            application: &application,
            done: false,
        };
        let hand_on = pin!(async {
            opened.await?;
            *self.application.borrow_mut() = Some(Rc::clone(&application));
            self.hand_on(&application).await
        });
        let send = pin!(self.send(&application));
        let result = tokio::try_join!(hand_on, send).map(|((), ())| ());
        match &result {
            Ok(()) => cut.done = true,
            // The peer's agent ends a connection whose application vanished with CANCEL or NO_ERROR (ztunnel.md 1.9).
            Err(RelayEnd::PeerReset(ErrorCode::NO_ERROR | ErrorCode::CANCEL)) => cut.done = true,
            Err(_) => {}
        }
        drop(cut);
        self.tunnel.forget(self.id);
        result
    }

    /// From the application into the tunnel.
    async fn send(&self, application: &TcpStream) -> Result<(), RelayEnd> {
        loop {
            sockets::readable(application).await.map_err(RelayEnd::Application)?;
            match self.send_batch(application)? {
                Sent::Some => {}
                Sent::Blocked => self.sendable.wait().await,
                Sent::End => return Ok(()),
            }
        }
    }

    /// Read what the application has, seal it and send it, up to one batch.
    fn send_batch(&self, application: &TcpStream) -> Result<Sent, RelayEnd> {
        if let Some(failure) = self.inbound.borrow().failure.clone() {
            return Err(self.explain(failure));
        }
        let outcome = OUTBOX.with_borrow_mut(|outbox| self.seal_batch(application, outbox));
        match outcome {
            Ok(sent) => sent,
            Err(end) => {
                self.tunnel.finish(end.clone());
                self.tunnel.attention.raise();
                Err(RelayEnd::Tunnel(end))
            }
        }
    }

    fn seal_batch(&self, application: &TcpStream, outbox: &mut [u8]) -> Result<Result<Sent, RelayEnd>, TunnelEnd> {
        let mut state = self.tunnel.state.borrow_mut();
        if !state.pending.is_empty() {
            return Ok(Ok(Sent::Blocked));
        }
        let mut position = state.seal_control(outbox, 0).map_err(|error| tls_end(&error))?;
        let (mut moved, mut sent) = (0, Sent::Some);
        while moved < BATCH {
            let allowed = frame_room(state.framer.sendable(self.id), BATCH - moved);
            if allowed == 0 {
                if moved == 0 {
                    sent = Sent::Blocked;
                }
                break;
            }
            let read = match read_into_records(application, &mut outbox[position..], FRAME_HEAD, allowed) {
                Ok(0) => {
                    state.framer.finish(self.id);
                    position = state.seal_control(outbox, position).map_err(|error| tls_end(&error))?;
                    sent = Sent::End;
                    break;
                }
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    return Ok(Err(RelayEnd::Application(error)));
                }
            };
            let head = state
                .framer
                .data_head(self.id, read, false)
                .expect("no more was read than could be sent");
            outbox[position + HEAD..position + HEAD + FRAME_HEAD].copy_from_slice(&head);
            let mut left = FRAME_HEAD + read;
            while left > 0 {
                let length = left.min(MAX_CONTENT);
                position += state
                    .records
                    .seal(&mut outbox[position..], length)
                    .map_err(|error| tls_end(&error))?;
                left -= length;
            }
            moved += read;
            if read < allowed {
                sockets::note_drained(application);
                // An end that is known to follow goes along.
                if !sockets::has_peer_ended(application) {
                    break;
                }
            }
        }
        if moved > 0 {
            busy_poll::note_message(moved);
        }
        let into_tunnel = match self.side {
            Side::Client => &self.moved.forth,
            Side::Server => &self.moved.back,
        };
        into_tunnel.set(into_tunnel.get() + moved as u64);
        if position > 0 {
            self.tunnel.send_batch(&mut state, &outbox[..position])?;
        }
        Ok(Ok(sent))
    }

    /// From the tunnel to the application: what `deliver` could not hand on at once, and the end.
    async fn hand_on(&self, application: &TcpStream) -> Result<(), RelayEnd> {
        loop {
            let is_written = self.write_backlog(application)?;
            let (finished, failure) = {
                let inbound = self.inbound.borrow();
                (inbound.finished, inbound.failure.clone())
            };
            if finished && is_written {
                shutdown_write(application);
                return Ok(());
            }
            if let Some(failure) = failure {
                return Err(self.explain(failure));
            }
            tokio::select! {
                ready = sockets::writable(application), if !is_written => ready.map_err(RelayEnd::Application)?,
                () = self.received.wait() => {}
            }
        }
    }

    /// Returns whether the backlog is empty now.
    fn write_backlog(&self, application: &TcpStream) -> Result<bool, RelayEnd> {
        let written = {
            let mut inbound = self.inbound.borrow_mut();
            if inbound.backlog.is_empty() {
                return Ok(true);
            }
            let rest = IoSlice::new(&inbound.backlog[inbound.written..]);
            let written = match sockets::write_now(application, &[rest]) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(RelayEnd::Application(error)),
            };
            inbound.written += written;
            if inbound.written == inbound.backlog.len() {
                inbound.backlog = Vec::new();
                inbound.written = 0;
            }
            written
        };
        self.tunnel.allotment.release(written);
        self.credit(written);
        self.tunnel.flush();
        Ok(self.inbound.borrow().backlog.is_empty())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let inbound = self.inbound.get_mut();
        self.tunnel.allotment.release(inbound.backlog.len() - inbound.written);
    }
}

enum Sent {
    Some,
    Blocked,
    End,
}

/// How much of `sendable` to put into one frame. A frame that fits one record is kept to it, so that peers with the default
/// frame size of 16 KiB do not cost two records a frame.
fn frame_room(sendable: usize, room: usize) -> usize {
    let most = if sendable <= MAX_CONTENT {
        MAX_CONTENT - FRAME_HEAD
    } else {
        room
    };
    sendable.min(room).min(most)
}

fn write_pieces<'a>(socket: &TcpStream, pieces: impl Iterator<Item = &'a [u8]>) -> usize {
    let mut slices: [IoSlice<'_>; MAX_PIECES] = [IoSlice::new(&[]); MAX_PIECES];
    let mut used = 0;
    for (slice, piece) in slices.iter_mut().zip(pieces) {
        *slice = IoSlice::new(piece);
        used += 1;
    }
    // An error is not lost: the bytes stay in the backlog, and writing that reports it.
    sockets::write_now(socket, &slices[..used]).unwrap_or(0)
}

fn shutdown_write(application: &TcpStream) {
    // It fails only when the connection is gone, which the other direction reports.
    let _ = socket2::SockRef::from(application).shutdown(std::net::Shutdown::Write);
}

/// Resets both sides unless the relay ended in order.
struct CutOnDrop<'a> {
    stream: &'a Stream,
    application: &'a Rc<TcpStream>,
    done: bool,
}

impl Drop for CutOnDrop<'_> {
    fn drop(&mut self) {
        *self.stream.application.borrow_mut() = None;
        if !self.done {
            sockets::reset_on_close(&**self.application);
            // Not CANCEL, which stock ztunnel reads as a clean end (ztunnel.md 12.1, 12).
            self.stream.reset(ErrorCode::CONNECT_ERROR);
        }
    }
}
