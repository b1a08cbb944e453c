//! Points in time as text, in UTC (RFC 3339).

use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

const MICROSECONDS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
const SECONDS: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");

/// With microseconds, as log lines have it.
pub(crate) fn microseconds(time: SystemTime) -> String {
    write(time, MICROSECONDS)
}

/// To the second.
pub(crate) fn seconds(time: SystemTime) -> String {
    write(time, SECONDS)
}

fn write(time: SystemTime, form: &[BorrowedFormatItem<'_>]) -> String {
    // All that the forms ask for, every point in time has.
    OffsetDateTime::from(time).format(form).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn seconds_become_dates() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (1_795_219_200, "2026-11-21T00:00:00Z"),
        ];
        for (since_epoch, expected) in cases {
            assert_eq!(
                seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(since_epoch)),
                expected
            );
        }
        let time = SystemTime::UNIX_EPOCH + Duration::from_micros(1_000_042);
        assert_eq!(microseconds(time), "1970-01-01T00:00:01.000042Z");
    }
}
