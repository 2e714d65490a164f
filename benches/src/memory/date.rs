//! The dates of the data sets, as the node reads them.

/// The months, as LoCoMo writes them.
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// A moment as RFC 3339 in UTC, from `2023/05/20 (Sat) 02:21` or `2023-05-20` (LongMemEval: the start of the day)
/// or `1:56 pm on 8 May, 2023` (LoCoMo); `None` for anything else.
pub fn rfc3339(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split_whitespace().filter(|word| !word.starts_with('(')).collect();
    let (date, clock) = match words.as_slice() {
        [date] => (ymd(date)?, (0, 0)),
        [date, clock] => (ymd(date)?, hours(clock)?),
        [clock, half, "on", day, month, year] => {
            let month = month.trim_end_matches(',').to_lowercase();
            let month = MONTHS.iter().position(|name| *name == month)? + 1;
            let date =
                (year.parse().ok()?, u32::try_from(month).ok()?, day.trim_end_matches(',').parse().ok()?);
            (date, twelve(hours(clock)?, half)?)
        }
        _ => return None,
    };
    let ((year, month, day), (hour, minute)) = (date, clock);
    let sound = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60;
    sound.then(|| format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:00Z"))
}

fn ymd(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.split(['/', '-']).map(|part| part.parse().ok());
    let date = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(date)
}

fn hours(text: &str) -> Option<(u32, u32)> {
    let (hour, minute) = text.split_once(':')?;
    Some((hour.parse().ok()?, minute.parse().ok()?))
}

/// The 24-hour clock of a 12-hour one.
fn twelve((hour, minute): (u32, u32), half: &str) -> Option<(u32, u32)> {
    let hour = match (half.to_lowercase().as_str(), hour) {
        ("am", 12) => 0,
        ("am", 1..=11) | ("pm", 12) => hour,
        ("pm", 1..=11) => hour + 12,
        _ => return None,
    };
    Some((hour, minute))
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn the_dates_of_all_sets_are_read() {
        for (text, wanted) in [
            ("2023/05/20 (Sat) 02:21", "2023-05-20T02:21:00Z"),
            ("2021-08-20", "2021-08-20T00:00:00Z"),
            ("1:56 pm on 8 May, 2023", "2023-05-08T13:56:00Z"),
            ("12:09 am on 13 September, 2023", "2023-09-13T00:09:00Z"),
            ("12:30 pm on 1 June, 2022", "2022-06-01T12:30:00Z"),
        ] {
            assert_eq!(rfc3339(text).as_deref(), Some(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in ["", "soon", "2023/13/01", "2023/05", "13:00 pm on 8 May, 2023", "1:56 pm on 8 Mai, 2023"]
        {
            assert_eq!(rfc3339(text), None, "{text}");
        }
    }
}
