//! Amounts and shares: whole numbers, with the unit in the type.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

/// One million of whatever it is a part of.
pub const MILLION: u64 = 1_000_000;

/// An amount: a credit, the work of the reference machine in an hour, has 1,000,000 of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MicroCredits(pub u128);

/// A share of something, in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(pub u64);

/// Why an amount cannot be computed or moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoneyError {
    /// The sum does not fit into 128 bits.
    Overflow,
    /// More was to be taken than is there.
    Short,
    /// There is no such account.
    NoAccount(usize),
    /// What was granted less what was burnt is not what the accounts hold.
    NotConserved {
        /// What the accounts hold.
        held: MicroCredits,
        /// Granted less burnt.
        issued: MicroCredits,
    },
}

impl fmt::Display for MoneyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overflow => f.write_str("an amount exceeds 128 bits"),
            Self::Short => f.write_str("more was to be taken than is there"),
            Self::NoAccount(number) => write!(f, "there is no account {number}"),
            Self::NotConserved { held, issued } => {
                write!(f, "the accounts hold {held} credits, but {issued} were issued")
            }
        }
    }
}

impl std::error::Error for MoneyError {}

impl MicroCredits {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The sum.
    ///
    /// # Errors
    /// It does not fit.
    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        self.0.checked_add(other.0).map(Self).ok_or(MoneyError::Overflow)
    }

    /// The difference.
    ///
    /// # Errors
    /// It would be below nothing.
    pub fn checked_sub(self, other: Self) -> Result<Self, MoneyError> {
        self.0.checked_sub(other.0).map(Self).ok_or(MoneyError::Short)
    }

    /// So many times as much.
    ///
    /// # Errors
    /// It does not fit.
    pub fn times(self, count: u64) -> Result<Self, MoneyError> {
        self.0.checked_mul(u128::from(count)).map(Self).ok_or(MoneyError::Overflow)
    }

    /// A share of it, rounded down.
    ///
    /// # Errors
    /// The product does not fit.
    pub fn part(self, share: Share) -> Result<Self, MoneyError> {
        Ok(Self(self.times(share.0)?.0 / u128::from(MILLION)))
    }

    /// In credits, for pictures and means.
    pub fn credits(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

impl Share {
    /// From 0 to 1.
    pub fn unit(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

/// Millionths in a decimal number such as `12`, `0.05` or `.5`; at most six digits after the point.
fn millionths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if part.len() > 6 || !digits(whole) || !digits(part) || (whole.is_empty() && part.is_empty()) {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: u64 = format!("{part:0<6}").parse().ok()?;
    whole.checked_mul(MILLION)?.checked_add(part)
}

impl FromStr for MicroCredits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let amount = millionths(text).ok_or_else(|| format!("{text} is no number of credits such as 2.5"))?;
        Ok(Self(amount.into()))
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        millionths(text).map(Self).ok_or_else(|| format!("{text} is no share such as 0.05"))
    }
}

impl fmt::Display for MicroCredits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let million = u128::from(MILLION);
        write!(f, "{}.{:06}", self.0 / million, self.0 % million)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / MILLION, self.0 % MILLION)
    }
}

impl Serialize for MicroCredits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_they_are_written() {
        for text in ["0.000000", "1.250000", "340282366920.000001"] {
            assert_eq!(text.parse::<MicroCredits>().unwrap().to_string(), text);
        }
        assert_eq!("0.05".parse(), Ok(Share(50_000)));
        assert_eq!(".5".parse(), Ok(MicroCredits(500_000)));
        for text in ["", ".", "-1", "1e3", "1.0000001", "99999999999999999999"] {
            assert!(text.parse::<MicroCredits>().is_err(), "{text}");
        }
    }

    #[test]
    fn nothing_wraps() {
        assert_eq!(MicroCredits(u128::MAX).checked_add(MicroCredits(1)), Err(MoneyError::Overflow));
        assert_eq!(MicroCredits(u128::MAX).part(Share(2)), Err(MoneyError::Overflow));
        assert_eq!(MicroCredits(1).checked_sub(MicroCredits(2)), Err(MoneyError::Short));
        assert_eq!(MicroCredits(999).part(Share(1_000)), Ok(MicroCredits::ZERO));
    }
}
