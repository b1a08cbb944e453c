//! Log lines: made by whoever has something to say, written by one thread, so that a slow reader stalls no connection.

mod filter;
mod line;

use std::io::Write as _;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

pub use filter::{BadDirective, Change, Filter, Level};
use line::Format;
pub use line::{Fields, UnknownFormat};

use crate::rfc3339;

/// Lines that wait to be written; past it lines are dropped and counted, never waited for.
const QUEUE: usize = 8 * 1024;
/// Lines joined into one write.
const BATCH: usize = 64;
/// How long the writer lets lines gather after the first. While it does, a line costs its author no system call; without
/// it each connection's end wakes this thread and the reader of its pipe, on the cores that carry the traffic.
const GATHER: Duration = Duration::from_millis(10);
/// How long an ending process waits for its last lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

enum Message {
    Line(String),
    /// Everything before it has been written: answer.
    Flush(SyncSender<()>),
}

struct Log {
    messages: SyncSender<Message>,
    dropped: AtomicU64,
}

/// The number of the most that any scope writes: most lines that nobody wants end here.
static MOST: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// What is written, and what the process started with.
#[derive(Default)]
struct Filters {
    current: Filter,
    initial: Filter,
}

fn filters() -> MutexGuard<'static, Filters> {
    static FILTERS: OnceLock<Mutex<Filters>> = OnceLock::new();
    let filters = FILTERS.get_or_init(Mutex::default);
    filters.lock().unwrap_or_else(PoisonError::into_inner)
}

fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let (messages, receiver) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("log".to_owned())
            .stack_size(128 * 1024);
        if let Err(error) = thread.spawn(move || drain(&receiver)) {
            eprintln!("no thread for the log, so there is none: {error}");
        }
        Log {
            messages,
            dropped: AtomicU64::new(0),
        }
    })
}

/// Write what comes, many lines at once, until the process ends.
fn drain(receiver: &Receiver<Message>) {
    while let Ok(first) = receiver.recv() {
        #[expect(
            clippy::disallowed_methods,
            reason = "this thread has nothing else to do, and no worker waits for it"
        )]
        std::thread::sleep(GATHER);
        let mut waiting = Some(first);
        while let Some(message) = waiting {
            write_batch(std::iter::once(message).chain(receiver.try_iter().take(BATCH)));
            waiting = receiver.try_recv().ok();
        }
    }
}

fn write_batch(messages: impl Iterator<Item = Message>) {
    let (mut text, mut flushed) = (String::new(), Vec::new());
    for message in messages {
        match message {
            Message::Line(line) => text.push_str(&line),
            Message::Flush(done) => flushed.push(done),
        }
    }
    // Nobody is left to tell when stdout is gone.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    // Whoever asked has stopped waiting when this fails.
    flushed
        .into_iter()
        .for_each(|done| done.try_send(()).unwrap_or_default());
}

/// Wait until every line so far has been written, at most a second: the process is about to end.
pub fn flush() {
    let (done, written) = sync_channel(1);
    if log().messages.send(Message::Flush(done)).is_ok() {
        // A reader that takes longer loses the rest.
        let _ = written.recv_timeout(FLUSH_TIMEOUT);
    }
}

/// Begin with `filter` (as `RUST_LOG` has it), written in `format` (as `LOG_FORMAT` has it: `plain` or `json`).
pub fn start(filter: Filter, format: &str) -> Result<(), UnknownFormat> {
    format.parse::<Format>()?.choose();
    let mut filters = filters();
    MOST.store(filter.most(), Ordering::Relaxed);
    filters.initial = filter.clone();
    filters.current = filter;
    Ok(())
}

/// Write what `change` says besides; first go back to the start when `reset`. Returns the filter as it is then.
pub fn change_filter(change: Option<Change>, reset: bool) -> Filter {
    let mut filters = filters();
    if reset {
        filters.current = filters.initial.clone();
    }
    if let Some(change) = change {
        filters.current.add(change);
    }
    MOST.store(filters.current.most(), Ordering::Relaxed);
    filters.current.clone()
}

/// Whether a line of this level and scope would be written.
pub fn is_enabled(level: Level, scope: &str) -> bool {
    level as u8 <= MOST.load(Ordering::Relaxed) && filters().current.allows(level, scope)
}

/// Lines dropped so far because the reader was too slow.
pub fn dropped() -> u64 {
    log().dropped.load(Ordering::Relaxed)
}

/// Write one line (ztunnel.md 8.5).
pub fn write(level: Level, scope: &str, message: &str, fields: &Fields) {
    if !is_enabled(level, scope) {
        return;
    }
    let line = fields.finish(&rfc3339::microseconds(SystemTime::now()), level, scope, message);
    if log().messages.try_send(Message::Line(line)).is_err() {
        log().dropped.fetch_add(1, Ordering::Relaxed);
    }
}
