//! The dates of the data sets, as the node reads them.

use jiff::civil::{Date, DateTime};

/// LongMemEval's way (its weekday left out) and LoCoMo's.
const MOMENTS: [&str; 3] = ["%Y/%m/%d %H:%M", "%Y-%m-%d %H:%M", "%I:%M %p on %d %B, %Y"];
/// Days without an hour.
const DAYS: [&str; 2] = ["%Y/%m/%d", "%Y-%m-%d"];

/// A moment as RFC 3339 in UTC, from `2023/05/20 (Sat) 02:21` or `2023-05-20` (LongMemEval: the start of the day)
/// or `1:56 pm on 8 May, 2023` (LoCoMo); `None` for anything else.
pub fn rfc3339(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split_whitespace().filter(|word| !word.starts_with('(')).collect();
    let text = words.join(" ");
    let moment = MOMENTS.iter().find_map(|format| DateTime::strptime(format, &text).ok());
    let day = || DAYS.iter().find_map(|format| Date::strptime(format, &text).ok()).map(DateTime::from);
    moment.or_else(day).map(|moment| format!("{moment}Z"))
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
