//! Points in time as the surfaces write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Days from 1970 to the last of the year 9999, the last that RFC 3339 can write.
const LAST_DAY: i64 = 2_932_896;

/// Seconds since 1970.
pub fn unix_now() -> u64 {
    since_epoch().as_secs()
}

/// Now, as RFC 3339 in UTC with nanoseconds.
pub fn rfc3339_now() -> String {
    rfc3339(since_epoch())
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A point in time, given as the time since 1970, as RFC 3339 in UTC.
pub fn rfc3339(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(i64::try_from(days).unwrap_or(0).min(LAST_DAY));
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60,
        since_epoch.subsec_nanos()
    )
}

/// Milliseconds since 1970, negative before, as RFC 3339 in UTC with milliseconds.
pub fn format_millis(millis: i64) -> String {
    let (days, of_day) = (millis.div_euclid(86_400_000), millis.rem_euclid(86_400_000));
    // Years of more than four digits have no place in RFC 3339; nothing was remembered then.
    let days = days.clamp(-719_162, LAST_DAY);
    let (year, month, day) = civil(days);
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, fraction) = (of_day / 1000 % 60, of_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:03}Z")
}

/// Reads a point in time into milliseconds since 1970: RFC 3339, also with a space for the `T`, without
/// seconds, and without an offset (then UTC); or a date alone (its first moment in UTC).
pub fn parse_millis(text: &str) -> Option<i64> {
    let text = text.trim();
    let (date, rest) = match text.find(['T', 't', ' ']) {
        Some(at) => (text.get(..at)?, text.get(at + 1..)?),
        None => (text, ""),
    };
    let mut parts = date.splitn(3, '-').map(digits);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if date.len() != 10 || !(1..=12).contains(&month) || !(1..=days_of(year, month)).contains(&day) {
        return None;
    }
    let midnight = days_since_epoch(year, month, day).checked_mul(86_400_000)?;
    if rest.is_empty() {
        return (text.len() == 10).then_some(midnight);
    }
    let (clock, offset) = split_offset(rest.trim())?;
    Some(midnight + clock_millis(clock)? - offset)
}

/// The clock of a time and its offset from UTC in milliseconds.
fn split_offset(rest: &str) -> Option<(&str, i64)> {
    if let Some(clock) = rest.strip_suffix(['Z', 'z']) {
        return Some((clock, 0));
    }
    let Some(at) = rest.rfind(['+', '-']) else { return Some((rest, 0)) };
    let sign = if rest.get(at..=at)? == "-" { -1 } else { 1 };
    let offset = rest.get(at + 1..)?.replace(':', "");
    let minutes = match offset.len() {
        2 => digits(&offset)? * 60,
        4 => digits(offset.get(..2)?)? * 60 + digits(offset.get(2..)?)?,
        _ => return None,
    };
    (minutes < 24 * 60).then_some((rest.get(..at)?.trim_end(), sign * minutes * 60_000))
}

fn clock_millis(clock: &str) -> Option<i64> {
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let parts: Vec<i64> =
        whole.split(':').map(|part| digits(part).filter(|_| part.len() == 2)).collect::<Option<_>>()?;
    let (hour, minute, second) = match parts.as_slice() {
        [hour, minute] if fraction.is_empty() => (*hour, *minute, 0),
        [hour, minute, second] => (*hour, *minute, *second),
        _ => return None,
    };
    // A leap second is the last second of its minute twice.
    if hour > 23 || minute > 59 || second > 60 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: String = fraction.chars().chain("000".chars()).take(3).collect();
    Some(((hour * 60 + minute) * 60 + second.min(59)) * 1000 + digits(&thousandths)?)
}

fn digits(text: &str) -> Option<i64> {
    (!text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Howard Hinnant's `days_from_civil`.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Howard Hinnant's `civil_from_days`.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time_are_read_as_people_and_programs_write_them() {
        for (text, millis) in [
            ("1970-01-01", 0),
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59.999Z", -1),
            ("2024-02-29T23:59:59Z", 1_709_251_199_000),
            ("2024-02-29 23:59", 1_709_251_140_000),
            ("2024-03-01T01:29:59.5+01:30", 1_709_251_199_500),
            ("2024-02-29T15:59:59-08:00", 1_709_251_199_000),
            ("2024-02-29T15:59:59-0800", 1_709_251_199_000),
            ("2024-02-29T23:59:59.123456789Z", 1_709_251_199_123),
            ("2025-01-02t03:04:05z", 1_735_787_045_000),
        ] {
            assert_eq!(parse_millis(text), Some(millis), "{text}");
        }
        for text in [
            "",
            "now",
            "2024",
            "2024-13-01",
            "2023-02-29",
            "2024-1-1",
            "2024-02-29T",
            "2024-02-29T24:00:00Z",
            "2024-02-29T10:60:00Z",
            "2024-02-29T1:00:00Z",
            "2024-02-29T10:00:00+9",
            "24-02-29T10:00:00Z",
            "2024-02-29T10:00:00.Zx",
            "２０２４-02-29",
            "2024-02-29T10:00:00+99:00",
        ] {
            assert_eq!(parse_millis(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for millis in [0, -1, 1_709_251_199_123, -62_135_596_800_000, 253_402_300_799_999, 951_782_400_000] {
            assert_eq!(parse_millis(&format_millis(millis)), Some(millis), "{}", format_millis(millis));
        }
        assert_eq!(format_millis(i64::MAX).len(), 24);
        assert_eq!(format_millis(i64::MIN).len(), 24);
    }

    #[test]
    fn known_points_in_time_are_written_right() {
        let at = |seconds| rfc3339(Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(at(1_709_251_199), "2024-02-29T23:59:59.000000000Z");
        assert_eq!(at(4_102_444_800), "2100-01-01T00:00:00.000000000Z");
    }
}
