//! The walk over one text: anchors found by one automaton, each handed to the rule that knows it.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use regex::Regex;

use super::{SecretKind, assign, class, number, pem, phrase, service, token, value, web};

/// What a marker begins with; the kind's name and `]` follow.
pub(super) const MARKER: &str = "[redacted: ";

/// Most bytes that one look at one anchor may read; the longest tokens are shorter.
pub(super) const WINDOW: usize = 4096;

/// How sure a rule is of the kind it names; where finds overlap, the surest names the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// The form alone is proof.
    Form,
    /// The place says so: a header, a URL, a command.
    Place,
    /// A name in front says so.
    Name,
}

/// One secret: the bytes `start..end` of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) kind: SecretKind,
    pub(super) rank: Rank,
}

/// One text under examination and what was found in it.
#[derive(Debug)]
pub(super) struct Scan<'t> {
    pub(super) text: &'t str,
    pub(super) found: Vec<Found>,
    /// Bytes handed to rules; the tests hold it against the length of the text.
    pub(super) work: usize,
    /// Where the last name that was looked at began, so that `secret_access_key` is looked at once.
    pub(super) name_start: Option<usize>,
    /// The rule that read a token last, and how far it read.
    pub(super) token_seen: (usize, usize),
    markers: Vec<(usize, usize)>,
}

/// Whom an anchor wakes.
#[derive(Clone, Copy, Debug)]
enum Target {
    Token(usize),
    Place(usize),
    Name,
    Url,
    Pem,
    Phrase,
    Cookie,
    Marker,
}

/// The automaton and, for each of its patterns, whom it wakes.
struct Anchors {
    automaton: Option<AhoCorasick>,
    /// The anchor itself, where its case counts.
    targets: Vec<(Option<&'static str>, Target)>,
}

static ANCHORS: LazyLock<Anchors> = LazyLock::new(|| {
    let mut all: Vec<(&'static str, Target)> = Vec::new();
    all.push((MARKER, Target::Marker));
    all.push(("://", Target::Url));
    all.extend(token::anchors().map(|(anchor, rule)| (anchor, Target::Token(rule))));
    all.extend(service::anchors().map(|(anchor, rule)| (anchor, Target::Place(rule))));
    all.extend(class::NAMES.iter().map(|name| (*name, Target::Name)));
    all.extend(pem::ANCHORS.iter().map(|name| (*name, Target::Pem)));
    all.extend(phrase::ANCHORS.iter().map(|name| (*name, Target::Phrase)));
    all.extend(web::COOKIE_ANCHORS.iter().map(|name| (*name, Target::Cookie)));
    let automaton = AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .kind(Some(AhoCorasickKind::DFA))
        .build(all.iter().map(|(anchor, _)| *anchor));
    // A few hundred constant strings of a few bytes cannot fail to build; a test holds it to that.
    Anchors {
        automaton: automaton.ok(),
        targets: all.into_iter().map(|(anchor, target)| (exact(anchor, target), target)).collect(),
    }
});

/// The anchor if only its own case will do: a vendor's prefix has one case, a header's name has any.
fn exact(anchor: &'static str, target: Target) -> Option<&'static str> {
    match target {
        Target::Token(_) => Some(anchor),
        Target::Place(rule) if service::is_exact(rule) => Some(anchor),
        _ => None,
    }
}

/// Whether the automaton was built; for the test that the tables are sound.
#[cfg(test)]
pub(super) fn is_sound() -> bool {
    ANCHORS.automaton.is_some()
}

/// Compiles a constant pattern. One that is bad is skipped, and a test asserts that none is.
pub(super) fn compile(pattern: &str) -> Option<Regex> {
    Regex::new(pattern).ok()
}

/// Finds the secrets of a text: sorted, disjoint, never inside a marker.
pub(super) fn scan(text: &str) -> Scan<'_> {
    let mut scan = Scan {
        text,
        found: Vec::new(),
        work: text.len(),
        name_start: None,
        token_seen: (0, 0),
        markers: Vec::new(),
    };
    if let Some(automaton) = &ANCHORS.automaton {
        for hit in automaton.find_overlapping_iter(text) {
            let Some(target) = ANCHORS.targets.get(hit.pattern().as_usize()) else { continue };
            let (exact, target) = *target;
            if exact.is_none_or(|anchor| text.get(hit.range()) == Some(anchor)) {
                scan.wake(target, hit.start(), hit.end());
            }
        }
    }
    number::runs(&mut scan);
    scan.settle();
    scan
}

impl<'t> Scan<'t> {
    fn wake(&mut self, target: Target, start: usize, end: usize) {
        match target {
            Target::Token(rule) => token::at(self, rule, start),
            Target::Place(rule) => service::at(self, rule, start),
            Target::Name => assign::at(self, start, end),
            Target::Url => web::at_url(self, start, end),
            Target::Pem => pem::at(self, start),
            Target::Phrase => phrase::at(self, end),
            Target::Cookie => web::at_cookie(self, start),
            Target::Marker => self.mark(start, end),
        }
    }

    /// Notes a marker, if it names a kind that exists: a secret in false brackets is still a secret.
    fn mark(&mut self, start: usize, end: usize) {
        let rest = self.window(end, 40);
        let Some(close) = rest.find(']') else { return };
        let name = rest.get(..close).unwrap_or_default();
        let exact = self.text.get(start..end) == Some(MARKER);
        if exact && SecretKind::ALL.iter().any(|kind| kind.as_str() == name) {
            self.markers.push((start, end + close + 1));
        }
    }

    /// The text from `start`, at most `len` bytes of it, cut at a character's edge.
    pub(super) fn window(&mut self, start: usize, len: usize) -> &'t str {
        let end = self.text.floor_char_boundary(start.saturating_add(len));
        let window = self.text.get(start..end).unwrap_or_default();
        self.work = self.work.saturating_add(window.len());
        window
    }

    /// The text before `end`, at most `len` bytes of it, cut at a character's edge.
    pub(super) fn before(&mut self, end: usize, len: usize) -> &'t str {
        let start = self.text.ceil_char_boundary(end.saturating_sub(len));
        let window = self.text.get(start..end).unwrap_or_default();
        self.work = self.work.saturating_add(window.len());
        window
    }

    /// The byte at `at`.
    pub(super) fn byte(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    /// Whether a token may begin at `at`: no letter or digit stands before it, but for the end of an escape
    /// (`\n`, `%3D`, `\u0022`, a terminal's colour).
    pub(super) fn begins(&self, at: usize) -> bool {
        let Some(last) = at.checked_sub(1).and_then(|i| self.byte(i)) else { return true };
        if !last.is_ascii_alphanumeric() {
            return true;
        }
        let from = self.text.ceil_char_boundary(at.saturating_sub(8));
        value::ends_in_escape(self.text.get(from..at).unwrap_or_default())
    }

    /// Whether a token may end at `at`: no letter or digit follows.
    pub(super) fn ends(&self, at: usize) -> bool {
        !self.byte(at).is_some_and(|next| next.is_ascii_alphanumeric())
    }

    /// Notes a secret.
    pub(super) fn push(&mut self, start: usize, end: usize, kind: SecretKind, rank: Rank) {
        if start < end {
            self.found.push(Found { start, end, kind, rank });
        }
    }

    /// Sorts the finds, drops what lies in markers, and makes one of those that overlap.
    fn settle(&mut self) {
        let mut found = std::mem::take(&mut self.found);
        found.sort_by_key(|one| (one.start, std::cmp::Reverse(one.end)));
        self.markers.sort_unstable();
        let mut markers = self.markers.iter().peekable();
        let mut merged: Vec<Found> = Vec::with_capacity(found.len());
        for mut one in found {
            while markers.next_if(|(_, end)| *end <= one.start).is_some() {}
            match markers.peek() {
                Some((start, _)) if *start <= one.start => continue,
                Some((start, _)) if *start < one.end => one.end = *start,
                _ => {}
            }
            match merged.last_mut() {
                Some(last) if one.start < last.end => {
                    last.end = last.end.max(one.end);
                    if one.rank < last.rank {
                        (last.kind, last.rank) = (one.kind, one.rank);
                    }
                }
                _ => merged.push(one),
            }
        }
        // What is left of a find before a marker may be only quotes and spaces.
        merged.retain(|one| {
            self.text.get(one.start..one.end).is_some_and(|t| t.contains(|c: char| c.is_alphanumeric()))
        });
        self.found = merged;
    }
}
