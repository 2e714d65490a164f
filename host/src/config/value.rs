//! How durations and keep-alive times are written, and which known word an unknown one was meant to be.

use std::time::Duration;

use crate::{inference::Device, job::KeepAlive};

/// Reads what to compute on.
///
/// # Errors
/// What would be right, in words.
pub fn parse_device(text: &str) -> Result<Device, String> {
    match text {
        "auto" => Ok(Device::Auto),
        "cpu" => Ok(Device::Cpu),
        "gpu" => Ok(Device::Gpu),
        _ => Err(format!("`{text}` is no device; use auto, cpu or gpu")),
    }
}

/// Reads a duration: seconds, or numbers with units one after the other (`1h30m`, `500ms`, `2.5s`).
///
/// # Errors
/// What would be right, in words.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration; write seconds or e.g. 500ms, 90s, 5m, 1h30m");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let letters = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let factor = match unit.trim() {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "" | "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(wrong()),
        };
        seconds += number * factor;
        rest = after;
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

/// Writes a duration as [`parse_duration`] reads it.
pub fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let seconds = duration.as_secs();
    match seconds {
        _ if !millis.is_multiple_of(1000) => format!("{millis}ms"),
        0 => "0s".into(),
        _ if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        _ if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

/// Reads a keep-alive time: a duration, or a negative number or `forever` for never unloading.
///
/// # Errors
/// What would be right, in words.
pub fn parse_keep_alive(text: &str) -> Result<KeepAlive, String> {
    let text = text.trim();
    if text == "forever" {
        return Ok(KeepAlive::Forever);
    }
    match text.strip_prefix('-') {
        Some(rest) => parse_duration(rest).map(|_| KeepAlive::Forever),
        None => parse_duration(text).map(KeepAlive::For),
    }
}

/// The known word that an unknown one in serde's message was probably meant to be.
pub fn suggestion(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("unknown field `")?;
    let (field, known) = rest.split_once('`')?;
    nearest(field, known.split('`').skip(1).step_by(2))
}

/// The known word that an unknown one was probably meant to be.
pub fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Nothing that long is a slip of the finger, and comparing it would take long.
    if unknown.len() > 64 {
        return None;
    }
    known
        .map(|word| (distance(unknown, word), word))
        .min()
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .map(|(_, word)| word)
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        let mut next = vec![before];
        for (right, above) in b.iter().zip(row.iter().skip(1)) {
            let cost = diagonal + usize::from(left != *right);
            before = cost.min(above + 1).min(before + 1);
            diagonal = *above;
            next.push(before);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

/// Durations in TOML: `"5m"` or a number of seconds.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes it.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_duration(*duration))
    }

    /// Reads it.
    ///
    /// # Errors
    /// What would be right.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        super::parse_duration(&super::Written::deserialize(deserializer)?.into_text())
            .map_err(D::Error::custom)
    }
}

/// Keep-alive times in TOML: `"5m"`, a number of seconds, `"forever"` or `-1`.
pub mod keep_alive {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::job::KeepAlive;

    /// Writes it.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(keep: &KeepAlive, serializer: S) -> Result<S::Ok, S::Error> {
        match keep {
            KeepAlive::Forever => serializer.serialize_str("forever"),
            KeepAlive::For(duration) => serializer.serialize_str(&super::format_duration(*duration)),
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// What would be right.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<KeepAlive, D::Error> {
        super::parse_keep_alive(&super::Written::deserialize(deserializer)?.into_text())
            .map_err(D::Error::custom)
    }
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Whole(i64),
    Fraction(f64),
}

impl Written {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Whole(number) => number.to_string(),
            Self::Fraction(number) => number.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, seconds) in
            [("5m", 300.0), ("300", 300.0), ("1h30m", 5400.0), ("1.5s", 1.5), ("500ms", 0.5), ("0", 0.0)]
        {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_secs_f64(seconds), "{text}");
        }
        for text in ["", "m", "5x", "-3", "nan", "1e400", "5 m s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(format_duration(Duration::from_secs(300)), "5m");
        assert_eq!(format_duration(Duration::from_millis(1500)), "1500ms");
        assert_eq!(parse_keep_alive("-1").unwrap(), KeepAlive::Forever);
        assert_eq!(parse_keep_alive("-1m").unwrap(), KeepAlive::Forever);
        assert_eq!(parse_keep_alive("0").unwrap(), KeepAlive::For(Duration::ZERO));
        assert!(parse_keep_alive("-").is_err());
    }

    #[test]
    fn the_distance_counts_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }
}
