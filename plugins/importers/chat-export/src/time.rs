//! Moments as exports write them, in milliseconds since 1970.

/// Seconds since 1970 with a fraction, as ChatGPT writes them. What cannot be meant (before 1990 or after 2200) is
/// none.
pub(crate) fn seconds(seconds: f64) -> Option<i64> {
    let plausible = 631_152_000.0..7_258_118_400.0;
    // In this range a rounded product fits without loss.
    plausible.contains(&seconds).then(|| (seconds * 1000.0).round() as i64)
}

/// A moment of RFC 3339, as Claude writes them: `2024-05-01T09:30:00.123456Z`, or with an offset.
pub(crate) fn rfc3339(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let sign = |at: usize, wanted: &[u8]| text.as_bytes().get(at).filter(|b| wanted.contains(b)).copied();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    for (at, wanted) in [(4, b"-".as_slice()), (7, b"-"), (10, b"Tt "), (13, b":"), (16, b":")] {
        sign(at, wanted)?;
    }
    let in_range =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if !in_range {
        return None;
    }
    let rest = text.get(19..)?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count()),
        None => ("", rest),
    };
    let mut millis = 0;
    for place in 0..3 {
        millis = millis * 10 + fraction.as_bytes().get(place).map_or(0, |b| i64::from(b - b'0'));
    }
    let at = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset(zone)?;
    Some(at * 1000 + millis)
}

/// Seconds that a zone is ahead.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z" | "") {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let hours: i64 = zone.get(1..3)?.parse().ok()?;
    let minutes: i64 = zone.get(3..)?.trim_start_matches(':').parse().ok()?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// Days from 1970 to a date of the Gregorian calendar: whole years, leap days, then the months of this year.
fn days(year: i64, month: i64, day: i64) -> i64 {
    const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leaps = |year: i64| year / 4 - year / 100 + year / 400;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let months = usize::try_from(month - 1).ok().and_then(|index| BEFORE.get(index)).copied().unwrap_or(0);
    let leap_day = i64::from(is_leap && month > 2);
    (year - 1970) * 365 + leaps(year - 1) - leaps(1969) + months + leap_day + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_they_are_written() {
        for (text, wanted) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:59.999Z", 951_868_799_999),
            ("2000-03-01T00:00:00Z", 951_868_800_000),
            ("2024-05-01T09:30:00.123456Z", 1_714_555_800_123),
            ("2024-05-01T09:30:00.1+02:00", 1_714_548_600_100),
            ("2024-05-01T09:30:00-0330", 1_714_568_400_000),
            ("2100-03-01T00:00:00Z", 4_107_542_400_000),
            ("1969-12-31T23:59:59Z", -1000),
        ] {
            assert_eq!(rfc3339(text), Some(wanted), "{text}");
        }
        for text in
            ["", "soon", "2024-13-01T00:00:00Z", "2024-05-01", "2024-05-01T25:00:00Z", "2024-05-01T09:30:00Ü"]
        {
            assert_eq!(rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn seconds_that_cannot_be_meant_are_none() {
        assert_eq!(seconds(1_714_555_800.123_4), Some(1_714_555_800_123));
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e18] {
            assert_eq!(seconds(wrong), None);
        }
    }
}
