//! A made-up corpus for the tests: secrets of every kind in many places, and harmless text that looks like
//! them.
//!
//! Everything is drawn from a seeded generator or put together from parts, so that no line here holds
//! anything that a scanner of this repository would take for a live secret.

pub(super) mod harmless;
pub(super) mod secrets;

/// Letters and digits.
pub(super) const ALNUM: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// The alphabet of base64.
pub(super) const BASE64: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// The alphabet of base64 in URLs.
pub(super) const URL64: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
/// Capitals and digits.
pub(super) const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
/// Small letters and digits.
pub(super) const LOWER: &str = "abcdefghijklmnopqrstuvwxyz0123456789";
/// Hexadecimal digits.
pub(super) const HEX: &str = "0123456789abcdef";
/// Digits.
pub(super) const DIGITS: &str = "0123456789";

/// One text of the corpus.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// What the text holds, or what it is like.
    pub(super) sort: &'static str,
    pub(super) text: String,
    /// What must not be left; `None` where nothing may be removed.
    pub(super) secret: Option<String>,
}

/// A small generator (SplitMix64), the same on every machine.
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 up to, not including, `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// `len` characters of an alphabet.
    pub(super) fn of(&mut self, alphabet: &str, len: usize) -> String {
        let bytes = alphabet.as_bytes();
        (0..len).map(|_| char::from(bytes[self.below(bytes.len())])).collect()
    }

    /// One of a list.
    pub(super) fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }

    /// A password as people and managers make them.
    pub(super) fn password(&mut self) -> String {
        const WORDS: [&str; 12] = [
            "Tiger", "copper", "Winter", "monkey", "Sunset", "dragon", "Berlin", "coffee", "rocket",
            "Summer", "banana", "Falcon",
        ];
        let (a, b) = (self.pick(&WORDS), self.pick(&WORDS));
        let number = self.of("23456789", 2);
        match self.below(6) {
            0 => format!("{a}{number}!"),
            1 => format!("{a}-{b}-{number}"),
            2 => format!("{}{number}", a.to_lowercase()),
            3 => format!("{}@{}", self.of(ALNUM, 6), number),
            4 => self.of(ALNUM, 10) + number.as_str() + "x",
            _ => format!("{}#{}{}", self.of(LOWER, 5), number, self.of(UPPER, 4)),
        }
    }

    /// Words that a wallet's list has.
    pub(super) fn wallet_words(&mut self, n: usize) -> String {
        const WORDS: [&str; 48] = [
            "abandon", "ability", "absorb", "acid", "actor", "badge", "balance", "bamboo", "cactus",
            "camera", "carbon", "castle", "daring", "debate", "decade", "eager", "eagle", "earth", "fabric",
            "faith", "fancy", "gadget", "garlic", "gentle", "habit", "hammer", "harbor", "icon", "idea",
            "ignore", "jacket", "jaguar", "jungle", "kangaroo", "kitchen", "ladder", "laptop", "magnet",
            "mango", "napkin", "narrow", "oak", "ocean", "paddle", "palm", "rabbit", "saddle", "tackle",
        ];
        (0..n).map(|_| self.pick(&WORDS)).collect::<Vec<_>>().join(" ")
    }

    /// A version 4 UUID.
    pub(super) fn uuid(&mut self) -> String {
        let [a, b, c, d] = [8, 4, 3, 3].map(|n| self.of(HEX, n));
        format!("{a}-{b}-4{c}-a{d}-{}", self.of(HEX, 12))
    }

    /// A number whose last digit makes the cards' check hold.
    pub(super) fn luhn(&mut self, lead: &str, len: usize) -> String {
        let head = format!("{lead}{}", self.of(DIGITS, len - 1 - lead.len()));
        let sum: u32 = head.bytes().rev().enumerate().fold(0, |sum, (at, byte)| {
            let n = u32::from(byte - b'0') * if at % 2 == 0 { 2 } else { 1 };
            sum + n / 10 + n % 10
        });
        format!("{head}{}", (10 - sum % 10) % 10)
    }
}
