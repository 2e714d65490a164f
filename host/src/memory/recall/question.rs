//! What a question asks for, apart from when it was asked.
//!
//! "Two weeks ago" is true when the question is asked and stands in no record: what happened then was told then, as
//! "today". So such phrases are cut out before the question is compared with texts, and sentences that tell of their
//! own day are favoured instead. Dates that are true at any time ("in March", "on 3 May 2023") stay.

use std::{borrow::Cow, sync::LazyLock};

use regex::{Match, Regex};

use crate::memory::marks::{self, pattern};

/// How much a span that asks something itself is marked down.
const ASKS: f32 = 0.06;
/// How much is favoured what tells of its own day, when the question counts back to that day.
const NOW: f32 = 0.2;
/// How much is favoured what says when something happened, when the question is about times.
const DATED: f32 = 0.05;
/// A question is cut down to no fewer words than this.
const LEAST: usize = 3;

/// A question as it is compared with texts.
#[derive(Debug)]
pub(in crate::memory) struct Question<'a> {
    /// Its text without what is only true when it is asked.
    pub(in crate::memory) text: Cow<'a, str>,
    /// It counts back from now: "two weeks ago".
    relative: bool,
    /// It is about when, how long or in which order.
    temporal: bool,
}

impl<'a> Question<'a> {
    pub(in crate::memory) fn of(query: &'a str) -> Self {
        let phrases: Vec<Match<'_>> =
            RELATIVE.find_iter(query).filter(|found| counts_from_now(query, found)).collect();
        let relative = !phrases.is_empty();
        let text = if relative { without(query, &phrases) } else { Cow::Borrowed(query) };
        Self { text, relative, temporal: TEMPORAL.is_match(query) }
    }

    /// How much nearer a span with these marks is to the question than its vector says.
    pub(super) fn favour(&self, marks: u8) -> f32 {
        let asks = if marks & marks::ASKS == 0 { 0.0 } else { ASKS };
        let told = match (self.relative, self.temporal) {
            (true, _) if marks & marks::NOW != 0 => NOW,
            (false, true) if marks & marks::DATED != 0 => DATED,
            _ => 0.0,
        };
        told - asks
    }
}

/// "The last day of the trip" is a day of the trip, whenever it is asked for.
fn counts_from_now(query: &str, found: &Match<'_>) -> bool {
    let mut after = query.get(found.end()..).unwrap_or_default().split_whitespace();
    !after.next().is_some_and(|word| word.eq_ignore_ascii_case("of"))
}

/// The question without these phrases, unless too little of it is left.
fn without<'a>(query: &'a str, phrases: &[Match<'_>]) -> Cow<'a, str> {
    let mut kept = String::with_capacity(query.len());
    let mut from = 0;
    for phrase in phrases {
        kept.push_str(query.get(from..phrase.start()).unwrap_or_default());
        kept.push(' ');
        from = phrase.end();
    }
    kept.push_str(query.get(from..).unwrap_or_default());
    let text = tidy(&kept);
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    if words.count() < LEAST { Cow::Borrowed(query) } else { Cow::Owned(text) }
}

/// Single blanks, none before a stop, and no comma at either end.
fn tidy(text: &str) -> String {
    let mut tidy = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !tidy.is_empty() && !word.starts_with(['?', '.', '!', ',']) {
            tidy.push(' ');
        }
        tidy.push_str(word);
    }
    tidy.trim_matches([' ', ',']).to_owned()
}

const WEEKDAY: &str = "(?:mon|tues|wednes|thurs|fri|satur|sun)day";
const MONTH: &str =
    "(?:january|february|march|april|may|june|july|august|september|october|november|december)";

/// Phrases that count back from now, with the preposition before and the possessive behind.
static RELATIVE: LazyLock<Regex> = LazyLock::new(|| {
    let number = r"(?:\d+|a|an|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|couple of|a couple of|few|a few|several)";
    let unit = "(?:day|week|weekend|month|year|hour|minute)s?";
    pattern(&format!(
        r"(?i)\s*\b(?:(?:about|around|exactly|over|during|within|in|on|from|since|for)\s+)?(?:the\s+)?(?:{number}\s+{unit}\s+(?:ago|back|earlier)|(?:last|past|previous)\s+(?:{number}\s+)?(?:{unit}|{WEEKDAY}|{MONTH}|night)|yesterday|today|tonight)\b(?:['’]s\b)?"
    ))
});

/// What questions about times have in them.
static TEMPORAL: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&format!(
        r"(?i)\b(?:ago|yesterday|last|past|when|how long|how many (?:days|weeks|months|years)|order|first|before|after|since|between|earliest|latest|most recent|recently|lately|on {WEEKDAY}|(?:in|on) {MONTH})\b"
    ))
});

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(query: &str) -> String {
        Question::of(query).text.into_owned()
    }

    #[test]
    fn the_patterns_compile() {
        for found in [&RELATIVE, &TEMPORAL] {
            assert_ne!(found.as_str(), marks::NOTHING.as_str());
        }
    }

    #[test]
    fn what_counts_back_from_now_is_cut() {
        for (query, left) in [
            ("What did I buy 10 days ago?", "What did I buy?"),
            ("What did I buy about two weeks ago?", "What did I buy?"),
            ("Two weeks ago, what did I buy?", "what did I buy?"),
            ("What was it that I bought a couple of months back?", "What was it that I bought?"),
            ("Which book did I finish a few days earlier?", "Which book did I finish?"),
            ("Who did I meet last Tuesday at the market?", "Who did I meet at the market?"),
            ("Who did I meet on the last weekend in Rome?", "Who did I meet in Rome?"),
            ("How often did I swim in the past three months?", "How often did I swim?"),
            ("How many books have I read over the LAST FEW WEEKS", "How many books have I read"),
            ("What did I cook last   night?", "What did I cook?"),
            ("Where did I go last March with Ann?", "Where did I go with Ann?"),
            (
                "What did I say yesterday about the boat, and today about the house?",
                "What did I say about the boat, and about the house?",
            ),
            ("Who came to yesterday's meeting with Ann?", "Who came to meeting with Ann?"),
            ("Who came to yesterday’s meeting with Ann?", "Who came to meeting with Ann?"),
            ("What did Zoë eat an hour ago?", "What did Zoë eat?"),
        ] {
            assert_eq!(cut(query), left, "{query}");
            assert!(Question::of(query).relative, "{query}");
        }
    }

    #[test]
    fn what_is_true_at_any_time_stays() {
        for query in [
            "What did I buy on 3 May 2023?",
            "What did I buy in March?",
            "Where was I in 2019?",
            "What happened on Friday?",
            "What did I decide recently?",
            "What is her last name?",
            "Who sat next to me on the train?",
            "What did I plan for next week?",
            "What did I do the second week ago?",
            "What did I do on the last day of the trip?",
            "What was in the last week of March?",
            "How many days a week do I swim?",
            "How long ago did I move?",
            "What happened years ago in the village?",
            "Did the last bus leave?",
            "What was my previous job?",
            "Which lastminute hotel did I book?",
            "Is the yesterdayish cake any good?",
            "What did we do at the lake that week?",
            "昨日何を買いましたか",
            "",
        ] {
            let question = Question::of(query);
            assert!(matches!(question.text, Cow::Borrowed(text) if text == query), "{query}");
            assert!(!question.relative, "{query}");
        }
    }

    #[test]
    fn little_that_is_left_is_no_question() {
        for query in ["What happened yesterday?", "last week", "And today?", "10 days ago"] {
            let question = Question::of(query);
            assert_eq!(question.text, query);
            assert!(question.relative, "it counts back all the same");
        }
        assert_eq!(cut("What was bought yesterday?"), "What was bought?");
    }

    #[test]
    fn sentences_are_favoured_for_what_is_asked() {
        let favour = |query: &str| {
            [0, marks::ASKS, marks::DATED, marks::NOW | marks::DATED, marks::ASKS | marks::DATED]
                .map(|marks| Question::of(query).favour(marks))
        };
        assert_eq!(favour("Which port has the database?"), [0.0, -ASKS, 0.0, 0.0, -ASKS]);
        assert_eq!(favour("When did I move?"), [0.0, -ASKS, DATED, DATED, DATED - ASKS]);
        assert_eq!(favour("What did I buy ten days ago?"), [0.0, -ASKS, 0.0, NOW, -ASKS]);
        for query in ["how long is it", "the ORDER of the trips", "what came first", "in March", "on Friday"]
        {
            assert!(Question::of(query).temporal, "{query}");
        }
        for query in ["orderly people", "the firstborn", "on fridays", "march on"] {
            assert!(!Question::of(query).temporal, "{query}");
        }
    }
}
