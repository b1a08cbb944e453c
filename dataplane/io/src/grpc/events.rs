//! What happened, for the other side to take: a list, and a descriptor that is readable while there is something in it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::call::Call;

/// What happened to a call. Of each kind but the first there is at most one in the list that says nothing new.
#[derive(Debug)]
pub enum Event {
    /// There is a new one.
    Opened(Arc<Call>),
    /// It has messages, or the client has ended its side; said once until all messages were taken.
    Readable(u64),
    /// All that was queued has gone out, after there was more than a call should queue.
    Writable(u64),
    /// It has ended, whoever ended it: nothing more comes, and nothing more can be sent.
    Closed(u64),
}

/// The list and its descriptor.
#[derive(Debug)]
pub struct Events {
    list: Mutex<Vec<Event>>,
    descriptor: EventFd,
}

impl Events {
    /// Errors when there is no descriptor to be had.
    pub fn new() -> io::Result<Arc<Self>> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        Ok(Arc::new(Self {
            list: Mutex::default(),
            descriptor: EventFd::from_value_and_flags(0, flags)?,
        }))
    }

    /// Add one, and wake the other side if it was not woken before.
    pub(super) fn push(&self, event: Event) {
        let is_first = {
            let mut list = self.lock();
            list.push(event);
            list.len() == 1
        };
        if is_first {
            // It cannot fail but by an overflow, and then it is readable.
            let _ = self.descriptor.write(1);
        }
    }

    /// All that is in the list; it is empty then.
    pub fn take(&self) -> Vec<Event> {
        // Before the list is emptied: whatever comes afterwards makes the descriptor readable again.
        let _ = self.descriptor.read();
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
