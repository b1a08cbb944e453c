//! The two buffers that a worker's connections share, and the layout of a batch of records in them.

use std::cell::RefCell;
use std::io::{self, IoSliceMut};

use tokio::net::TcpStream;

use crate::tls::records::TAIL;
pub(super) use crate::tls::records::{HEAD, MAX_CONTENT};

/// What a record costs besides its content.
pub(super) const OVERHEAD: usize = HEAD + TAIL;
/// From one full record's start to the next one's.
const STRIDE: usize = MAX_CONTENT + OVERHEAD;
/// Bytes of one read of a tunnel's socket: fewer system calls cost less than cache misses up to about here
/// (anchors/peers.md 0b: 16 KiB buffers cost two fifths, 256 KiB was the best measured).
const READ: usize = 256 * 1024;
/// A read, behind the longest beginning of a record that can be kept from the read before.
pub(super) const INBOX_SIZE: usize = READ + STRIDE + 256;
/// The most application bytes sealed as one batch.
pub(super) const BATCH: usize = 256 * 1024;
/// A batch with all gaps, behind control frames.
const OUTBOX_SIZE: usize = BATCH + (BATCH / MAX_CONTENT + 2) * OVERHEAD + 2 * STRIDE;

thread_local! {
    pub(super) static INBOX: RefCell<Box<[u8]>> = RefCell::new(zeroed(INBOX_SIZE));
    pub(super) static OUTBOX: RefCell<Box<[u8]>> = RefCell::new(zeroed(OUTBOX_SIZE));
}

fn zeroed(size: usize) -> Box<[u8]> {
    vec![0; size].into_boxed_slice()
}

/// Sealed bytes that the socket has not taken yet.
#[derive(Default)]
pub(super) struct Pending {
    bytes: Vec<u8>,
    sent: usize,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn keep(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Send as much as the socket takes; gives the memory back when all is sent.
    pub(super) fn write_to(&mut self, socket: &TcpStream) -> io::Result<()> {
        while self.sent < self.bytes.len() {
            match socket.try_write(&self.bytes[self.sent..]) {
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        *self = Self::default();
        Ok(())
    }
}

/// Read at most `length` bytes from `socket` into the content places of records laid out from the start of `space`; the first
/// record keeps `reserved` bytes of content free in front. Returns how many bytes were read.
pub(super) fn read_into_records(
    socket: &TcpStream,
    space: &mut [u8],
    reserved: usize,
    length: usize,
) -> io::Result<usize> {
    const MOST: usize = BATCH / MAX_CONTENT + 2;
    let mut slices: [IoSliceMut<'_>; MOST] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
    let (mut used, mut wanted, mut rest) = (0, length, space);
    let mut taken = reserved;
    while wanted > 0 && used < MOST {
        let take = wanted.min(MAX_CONTENT - taken);
        let (record, after) = rest.split_at_mut(HEAD + taken + take + TAIL);
        slices[used] = IoSliceMut::new(&mut record[HEAD + taken..HEAD + taken + take]);
        wanted -= take;
        rest = after;
        used += 1;
        taken = 0;
    }
    socket.try_read_vectored(&mut slices[..used])
}
