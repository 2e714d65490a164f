//! Moments as people and programs write them.

use std::fmt;

use jiff::{Timestamp, civil, tz::TimeZone};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment: milliseconds since the Unix epoch, between the years 1 and 9999. In JSON it is text of RFC 3339.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode,
)]
#[cbor(transparent)]
pub struct Millis(#[n(0)] pub i64);

/// Why a time cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Not one of the forms that are understood.
    #[error(
        "{0:?} is no time: write it like 2023-05-20, 2023-05-20 02:21 or 2023-05-20T02:21:00Z, or as seconds \
         since 1970"
    )]
    Unreadable(String),
    /// A number that may be a year or a second of the first hours of 1970.
    #[error("{0} may be a year or a count of seconds: write a date, like {0:04}-01-01")]
    Ambiguous(i64),
    /// Outside the years 1 to 9999.
    #[error("{0} is outside the years 1 to 9999: check whether it is in seconds or milliseconds since 1970")]
    Range(String),
}

/// The first moment of the year 1, in milliseconds since the Unix epoch.
const MIN: i64 = -62_135_596_800_000;
/// The last moment that is 9999 in every time zone, in milliseconds since the Unix epoch.
const MAX: i64 = 253_402_207_200_999;
/// Numbers this large, either way, are milliseconds; smaller ones are seconds (this many are in the year
/// 5138).
const MILLISECONDS_FROM: i64 = 100_000_000_000;

impl Millis {
    /// Now, by the clock of the system.
    pub fn now() -> Self {
        Self(Timestamp::now().as_millisecond())
    }

    /// A moment in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// [`TimeError::Range`] outside the years 1 to 9999.
    pub fn from_ms(ms: i64) -> Result<Self, TimeError> {
        if (MIN..=MAX).contains(&ms) { Ok(Self(ms)) } else { Err(TimeError::Range(format!("{ms} ms"))) }
    }

    /// A moment given as seconds or milliseconds since the Unix epoch, whichever its size suggests.
    ///
    /// # Errors
    /// [`TimeError::Range`] outside the years 1 to 9999, [`TimeError::Ambiguous`] for what looks like a year.
    pub fn from_number(number: i64) -> Result<Self, TimeError> {
        if (1..=9999).contains(&number) {
            return Err(TimeError::Ambiguous(number));
        }
        if number.unsigned_abs() < MILLISECONDS_FROM.unsigned_abs() {
            Self::from_ms(number.saturating_mul(1000))
        } else {
            Self::from_ms(number)
        }
    }

    /// A moment as text: RFC 3339; a date, with or without a time, with hyphens or slashes and with or
    /// without a weekday in brackets (then in UTC); or seconds or milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// [`TimeError`] if it is none of these or outside the years 1 to 9999.
    pub fn parse(text: &str) -> Result<Self, TimeError> {
        let unreadable = || TimeError::Unreadable(text.chars().take(64).collect());
        let trimmed = text.trim();
        if trimmed.len() > 64 {
            return Err(unreadable());
        }
        if let Ok(number) = trimmed.parse::<i64>() {
            return Self::from_number(number);
        }
        if let Ok(stamp) = trimmed.parse::<Timestamp>() {
            return Self::from_ms(stamp.as_millisecond());
        }
        let plain: Vec<String> = trimmed
            .split_whitespace()
            .filter(|word| !(word.starts_with('(') && word.ends_with(')')))
            .map(|word| word.replace('/', "-"))
            .collect();
        let civil: civil::DateTime = plain.join(" ").parse().map_err(|_| unreadable())?;
        let zoned = civil.to_zoned(TimeZone::UTC).map_err(|_| TimeError::Range(trimmed.to_owned()))?;
        Self::from_ms(zoned.timestamp().as_millisecond())
    }
}

impl std::str::FromStr for Millis {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_millisecond(self.0) {
            Ok(stamp) => stamp.fmt(f),
            Err(_) => write!(f, "{} ms since 1970", self.0),
        }
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Lenient)
    }
}

/// Reads a moment from text or a number.
struct Lenient;

impl Visitor<'_> for Lenient {
    type Value = Millis;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time: a date, RFC 3339, or seconds since 1970")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Millis, E> {
        Millis::parse(text).map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Millis, E> {
        Millis::from_number(number).map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Millis, E> {
        let number = i64::try_from(number).map_err(|_| E::custom(TimeError::Range(number.to_string())))?;
        self.visit_i64(number)
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Millis, E> {
        if !number.is_finite() || number.abs() >= 1e15 {
            return Err(E::custom(TimeError::Range(number.to_string())));
        }
        let whole = number.trunc() as i64;
        let seconds = Millis::from_number(whole).map_err(E::custom)?;
        if whole.unsigned_abs() >= MILLISECONDS_FROM.unsigned_abs() {
            return Ok(seconds);
        }
        Millis::from_ms(seconds.0.saturating_add((number.fract() * 1000.0).round() as i64)).map_err(E::custom)
    }
}
