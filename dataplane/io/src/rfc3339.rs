//! Points in time as text, in UTC (RFC 3339).

use std::time::{Duration, SystemTime};

/// With microseconds, as log lines have it.
pub(crate) fn microseconds(time: SystemTime) -> String {
    let since = since_epoch(time);
    format!("{}.{:06}Z", date_and_time(since.as_secs()), since.subsec_micros())
}

/// To the second.
pub(crate) fn seconds(time: SystemTime) -> String {
    format!("{}Z", date_and_time(since_epoch(time).as_secs()))
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn date_and_time(since_epoch: u64) -> String {
    let (days, seconds) = (since_epoch / 86_400, since_epoch % 86_400);
    let (year, month, day) = civil(days);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}")
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
