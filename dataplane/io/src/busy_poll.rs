//! Waiting awake for the next message of a dialogue, or for the next of many connections.
//!
//! Theory of operation. A worker that sleeps between two messages pays for being woken: an interrupt to a core that went
//! idle, which under a hypervisor is an exit and an entry, some 10 to 20 us, four times in a round trip across nodes. That
//! is most of what the mesh adds to one. So when messages come densely, the worker polls its sockets for a moment instead of
//! sleeping; between two looks it yields its core to whoever else can run.
//!
//! It must not burn what others need. It waits awake only after [`DENSE`] messages in a row came within [`MESSAGES`] of each
//! other, and one that is not there after that time ends the row: requests with any pause between them never begin one, and
//! what is wasted at a row's end is one such window. Bulk ends a row too: it waits for cores, not for wake-ups. Connections
//! that are opened one right after the other are a row of their own, with a window of their own: each takes several round
//! trips.
//!
//! And it must not give its core away for long: to yield where others want the core means to get it back when their time is
//! up, milliseconds later. A yield that took so long says that there is no core to spare: then there is no waiting awake for
//! a while, for longer each time.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::signal::Signal;

/// How long the next message is waited for. A round trip between nodes takes about as long; a wake-up costs a third of it.
const MESSAGES: Duration = Duration::from_micros(100);
/// How long the next connection is waited for: about what opening, using and closing one takes.
const CONNECTIONS: Duration = Duration::from_micros(500);
/// So many must have come within the window of each other. A request and its answer are two; four at a time are a page's
/// worth; more is a dialogue without pauses.
const DENSE: u8 = 16;

/// What is read at once in so many bytes is bulk.
const BULK: usize = 8 * 1024;

/// A yield that takes longer gave the core to somebody.
const CONTENDED: Duration = Duration::from_micros(200);
/// The first rest after that; it doubles as long as the next one follows soon.
const FIRST_REST: Duration = Duration::from_millis(10);
const LONGEST_REST: Duration = Duration::from_secs(1);
/// So many times the last rest without contention, and the next one is a first one.
const CALM: u32 = 4;

/// What comes in a row, each within the window of the one before.
struct Row {
    window: Duration,
    last: Cell<Option<Instant>>,
    length: Cell<u8>,
}

struct Pace {
    messages: Row,
    connections: Row,
    /// Until when no row begins, and how long that rest is.
    rest: Cell<Option<(Instant, Duration)>>,
    dense: Signal,
}

thread_local! {
    static PACE: Pace = Pace::default();
}

/// So many bytes came to this worker at once, on whichever connection.
pub(crate) fn note_message(bytes: usize) {
    PACE.with(|pace| {
        if bytes < BULK {
            pace.note(&pace.messages, Instant::now());
        } else {
            pace.end();
        }
    });
}

/// A connection was opened through this worker.
pub(crate) fn note_connection(now: Instant) {
    PACE.with(|pace| pace.note(&pace.connections, now));
}

/// Keep this worker awake while messages come densely. Never ends.
pub(crate) async fn watch() {
    // The signal belongs to the thread, and so does this task.
    let dense = || PACE.with(|pace| pace.is_dense(Instant::now()));
    loop {
        std::future::poll_fn(|context| PACE.with(|pace| pace.dense.poll_wait(context))).await;
        while dense() {
            let before = Instant::now();
            // It fails on no Linux.
            let _ = nix::sched::sched_yield();
            let now = Instant::now();
            if now - before > CONTENDED {
                PACE.with(|pace| pace.rest(now));
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Row {
    fn new(window: Duration) -> Self {
        Self {
            window,
            last: Cell::default(),
            length: Cell::default(),
        }
    }

    fn end(&self) {
        self.last.set(None);
        self.length.set(0);
    }

    fn is_fresh(&self, now: Instant) -> bool {
        let last = self.last.get();
        last.is_some_and(|last| now.saturating_duration_since(last) < self.window)
    }

    /// Whether it is long enough to wait awake for the next one.
    fn is_dense(&self, now: Instant) -> bool {
        self.length.get() >= DENSE && self.is_fresh(now)
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            messages: Row::new(MESSAGES),
            connections: Row::new(CONNECTIONS),
            rest: Cell::default(),
            dense: Signal::default(),
        }
    }
}

impl Pace {
    fn note(&self, row: &Row, now: Instant) {
        let is_resting = self.rest.get().is_some_and(|(until, _)| now < until);
        let follows = row.is_fresh(now) && !is_resting;
        row.last.set(Some(now));
        row.length
            .set(if follows { row.length.get().saturating_add(1) } else { 0 });
        if row.length.get() == DENSE {
            self.dense.raise();
        }
    }

    fn end(&self) {
        self.messages.end();
        self.connections.end();
    }

    /// There is no core to spare: be off for a while.
    fn rest(&self, now: Instant) {
        let length = match self.rest.get() {
            Some((until, last)) if now < until + last * CALM => (last * 2).min(LONGEST_REST),
            _ => FIRST_REST,
        };
        self.rest.set(Some((now + length, length)));
        self.end();
    }

    fn is_dense(&self, now: Instant) -> bool {
        self.messages.is_dense(now) || self.connections.is_dense(now)
    }
}

#[cfg(test)]
mod tests {
    use super::{CONNECTIONS, DENSE, MESSAGES, Pace, Row};
    use std::time::{Duration, Instant};

    /// Messages with these gaps before them; whether the worker stays awake after the last.
    fn after(gaps: impl Iterator<Item = Duration>) -> bool {
        after_row(|pace| &pace.messages, gaps)
    }

    fn after_row(row: fn(&Pace) -> &Row, gaps: impl Iterator<Item = Duration>) -> bool {
        let pace = Pace::default();
        let mut now = Instant::now();
        let mut begun = false;
        for gap in gaps {
            now += gap;
            if begun {
                begun = pace.is_dense(now);
            }
            pace.note(row(&pace), now);
            begun |= pace.dense.take();
        }
        begun && pace.is_dense(now + MESSAGES / 2)
    }

    #[test]
    fn a_dialogue_without_pauses_is_waited_for_awake() {
        assert!(after((0..100).map(|_| MESSAGES / 2)));
    }

    #[test]
    fn requests_with_pauses_between_them_never_are() {
        let gaps = |i| if i % 4 == 0 { 20 * MESSAGES } else { MESSAGES / 3 };
        assert!(!after((0..1000).map(gaps)));
    }

    #[test]
    fn connections_one_after_the_other_are_waited_for_longer() {
        let gaps = || (0..100).map(|_| CONNECTIONS / 2);
        assert!(after_row(|pace| &pace.connections, gaps()));
        assert!(!after(gaps()));
        assert!(!after_row(|pace| &pace.connections, gaps().map(|gap| gap * 3)));
    }

    #[test]
    fn a_short_burst_is_not() {
        assert!(!after((0..DENSE.into()).map(|_: u32| MESSAGES / 2)));
    }

    #[test]
    fn bulk_ends_it() {
        let pace = Pace::default();
        let now = Instant::now();
        (0..100).for_each(|_| pace.note(&pace.messages, now));
        assert!(pace.is_dense(now));
        pace.end();
        assert!(!pace.is_dense(now));
    }

    #[test]
    fn who_has_no_core_to_spare_rests_longer_and_longer() {
        let pace = Pace::default();
        let mut now = Instant::now();
        let mut is_dense_after = |pause: Duration| {
            now += pause;
            (0..100).for_each(|_| {
                now += MESSAGES / 10;
                pace.note(&pace.messages, now);
            });
            (pace.dense.take(), now)
        };
        assert!(is_dense_after(Duration::ZERO).0);
        for rest in [10, 20, 40, 80, 160, 320, 640, 1000, 1000] {
            let rest = Duration::from_millis(rest);
            let (_, now) = is_dense_after(Duration::ZERO);
            pace.rest(now);
            assert!(!is_dense_after(rest / 2).0, "{rest:?}");
            assert!(is_dense_after(rest / 2).0, "{rest:?}");
        }
        let (_, now) = is_dense_after(10 * super::LONGEST_REST);
        pace.rest(now);
        assert!(is_dense_after(super::FIRST_REST).0);
    }

    #[test]
    fn a_pause_ends_it() {
        let gaps = (0..100).map(|i| if i == 99 { 2 * MESSAGES } else { MESSAGES / 2 });
        assert!(!after(gaps));
    }
}
