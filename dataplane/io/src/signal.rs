//! A wake-up between tasks of one worker: at most one waiter, no lock, no allocation.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// A level that one task raises and another waits for. Raising twice before the wait counts once.
#[derive(Default)]
pub(crate) struct Signal {
    raised: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Signal {
    /// Raise the level and wake the waiter, if there is one.
    pub(crate) fn raise(&self) {
        self.raised.set(true);
        if let Some(waker) = self.waiter.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Wait until the level is raised, and lower it. Cancelling the wait loses nothing.
    pub(crate) async fn wait(&self) {
        poll_fn(|context| self.poll_wait(context)).await;
    }

    /// One step of `wait`.
    pub(crate) fn poll_wait(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.take() {
            return Poll::Ready(());
        }
        let mut waiter = self.waiter.borrow_mut();
        if !waiter.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *waiter = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// Lower the level; returns whether it was raised.
    pub(crate) fn take(&self) -> bool {
        self.raised.replace(false)
    }
}
