//! The words that the chain's formats are made of: money, accounts, blocks, policies.

use core::{fmt, str::FromStr};

use parity_scale_codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

/// An ed25519 public key: the name of a machine, and its account on a chain.
pub type Account = [u8; 32];
/// The 32 bytes of a hash.
pub type Hash = [u8; 32];
/// The 64 bytes of an ed25519 signature.
pub type SignatureBytes = [u8; 64];

/// A pool's root key.
pub type Pool = [u8; 32];
/// The pool that a chain itself settles for.
pub const PUBLIC_POOL: Pool = [0; 32];

/// What a whole is counted as where a part of it is named.
pub const MILLION: u32 = 1_000_000;
const DECIMALS: usize = 6;

/// Money, in millionths of a credit. One credit is one hour of reference computing.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Encode,
    Decode,
    DecodeWithMemTracking,
    MaxEncodedLen,
    TypeInfo,
)]
pub struct MicroCredits(pub u128);

impl MicroCredits {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// One credit.
    pub const CREDIT: Self = Self(1_000_000);

    /// The sum, unless it is too large.
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The difference, unless `other` is more.
    #[must_use]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(difference) => Some(Self(difference)),
            None => None,
        }
    }

    /// So many times as much, unless it is too large.
    #[must_use]
    pub const fn checked_mul(self, times: u128) -> Option<Self> {
        match self.0.checked_mul(times) {
            Some(product) => Some(Self(product)),
            None => None,
        }
    }

    /// `parts` millionths of it, rounded down; `None` for more than the whole.
    #[must_use]
    pub fn checked_parts(self, parts: u32) -> Option<Self> {
        if parts > MILLION {
            return None;
        }
        // The whole millions and the rest apart, so that no product exceeds the sum itself.
        let (parts, million) = (u128::from(parts), u128::from(MILLION));
        let of_millions = self.0.checked_div(million)?.checked_mul(parts)?;
        let of_rest = self.0.checked_rem(million)?.checked_mul(parts)?.checked_div(million)?;
        of_millions.checked_add(of_rest).map(Self)
    }
}

impl fmt::Display for MicroCredits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / Self::CREDIT.0, self.0 % Self::CREDIT.0);
        write!(f, "{whole}.{rest:06}")
    }
}

/// Why a text is no sum of credits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseCredits {
    /// It is not digits, or digits, a point and digits.
    Malformed,
    /// It has more than six digits after the point.
    TooFine,
    /// It is more than can be counted.
    TooLarge,
}

impl fmt::Display for ParseCredits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "not a sum of credits: write it like 12 or 1.25",
            Self::TooFine => "credits have at most six digits after the point",
            Self::TooLarge => "more credits than can be counted",
        })
    }
}

impl core::error::Error for ParseCredits {}

impl FromStr for MicroCredits {
    type Err = ParseCredits;

    /// Reads `12` or `1.25`: credits, with at most six digits after the point.
    fn from_str(text: &str) -> Result<Self, ParseCredits> {
        let (whole, rest) = match text.split_once('.') {
            Some((whole, rest)) => (whole, Some(rest)),
            None => (text, None),
        };
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || rest.is_some_and(|rest| !digits(rest)) {
            return Err(ParseCredits::Malformed);
        }
        let rest = rest.unwrap_or("0");
        let fill = DECIMALS.checked_sub(rest.len()).ok_or(ParseCredits::TooFine)?;
        let number = |part: &str| part.parse::<u128>().map_err(|_| ParseCredits::TooLarge);
        let scale = (0..fill).fold(1_u128, |scale, _| scale.saturating_mul(10));
        let rest = number(rest)?.checked_mul(scale).ok_or(ParseCredits::TooLarge)?;
        let whole = Self(number(whole)?).checked_mul(Self::CREDIT.0).ok_or(ParseCredits::TooLarge)?;
        whole.checked_add(Self(rest)).ok_or(ParseCredits::TooLarge)
    }
}

/// The hash of a chain's first block: what is signed for one chain is worth nothing on another.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Encode,
    Decode,
    DecodeWithMemTracking,
    MaxEncodedLen,
    TypeInfo,
)]
pub struct Genesis(pub [u8; 32]);

/// The number of a block.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Encode,
    Decode,
    DecodeWithMemTracking,
    MaxEncodedLen,
    TypeInfo,
)]
pub struct Block(pub u32);

/// BLAKE3 of a policy component: the name that nodes give it.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Encode,
    Decode,
    DecodeWithMemTracking,
    MaxEncodedLen,
    TypeInfo,
)]
pub struct PolicyHash(pub [u8; 32]);

impl fmt::Display for PolicyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a policy component decides.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Encode,
    Decode,
    DecodeWithMemTracking,
    MaxEncodedLen,
    TypeInfo,
)]
pub enum PolicyKind {
    /// Which machine gets a job.
    #[codec(index = 0)]
    Routing,
    /// What a job costs.
    #[codec(index = 1)]
    Pricing,
    /// What a proven fault costs.
    #[codec(index = 2)]
    Slashing,
}

impl PolicyKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Routing, Self::Pricing, Self::Slashing];
}

/// What kind of pool a policy is for: 0 is the public one.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Encode,
    Decode,
    DecodeWithMemTracking,
    MaxEncodedLen,
    TypeInfo,
)]
pub struct PoolClass(pub u16);

impl PoolClass {
    /// The class of the public pool.
    pub const PUBLIC: Self = Self(0);
}
