//! One call: what has come and was not taken, what is to go out, and how it ends.
//!
//! ```text
//!  client ──▶ reader ──▶ incoming ──▶ take()              the reader waits while incoming is full
//!  client ◀── writer ◀── outgoing ◀── send(), finish()    Writable when outgoing is empty, after it was high
//! ```
//! A call is closed once: when its status has gone out, when the client has reset it, or with its connection.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ambit_core::grpc;
use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::events::{Event, Events};

/// What a call may have that was not taken: messages, and bytes of them. Beyond either its client waits.
const MAX_WAITING: (usize, usize) = (16, 1024 * 1024);
/// From here on a sender should wait until its call is writable. Larger than what is said of a change.
const HIGH_WATER_BYTES: usize = 64 * 1024;
/// Messages up to this size go out in one DATA frame: copying them costs less than another frame does.
const SMALL_BYTES: usize = 16 * 1024 - grpc::PREFIX_BYTES;

/// How a call ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// gRPC's code.
    pub code: u32,
    /// For people.
    pub message: String,
}

/// The call has ended: nothing can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the call has ended")]
pub struct Closed;

/// A message is longer than gRPC can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of {0} bytes; gRPC's have less than 4 GiB")]
pub struct TooLong(pub usize);

/// A message that may go to many calls: framed, and not copied again.
#[derive(Clone, Debug)]
pub struct Message {
    chunks: Vec<Bytes>,
    bytes: usize,
}

impl Message {
    /// From parts that follow each other. Errors when they are too long together.
    pub fn new(parts: Vec<Bytes>) -> Result<Self, TooLong> {
        let length: usize = parts.iter().map(Bytes::len).sum();
        let prefix = grpc::prefix(length).ok_or(TooLong(length))?;
        let bytes = length + prefix.len();
        if length > SMALL_BYTES {
            let head = Bytes::copy_from_slice(&prefix);
            let chunks = std::iter::once(head).chain(parts).filter(|part| !part.is_empty());
            return Ok(Self {
                chunks: chunks.collect(),
                bytes,
            });
        }
        let mut whole = BytesMut::with_capacity(bytes);
        whole.extend_from_slice(&prefix);
        parts.iter().for_each(|part| whole.extend_from_slice(part));
        Ok(Self {
            chunks: vec![whole.freeze()],
            bytes,
        })
    }
}

/// What the writer has to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// Bytes of DATA.
    Data(Bytes),
    /// The end.
    Finish(Status),
}

#[derive(Debug, Default)]
struct State {
    incoming: VecDeque<Bytes>,
    incoming_bytes: usize,
    /// A Readable is in the list, or what it said was not all taken.
    readable: bool,
    client_finished: bool,
    outgoing: VecDeque<Bytes>,
    outgoing_bytes: usize,
    wants_writable: bool,
    status: Option<Status>,
    finishing: bool,
    closed: bool,
}

/// One call, between its task and the other side.
#[derive(Debug)]
pub struct Call {
    /// Its number, never used again.
    pub id: u64,
    /// `/package.Service/Method`.
    pub path: String,
    /// Who calls.
    pub peer: SocketAddr,
    /// Its ASCII metadata.
    pub metadata: Vec<(String, String)>,
    events: Arc<Events>,
    state: Mutex<State>,
    room: Notify,
    work: Notify,
    pub(super) worker: usize,
}

impl Call {
    pub(super) fn new(
        (id, worker): (u64, usize),
        path: String,
        peer: SocketAddr,
        metadata: Vec<(String, String)>,
        events: Arc<Events>,
    ) -> Self {
        Self {
            id,
            path,
            peer,
            metadata,
            events,
            state: Mutex::default(),
            room: Notify::new(),
            work: Notify::new(),
            worker,
        }
    }

    /// The next message, if one is there.
    pub fn take(&self) -> Option<Bytes> {
        let mut state = self.lock();
        let Some(message) = state.incoming.pop_front() else {
            state.readable = false;
            return None;
        };
        state.incoming_bytes -= message.len();
        drop(state);
        self.room.notify_one();
        Some(message)
    }

    /// Whether the client has ended its side and all its messages were taken, or the call has ended.
    pub fn is_at_end(&self) -> bool {
        let state = self.lock();
        state.closed || (state.client_finished && state.incoming.is_empty())
    }

    /// Queue a message; gives whether more may follow before the call is writable.
    pub fn send(&self, message: &Message) -> Result<bool, Closed> {
        let result = self.queue(message);
        self.work.notify_one();
        result
    }

    /// Queue a message, and leave it to the caller to wake the writer.
    pub(super) fn queue(&self, message: &Message) -> Result<bool, Closed> {
        let mut state = self.lock();
        if state.closed || state.finishing {
            return Err(Closed);
        }
        state.outgoing.extend(message.chunks.iter().cloned());
        state.outgoing_bytes += message.bytes;
        let has_room = state.outgoing_bytes <= HIGH_WATER_BYTES;
        state.wants_writable |= !has_room;
        Ok(has_room)
    }

    /// Wake the writer.
    pub(super) fn wake(&self) {
        self.work.notify_one();
    }

    /// End the call when what is queued has gone out. The first status counts.
    pub fn finish(&self, status: Status) {
        let mut state = self.lock();
        if !state.finishing {
            state.finishing = true;
            state.status = Some(status);
            drop(state);
            self.work.notify_one();
        }
    }

    /// End the call at once with what is queued unsent: it has gone wrong.
    pub(super) fn fail(&self, status: Status) {
        let mut state = self.lock();
        state.outgoing.clear();
        state.outgoing_bytes = 0;
        state.finishing = true;
        state.status = Some(status);
        drop(state);
        self.work.notify_one();
    }

    /// A message has come; waits when there are too many that were not taken.
    pub(super) async fn deliver(&self, message: Bytes) {
        loop {
            {
                let mut state = self.lock();
                let is_full = state.incoming.len() >= MAX_WAITING.0 || state.incoming_bytes >= MAX_WAITING.1;
                if state.closed {
                    return;
                }
                if !is_full {
                    state.incoming_bytes += message.len();
                    state.incoming.push_back(message);
                    self.say_readable(state);
                    return;
                }
            }
            self.room.notified().await;
        }
    }

    /// The client has ended its side.
    pub(super) fn note_client_finished(&self) {
        let mut state = self.lock();
        state.client_finished = true;
        self.say_readable(state);
    }

    fn say_readable(&self, mut state: MutexGuard<'_, State>) {
        // Nothing is said of a call after its end.
        if !state.closed && !std::mem::replace(&mut state.readable, true) {
            // Under the lock, so that the end comes behind it.
            self.events.push(Event::Readable(self.id));
        }
    }

    /// What to write next; waits for it.
    pub(super) async fn next_outgoing(&self) -> Outgoing {
        loop {
            {
                let mut state = self.lock();
                if let Some(data) = state.outgoing.pop_front() {
                    return Outgoing::Data(data);
                }
                if let Some(status) = state.status.take() {
                    return Outgoing::Finish(status);
                }
            }
            self.work.notified().await;
        }
    }

    /// So many bytes of what was taken out have been handed to HTTP/2.
    pub(super) fn note_written(&self, bytes: usize) {
        let mut state = self.lock();
        state.outgoing_bytes = state.outgoing_bytes.saturating_sub(bytes);
        if state.outgoing_bytes == 0 && std::mem::take(&mut state.wants_writable) {
            self.events.push(Event::Writable(self.id));
        }
    }

    /// It is over. Said once.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        if !std::mem::replace(&mut state.closed, true) {
            state.outgoing.clear();
            self.events.push(Event::Closed(self.id));
            drop(state);
            self.room.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn call() -> (Arc<Call>, Arc<Events>) {
        let events = Events::new().expect("a descriptor");
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let call = Call::new((7, 0), "/a/b".to_owned(), peer, Vec::new(), Arc::clone(&events));
        (Arc::new(call), events)
    }

    fn message(bytes: usize) -> Message {
        Message::new(vec![Bytes::from(vec![b'x'; bytes])]).expect("short")
    }

    #[test]
    fn a_small_message_is_one_chunk_and_a_large_one_is_not_copied() {
        let parts = vec![Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"c")];
        assert_eq!(Message::new(parts).expect("short").chunks, [&b"\0\0\0\0\x03abc"[..]]);
        let large = Bytes::from(vec![0; SMALL_BYTES + 1]);
        let chunks = Message::new(vec![large.clone()]).expect("short").chunks;
        assert_eq!(chunks[1].as_ptr(), large.as_ptr());
    }

    #[tokio::test]
    async fn a_client_whose_messages_are_not_taken_waits() {
        let (call, events) = call();
        for _ in 0..MAX_WAITING.0 {
            call.deliver(Bytes::from_static(b"m")).await;
        }
        assert_eq!(events.take().len(), 1, "said once");
        let blocked = tokio::time::timeout(Duration::from_millis(20), call.deliver(Bytes::new())).await;
        assert!(blocked.is_err());
        assert!(call.take().is_some());
        call.deliver(Bytes::new()).await;
        while call.take().is_some() {}
        assert!(events.take().is_empty(), "nothing that was not known");
        call.deliver(Bytes::new()).await;
        assert_eq!(events.take().len(), 1);
    }

    #[tokio::test]
    async fn a_sender_is_told_to_wait_and_when_to_go_on() {
        let (call, events) = call();
        assert_eq!(call.send(&message(10)), Ok(true));
        assert_eq!(call.send(&message(HIGH_WATER_BYTES)), Ok(false));
        for _ in 0..3 {
            assert!(events.take().is_empty());
            let Outgoing::Data(data) = call.next_outgoing().await else {
                panic!("data is first");
            };
            call.note_written(data.len());
        }
        assert!(matches!(events.take()[..], [Event::Writable(7)]));
    }

    #[tokio::test]
    async fn the_status_comes_after_what_is_queued_and_only_the_first_counts() {
        let (call, _events) = call();
        let status = |code| Status {
            code,
            message: String::new(),
        };
        call.send(&message(1)).expect("open");
        call.finish(status(3));
        call.finish(status(4));
        assert_eq!(call.send(&message(1)), Err(Closed));
        assert!(matches!(call.next_outgoing().await, Outgoing::Data(_)));
        assert_eq!(call.next_outgoing().await, Outgoing::Finish(status(3)));
    }

    #[test]
    fn a_call_is_closed_once_and_keeps_nothing_to_send() {
        let (call, events) = call();
        call.send(&message(1)).expect("open");
        call.close();
        call.close();
        assert!(matches!(events.take()[..], [Event::Closed(7)]));
        assert_eq!(call.send(&message(1)), Err(Closed));
        assert!(call.lock().outgoing.is_empty());
    }
}
