//! Times that a question names: "two weeks ago", "last Tuesday", "in March", "on 3 May 2023".
//!
//! They are a hint, never a filter: people remember dates badly, and a record may tell of a day without having been
//! written on it. [`mentioned`] gives the spans, [`closeness`] says how near a moment lies to the nearest of them.

use jiff::{
    Span as Distance, Timestamp,
    civil::{Date, Weekday, date},
    tz::TimeZone,
};

use crate::memory::record::Millis;

const DAY: i64 = 86_400_000;

/// A stretch of time, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::memory) struct Span {
    /// Its first moment.
    pub from: i64,
    /// The moment after its last.
    pub to: i64,
    /// How vague it is: a moment this far outside is still half as near as one inside.
    pub slack: i64,
}

/// The times a question names, seen from `now`; most questions name none.
pub(in crate::memory) fn mentioned(question: &str, now: Millis) -> Vec<Span> {
    let Ok(moment) = Timestamp::from_millisecond(now.0) else { return Vec::new() };
    let today = moment.to_zoned(TimeZone::UTC).date();
    let lower = question.to_lowercase();
    let words: Vec<&str> = lower
        .split(|c: char| !c.is_alphanumeric() && c != '-' && c != '/')
        .filter(|word| !word.is_empty())
        .collect();
    let mut spans = Vec::new();
    let mut rest = words.as_slice();
    while let Some((_, next)) = rest.split_first() {
        match read(rest, today) {
            Some((span, used)) => {
                spans.push(span);
                rest = rest.get(used.max(1)..).unwrap_or_default();
            }
            None => rest = next,
        }
    }
    spans
}

/// How near a moment lies to the nearest span: 1 within, a half at the span's slack, then towards 0.
pub(in crate::memory) fn closeness(spans: &[Span], at: Millis) -> f32 {
    spans.iter().map(|span| near(span, at.0)).fold(0.0, f32::max)
}

fn near(span: &Span, at: i64) -> f32 {
    let outside = if at < span.from { span.from - at } else { (at - span.to + 1).max(0) };
    (-(outside as f32) / span.slack.max(1) as f32).exp2()
}

/// A time at the start of the words, and how many words it takes.
fn read(words: &[&str], today: Date) -> Option<(Span, usize)> {
    relative(words, today)
        .or_else(|| ago(words, today))
        .or_else(|| calendar(words, today))
        .or_else(|| weekday(words, today))
        .or_else(|| season(words, today))
}

/// "yesterday", "last week", "this month", "past few months".
fn relative(words: &[&str], today: Date) -> Option<(Span, usize)> {
    let word = *words.first()?;
    match word {
        "yesterday" => return days(today, 1, 1, DAY).map(|span| (span, 1)),
        "today" | "tonight" => return days(today, 0, 1, DAY / 2).map(|span| (span, 1)),
        _ => {}
    }
    if !matches!(word, "last" | "past" | "previous" | "this" | "recent") {
        return None;
    }
    let (count, unit, used) = match (words.get(1), words.get(2)) {
        (Some(count), Some(unit)) if number(count).is_some() && Unit::of(unit).is_some() => {
            (number(count)?, Unit::of(unit)?, 3)
        }
        (Some(unit), _) => (1, Unit::of(unit)?, 2),
        _ => return None,
    };
    let length = unit.days() * count;
    // "Last week" is the seven days before these as often as the seven days before today.
    let back = if used == 2 && word != "this" && word != "past" { length * 2 } else { length };
    let span = if word == "this" {
        days(today, length, length + 1, DAY)?
    } else {
        days(today, back, back, length * DAY / 4)?
    };
    Some((span, used))
}

/// "two weeks ago", "a month ago", "10 days ago", "a couple of days before".
fn ago(words: &[&str], today: Date) -> Option<(Span, usize)> {
    let count = number(words.first()?)?;
    let mut at = 1;
    while words.get(at) == Some(&"of") {
        at += 1;
    }
    let unit = Unit::of(words.get(at)?)?;
    if !matches!(*words.get(at + 1)?, "ago" | "back" | "earlier") {
        return None;
    }
    let back = unit.days().checked_mul(count)?;
    let width = unit.days();
    let slack = (back * DAY / 8).max(width * DAY / 2).max(DAY);
    Some((days(today, back.checked_add(width / 2)?, width.max(1), slack)?, at + 2))
}

/// "in march", "on 3 may 2023", "march 3rd", "2023-05-03", "in 2022".
fn calendar(words: &[&str], today: Date) -> Option<(Span, usize)> {
    let word = *words.first()?;
    if let Some(day) = written_date(word) {
        return Some((between(day, day.tomorrow().ok()?, DAY)?, 1));
    }
    let (day, month, used) = match (day_number(word), month(word)) {
        (_, Some(month)) => {
            let day = words.get(1).copied().and_then(day_number);
            (day, month, if day.is_some() { 2 } else { 1 })
        }
        (Some(day), None) => {
            let of = usize::from(words.get(1) == Some(&"of"));
            (Some(day), month(words.get(1 + of)?)?, 2 + of)
        }
        _ => return None,
    };
    // "May" and "March" are words of their own too.
    if matches!(word, "may" | "march") && used == 1 && words.get(1).copied().and_then(year).is_none() {
        return None;
    }
    let (year, used) = match words.get(used).copied().and_then(year) {
        Some(year) => (year, used + 1),
        None => (latest(day.unwrap_or(1), month, today), used),
    };
    let first = date_of(year, month, day.unwrap_or(1))?;
    match day {
        Some(_) => Some((between(first, first.tomorrow().ok()?, DAY)?, used)),
        None => Some((between(first, first.checked_add(Distance::new().months(1)).ok()?, 7 * DAY)?, used)),
    }
}

/// "in may": the month needs its preposition; "in 2022"; "last march".
fn preposition(words: &[&str], today: Date) -> Option<(Span, usize)> {
    if !matches!(*words.first()?, "in" | "during" | "since" | "last" | "this" | "early" | "late" | "mid") {
        return None;
    }
    let word = *words.get(1)?;
    if let Some(year) = year(word) {
        let first = date_of(year, 1, 1)?;
        return Some((between(first, date_of(year + 1, 1, 1)?, 30 * DAY)?, 2));
    }
    let month = month(word)?;
    let (year, used) = match words.get(2).copied().and_then(year) {
        Some(year) => (year, 3),
        None => (latest(1, month, today), 2),
    };
    let first = date_of(year, month, 1)?;
    Some((between(first, first.checked_add(Distance::new().months(1)).ok()?, 7 * DAY)?, used))
}

/// "last tuesday", "on friday".
fn weekday(words: &[&str], today: Date) -> Option<(Span, usize)> {
    if let Some(found) = preposition(words, today) {
        return Some(found);
    }
    if !matches!(*words.first()?, "last" | "on" | "this" | "past") {
        return None;
    }
    let wanted = match *words.get(1)? {
        "monday" => Weekday::Monday,
        "tuesday" => Weekday::Tuesday,
        "wednesday" => Weekday::Wednesday,
        "thursday" => Weekday::Thursday,
        "friday" => Weekday::Friday,
        "saturday" => Weekday::Saturday,
        "sunday" => Weekday::Sunday,
        "weekend" => {
            let saturday = today.nth_weekday(-1, Weekday::Saturday).ok()?;
            return Some((between(saturday, saturday.checked_add(Distance::new().days(2)).ok()?, DAY)?, 2));
        }
        _ => return None,
    };
    let day = today.nth_weekday(-1, wanted).ok()?;
    Some((between(day, day.tomorrow().ok()?, DAY)?, 2))
}

/// "last summer", "in the winter".
fn season(words: &[&str], today: Date) -> Option<(Span, usize)> {
    if !matches!(*words.first()?, "last" | "this" | "the" | "in" | "during" | "over") {
        return None;
    }
    let month = match *words.get(1)? {
        "spring" => 3,
        "summer" => 6,
        "autumn" | "fall" => 9,
        "winter" => 12,
        _ => return None,
    };
    let first = date_of(latest(1, month, today), month, 1)?;
    Some((between(first, first.checked_add(Distance::new().months(3)).ok()?, 14 * DAY)?, 2))
}

#[derive(Clone, Copy)]
enum Unit {
    Day,
    Week,
    Month,
    Year,
}

impl Unit {
    fn of(word: &str) -> Option<Self> {
        match word {
            "day" | "days" => Some(Self::Day),
            "week" | "weeks" => Some(Self::Week),
            "month" | "months" => Some(Self::Month),
            "year" | "years" => Some(Self::Year),
            _ => None,
        }
    }

    const fn days(self) -> i64 {
        match self {
            Self::Day => 1,
            Self::Week => 7,
            Self::Month => 30,
            Self::Year => 365,
        }
    }
}

fn number(word: &str) -> Option<i64> {
    const WORDS: [&str; 13] = [
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
        "twelve",
    ];
    match word {
        "a" | "an" => Some(1),
        "couple" => Some(2),
        "few" | "several" => Some(3),
        _ => WORDS
            .iter()
            .position(|name| *name == word)
            .and_then(|at| i64::try_from(at).ok())
            .or_else(|| word.parse().ok().filter(|count| (0..=1000).contains(count))),
    }
}

fn month(word: &str) -> Option<i8> {
    const NAMES: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let found = NAMES.iter().position(|name| {
        *name == word || word.len() == 3 && name.starts_with(word) || word == "sept" && *name == "september"
    })?;
    i8::try_from(found + 1).ok()
}

fn year(word: &str) -> Option<i16> {
    word.parse().ok().filter(|year| (1900..=2199).contains(year))
}

fn day_number(word: &str) -> Option<i8> {
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = word.get(digits.len()..)?;
    if !matches!(suffix, "" | "st" | "nd" | "rd" | "th") {
        return None;
    }
    digits.parse().ok().filter(|day| (1..=31).contains(day))
}

fn written_date(word: &str) -> Option<Date> {
    let mut parts = word.split(['-', '/']);
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if year.len() != 4 || parts.next().is_some() {
        return None;
    }
    date_of(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?)
}

/// The latest year in which this day is not in the future.
fn latest(day: i8, month: i8, today: Date) -> i16 {
    if (month, day) > (today.month(), today.day()) { today.year() - 1 } else { today.year() }
}

fn date_of(year: i16, month: i8, day: i8) -> Option<Date> {
    Date::new(year, month, day).ok()
}

fn between(from: Date, to: Date, slack: i64) -> Option<Span> {
    let epoch = date(1970, 1, 1);
    let ms = |day: Date| -> Option<i64> { Some(i64::from(epoch.until(day).ok()?.get_days()) * DAY) };
    Some(Span { from: ms(from)?, to: ms(to)?, slack })
}

/// `length` days that begin `back` days before today.
fn days(today: Date, back: i64, length: i64, slack: i64) -> Option<Span> {
    let from = today.checked_sub(Distance::new().try_days(back).ok()?).ok()?;
    between(from, from.checked_add(Distance::new().try_days(length).ok()?).ok()?, slack)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Wednesday.
    fn now() -> Millis {
        Millis::parse("2023-05-17 12:00").unwrap()
    }

    fn spans(question: &str) -> Vec<(String, String)> {
        let day = |ms: i64| Timestamp::from_millisecond(ms).unwrap().to_string()[..10].to_owned();
        mentioned(question, now()).iter().map(|span| (day(span.from), day(span.to - 1))).collect()
    }

    fn one(question: &str, from: &str, to: &str) {
        assert_eq!(spans(question), [(from.to_owned(), to.to_owned())], "{question}");
    }

    #[test]
    fn times_are_found() {
        one("What did I buy yesterday?", "2023-05-16", "2023-05-16");
        one("what did I do two weeks ago", "2023-04-30", "2023-05-06");
        one("a couple of days ago we met", "2023-05-15", "2023-05-15");
        one("Which book did I start last week?", "2023-05-03", "2023-05-16");
        one("in the past two months", "2023-03-18", "2023-05-16");
        one("What happened in March?", "2023-03-01", "2023-03-31");
        one("what happened in June", "2022-06-01", "2022-06-30");
        one("the meeting on May 3rd", "2023-05-03", "2023-05-03");
        one("the meeting on 3rd of November 2021", "2021-11-03", "2021-11-03");
        one("trips in 2019", "2019-01-01", "2019-12-31");
        one("who called last Tuesday", "2023-05-16", "2023-05-16");
        one("since 2023-01-31", "2023-01-31", "2023-01-31");
        one("what did I do last summer", "2022-06-01", "2022-08-31");
    }

    #[test]
    fn other_words_are_not_times() {
        for question in [
            "May I march on?",
            "what is the best week plan",
            "how many days a week do I swim",
            "",
            "a few good men",
            "version 2.0",
            "room 101",
            "one day at a time",
            "I can't fall asleep",
            "the 31st of foo",
            "99999999999 years ago",
        ] {
            assert_eq!(spans(question), [], "{question}");
        }
    }

    #[test]
    fn closeness_falls_with_distance() {
        let spans = mentioned("two weeks ago", now());
        let at = |text: &str| closeness(&spans, Millis::parse(text).unwrap());
        assert!((at("2023-05-03") - 1.0).abs() < 1e-6);
        assert!(at("2023-05-09") > at("2023-05-16") && at("2023-05-16") > at("2022-05-16"));
        assert!(at("2022-05-16") < 0.001);
        assert!((closeness(&[], now())).abs() < 1e-6);
    }
}
