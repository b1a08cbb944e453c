//! Log lines: made by whoever has something to say, written by one thread, so that a slow reader stalls no connection.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

/// Lines that wait to be written; past it lines are dropped and counted, never waited for.
const QUEUE: usize = 8 * 1024;
/// Lines joined into one write.
const BATCH: usize = 64;
/// How long the writer lets lines gather after the first. While it does, a line costs its author no system call; without
/// it each connection's end wakes this thread and the reader of its pipe, on the cores that carry the traffic.
const GATHER: Duration = Duration::from_millis(10);
/// How long an ending process waits for its last lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// How much a line matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Level {
    /// We failed.
    Error,
    /// Someone must act.
    Warn,
    /// An operator wants it.
    Info,
    /// We want it.
    Debug,
}

impl Level {
    /// The level of that name, in any case; `None` for other words.
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "error" => Some(Self::Error),
            "warn" | "warning" => Some(Self::Warn),
            "info" => Some(Self::Info),
            "debug" | "trace" => Some(Self::Debug),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

enum Message {
    Line(String),
    /// Everything before it has been written: answer.
    Flush(SyncSender<()>),
}

struct Log {
    messages: SyncSender<Message>,
    dropped: AtomicU64,
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);

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

/// Log lines above this level are not written.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Whether a line of this level would be written.
pub fn is_enabled(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// Lines dropped so far because the reader was too slow.
pub fn dropped() -> u64 {
    log().dropped.load(Ordering::Relaxed)
}

/// Write one line: time, level, scope, message and `fields`, separated by tabs (ztunnel.md 8.5).
pub fn write(level: Level, scope: &str, message: &str, fields: &Fields) {
    if !is_enabled(level) {
        return;
    }
    let mut line = timestamp();
    // Writing to a String cannot fail.
    let _ = writeln!(line, "\t{}\t{scope}\t{message}\t{}", level.name(), fields.0.trim_end());
    if log().messages.try_send(Message::Line(line)).is_err() {
        log().dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// `key=value` pairs; strings are quoted and escaped, so that a line stays one line.
#[derive(Default)]
pub struct Fields(String);

impl Fields {
    /// Add a text; an empty one is left out.
    pub fn text(mut self, key: &str, value: &str) -> Self {
        if !value.is_empty() {
            let _ = write!(self.0, "{key}={value:?} ");
        }
        self
    }

    /// Add something whose display needs no quotes: a number, an address.
    pub fn plain(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        let _ = write!(self.0, "{key}={value} ");
        self
    }
}

/// Now, as RFC 3339 with microseconds in UTC.
fn timestamp() -> String {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let (days, seconds) = (now.as_secs() / 86_400, now.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        now.subsec_micros()
    )
}

/// Year, month and day of a count of days since 1970-01-01 in the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Count in eras of 400 years that begin on 1 March, so that leap days come last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::{Fields, civil};

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_778), (2026, 11, 21));
    }

    #[test]
    fn a_value_cannot_break_its_line() {
        let fields = Fields::default().text("error", "a\nb\"c").plain("bytes", 3);
        assert_eq!(fields.0, "error=\"a\\nb\\\"c\" bytes=3 ");
    }
}
