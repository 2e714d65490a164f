//! What templates expect of Python: `json.dumps` and `strftime`.

use std::{
    fmt::Write,
    time::{SystemTime, UNIX_EPOCH},
};

use minijinja::{Error, ErrorKind, Value, value::Kwargs};
use serde_json::Value as Json;

/// Widest indentation.
const MAX_INDENT: usize = 16;

/// `json.dumps(value, ensure_ascii=False, indent=…, sort_keys=…, separators=…)`.
pub(super) fn tojson(value: &Value, indent: Option<usize>, options: Kwargs) -> Result<String, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get::<Option<usize>>("indent")?,
    };
    let sort = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let _ = options.get::<Option<bool>>("ensure_ascii")?;
    let separators = options.get::<Option<Vec<String>>>("separators")?;
    options.assert_all_used()?;
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        _ if indent.is_some() => (",".into(), ": ".into()),
        _ => (", ".into(), ": ".into()),
    };
    let value = serde_json::to_value(value)
        .map_err(|e| Error::new(ErrorKind::BadSerialization, "cannot be written as JSON").with_source(e))?;
    let mut dump = Dump { indent: indent.map(|i| i.min(MAX_INDENT)), sort, item, key, out: String::new() };
    dump.value(&value, 0);
    Ok(dump.out)
}

struct Dump {
    indent: Option<usize>,
    sort: bool,
    item: String,
    key: String,
    out: String,
}

impl Dump {
    fn value(&mut self, value: &Json, depth: usize) {
        match value {
            Json::Array(items) if items.is_empty() => self.out.push_str("[]"),
            Json::Object(fields) if fields.is_empty() => self.out.push_str("{}"),
            Json::Array(items) => {
                self.out.push('[');
                for (i, item) in items.iter().enumerate() {
                    self.separate(i, depth + 1);
                    self.value(item, depth + 1);
                }
                self.line(depth);
                self.out.push(']');
            }
            Json::Object(fields) => {
                let mut fields: Vec<_> = fields.iter().collect();
                if self.sort {
                    fields.sort_by_key(|(k, _)| k.as_str());
                }
                self.out.push('{');
                for (i, (key, value)) in fields.into_iter().enumerate() {
                    self.separate(i, depth + 1);
                    self.out.push_str(&Json::from(key.as_str()).to_string());
                    self.out.push_str(&self.key);
                    self.value(value, depth + 1);
                }
                self.line(depth);
                self.out.push('}');
            }
            scalar => self.out.push_str(&scalar.to_string()),
        }
    }

    fn separate(&mut self, index: usize, depth: usize) {
        if index > 0 {
            self.out.push_str(&self.item);
        }
        self.line(depth);
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }
}

/// The time now, in UTC, by a `strftime` format.
pub(super) fn strftime_now(format: &str) -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    strftime(format, seconds)
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// Year, month (from 0), day of the month and of the year (from 1), of a day since 1970.
fn civil(days: u64) -> (u64, usize, u64, u64) {
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let (mut year, mut left) = (1970, days);
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let of_year = left + 1;
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    for length in lengths {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    (year, month, left + 1, of_year)
}

fn strftime(format: &str, seconds: u64) -> String {
    // Years past 9999 are not written; the loop in `civil` stays short.
    let days = (seconds / 86_400).min(2_932_896);
    let (year, month, day, of_year) = civil(days);
    let clock = seconds % 86_400;
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    let half = match hour % 12 {
        0 => 12,
        h => h,
    };
    let name = |names: &[&'static str], i: usize| names.get(i).copied().unwrap_or_default();
    let month_name = name(&MONTHS, month);
    let day_name = name(&DAYS, usize::try_from(days % 7).unwrap_or(0));
    let short = |word: &'static str| word.get(..3).unwrap_or(word);
    let month = month as u64 + 1;
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut code = chars.next();
        let bare = code == Some('-');
        if bare {
            code = chars.next();
        }
        let width = |w: usize| if bare { 1 } else { w };
        // Writing to a string cannot fail.
        let _ = match code {
            Some('Y') => write!(out, "{year}"),
            Some('y') => write!(out, "{:0w$}", year % 100, w = width(2)),
            Some('m') => write!(out, "{month:0w$}", w = width(2)),
            Some('d') => write!(out, "{day:0w$}", w = width(2)),
            Some('e') => write!(out, "{day:>2}"),
            Some('j') => write!(out, "{of_year:0w$}", w = width(3)),
            Some('H') => write!(out, "{hour:0w$}", w = width(2)),
            Some('I') => write!(out, "{half:0w$}", w = width(2)),
            Some('M') => write!(out, "{minute:0w$}", w = width(2)),
            Some('S') => write!(out, "{second:0w$}", w = width(2)),
            Some('p') => write!(out, "{}", if hour < 12 { "AM" } else { "PM" }),
            Some('B') => write!(out, "{month_name}"),
            Some('b' | 'h') => write!(out, "{}", short(month_name)),
            Some('A') => write!(out, "{day_name}"),
            Some('a') => write!(out, "{}", short(day_name)),
            Some('F') => write!(out, "{year}-{month:02}-{day:02}"),
            Some('T') => write!(out, "{hour:02}:{minute:02}:{second:02}"),
            Some('Z') => write!(out, "UTC"),
            Some('z') => write!(out, "+0000"),
            Some(other) => write!(out, "{}", if other == '%' { "%".to_owned() } else { format!("%{other}") }),
            None => write!(out, "%"),
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_as_python_writes_them() {
        assert_eq!(strftime("%d %b %Y", 1_722_470_400), "01 Aug 2024");
        assert_eq!(
            strftime("%A, %B %-d %Y %H:%M:%S %p %j", 951_825_599),
            "Tuesday, February 29 2000 11:59:59 AM 060"
        );
        assert_eq!(strftime("100%% %q %", 0), "100% %q %");
    }
}
