//! Character classes for the pre-tokenizers: one byte of flags per character.

use std::sync::LazyLock;

use unicode_properties::{GeneralCategory as G, UnicodeGeneralCategory};

/// `\p{L}`.
pub(super) const LETTER: u8 = 1;
/// `\p{N}`.
pub(super) const NUMBER: u8 = 2;
/// `\p{P}`.
pub(super) const PUNCT: u8 = 4;
/// `\p{S}`.
pub(super) const SYMBOL: u8 = 8;
/// `\p{M}`.
pub(super) const MARK: u8 = 16;
/// `\s`.
pub(super) const SPACE: u8 = 32;
/// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`.
pub(super) const UPPER: u8 = 64;
/// `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`.
pub(super) const LOWER: u8 = 128;

/// Characters below this have their flags in a table; the rare ones above are looked up each time.
const TABLE_LEN: u32 = 0x2_0000;

static TABLE: LazyLock<Box<[u8]>> =
    LazyLock::new(|| (0..TABLE_LEN).map(|c| char::from_u32(c).map_or(0, compute)).collect());

fn compute(c: char) -> u8 {
    let flags = match c.general_category() {
        G::UppercaseLetter | G::TitlecaseLetter => LETTER | UPPER,
        G::LowercaseLetter => LETTER | LOWER,
        G::ModifierLetter | G::OtherLetter => LETTER | UPPER | LOWER,
        G::NonspacingMark | G::SpacingMark | G::EnclosingMark => MARK | UPPER | LOWER,
        G::DecimalNumber | G::LetterNumber | G::OtherNumber => NUMBER,
        G::ConnectorPunctuation
        | G::DashPunctuation
        | G::OpenPunctuation
        | G::ClosePunctuation
        | G::InitialPunctuation
        | G::FinalPunctuation
        | G::OtherPunctuation => PUNCT,
        G::MathSymbol | G::CurrencySymbol | G::ModifierSymbol | G::OtherSymbol => SYMBOL,
        _ => 0,
    };
    if c.is_whitespace() { flags | SPACE } else { flags }
}

/// A character of a [`Text`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Ch {
    /// The character.
    pub(super) c: char,
    /// The byte offset behind it.
    pub(super) end: usize,
    /// Its flags.
    pub(super) class: u8,
}

impl Ch {
    /// Whether any of the flags is set.
    pub(super) fn is(&self, flags: u8) -> bool {
        self.class & flags != 0
    }

    /// `[\r\n]`.
    pub(super) fn is_newline(&self) -> bool {
        matches!(self.c, '\r' | '\n')
    }
}

/// A fragment of text with the class table at hand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'a> {
    text: &'a str,
    table: &'static [u8],
}

impl<'a> Text<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, table: &TABLE }
    }

    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// The bytes `from..to`, which are character boundaries.
    pub(super) fn slice(&self, from: usize, to: usize) -> &'a str {
        self.text.get(from..to).unwrap_or_default()
    }

    pub(super) fn trim_end(&self) -> usize {
        self.text.trim_end().len()
    }

    /// The character that starts at `at`, if any.
    pub(super) fn at(&self, at: usize) -> Option<Ch> {
        let first = *self.text.as_bytes().get(at)?;
        if first < 0x80 {
            let class = self.table.get(usize::from(first)).copied().unwrap_or(0);
            return Some(Ch { c: char::from(first), end: at + 1, class });
        }
        let c = self.text.get(at..)?.chars().next()?;
        let class = self.table.get(c as usize).copied().unwrap_or_else(|| compute(c));
        Some(Ch { c, end: at + c.len_utf8(), class })
    }

    /// Where the run of characters that satisfy `wanted` ends.
    pub(super) fn run(&self, mut at: usize, wanted: impl Fn(&Ch) -> bool) -> usize {
        while let Some(ch) = self.at(at).filter(&wanted) {
            at = ch.end;
        }
        at
    }

    /// The same, but with at least one character.
    pub(super) fn run1(&self, at: usize, wanted: impl Fn(&Ch) -> bool) -> Option<usize> {
        Some(self.run(at, wanted)).filter(|&end| end > at)
    }
}
