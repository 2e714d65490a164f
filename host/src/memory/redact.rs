//! Secrets out of text: what is found is replaced by `[redacted: KIND]` and counted by kind.
//!
//! The same function runs before a record enters the log, again when it is recalled, and again on export,
//! so it is idempotent: a marker is never redacted a second time. It says which kinds it removed and how
//! many of each, never what they were.
//!
//! One automaton walks the text for *anchors* (the prefix of a vendor's token, a word such as "password",
//! `://`). Each anchor costs one look at a window of bounded size, so the whole is linear in the text.
//! Shapes that have no anchor (card numbers, IBANs, bot tokens) are found on the runs of characters they
//! are made of.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod assign;
mod class;
mod kind;
mod number;
mod pem;
mod phrase;
mod scan;
mod service;
mod token;
mod value;
mod web;
mod words;

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod tests;

pub use self::kind::SecretKind;

/// Passes over one text before it is taken as done.
///
/// A replacement may bring two pieces of text together that only then read as a secret. The second pass of
/// a text with secrets nearly always finds nothing; the limit keeps a crafted text from asking for more.
const PASSES: usize = 6;

/// How many secrets of one kind were removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redaction {
    /// What was removed.
    pub kind: SecretKind,
    /// How often.
    pub count: usize,
}

/// A text without its secrets, and what kinds were removed from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redacted<'a> {
    /// The text; borrowed where nothing was removed.
    pub text: Cow<'a, str>,
    /// The kinds removed, sorted by kind, one entry each.
    pub redactions: Vec<Redaction>,
}

/// Replaces every secret in `text` by `[redacted: KIND]`.
///
/// Text outside the secrets stays as it is, byte for byte. Time and memory are linear in the text.
pub fn redact(text: &str) -> Redacted<'_> {
    let mut counts = BTreeMap::<SecretKind, usize>::new();
    let mut out = Cow::Borrowed(text);
    for _ in 0..PASSES {
        let found = scan::scan(&out).found;
        if found.is_empty() {
            break;
        }
        for one in &found {
            let count = counts.entry(one.kind).or_default();
            *count = count.saturating_add(1);
        }
        out = Cow::Owned(replace(&out, &found));
    }
    let redactions = counts.into_iter().map(|(kind, count)| Redaction { kind, count }).collect();
    Redacted { text: out, redactions }
}

/// The text with each of the (sorted, disjoint) finds replaced by its marker.
fn replace(text: &str, found: &[scan::Found]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for one in found {
        out.push_str(text.get(from..one.start).unwrap_or_default());
        out.push_str(scan::MARKER);
        out.push_str(one.kind.as_str());
        out.push(']');
        from = one.end;
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out
}
