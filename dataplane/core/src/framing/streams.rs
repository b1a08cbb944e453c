//! Who is open: streams in the order of their ids.
//!
//! Ids only grow, so a vector stays sorted by pushing, and finding one among a few dozen is a handful of comparisons
//! in one or two cache lines. Nothing is remembered of streams that are gone: an id at or below the highest that is
//! not in the table was closed, one above it is idle.

use super::types::StreamId;
use super::window::{ReceiveWindow, SendWindow};

/// One tunnel.
///
/// | peer_head | our_head | peer_done | we_done | means                                                   |
/// |-----------|----------|-----------|---------|---------------------------------------------------------|
/// | no        | yes      | no        | any     | client, waiting for the response                        |
/// | yes       | no       | any       | no      | server, waiting for our decision                        |
/// | yes       | yes      | any       | any     | tunnel, whichever halves are not done                   |
/// | yes       | yes      | yes       | yes     | ended, kept only while the application is to take bytes |
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: StreamId,
    pub(super) send: SendWindow,
    pub(super) receive: ReceiveWindow,
    /// Bytes handed out and not consumed yet.
    pub(super) held: usize,
    pub(super) peer_head: bool,
    pub(super) our_head: bool,
    pub(super) peer_done: bool,
    pub(super) we_done: bool,
}

impl Stream {
    /// Both halves have ended, though bytes may be held.
    pub(super) fn is_ended(&self) -> bool {
        self.peer_done && self.we_done
    }

    pub(super) fn may_send(&self) -> bool {
        self.our_head && !self.we_done
    }
}

/// The streams of one connection.
#[derive(Debug, Default)]
pub(super) struct Streams {
    sorted: Vec<Stream>,
}

impl Streams {
    /// Add a stream; its id is above all others.
    pub(super) fn push(&mut self, stream: Stream) {
        self.sorted.push(stream);
    }

    pub(super) fn get(&self, id: StreamId) -> Option<&Stream> {
        let index = self.find(id)?;
        self.sorted.get(index)
    }

    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        let index = self.find(id)?;
        self.sorted.get_mut(index)
    }

    pub(super) fn remove(&mut self, id: StreamId) -> Option<Stream> {
        let index = self.find(id)?;
        Some(self.sorted.remove(index))
    }

    /// Remove the highest stream above `id`.
    pub(super) fn pop_above(&mut self, id: StreamId) -> Option<Stream> {
        self.sorted.pop_if(|stream| stream.id > id)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.sorted.iter_mut()
    }

    /// All that are remembered.
    pub(super) fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Those that have not ended.
    pub(super) fn active(&self) -> usize {
        self.sorted.iter().filter(|stream| !stream.is_ended()).count()
    }

    fn find(&self, id: StreamId) -> Option<usize> {
        self.sorted.binary_search_by_key(&id, |stream| stream.id).ok()
    }
}
