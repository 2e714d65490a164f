//! `potluck pool ledger`

use std::{cmp::Reverse, collections::BTreeMap};

use clap::Args;
use serde_json::{Value, json};

use super::{
    super::{CliError, client::Client, output, print, print_line},
    list, text,
};

/// Microseconds of an hour.
const HOUR: f64 = 3.6e9;

/// Show who gave and who took how many compute hours, by month and model; nothing is owed for it.
#[derive(Args, Debug)]
pub(super) struct Ledger {
    /// Only with this member.
    #[arg(long, value_name = "MEMBER")]
    member: Option<String>,
    /// Give --member at most so many compute hours a month; 0 takes the limit away.
    #[arg(long, value_name = "HOURS", requires = "member")]
    limit: Option<u32>,
}

impl Ledger {
    pub(super) async fn run(self, client: &Client, json: bool) -> Result<(), CliError> {
        if let (Some(member), Some(hours)) = (&self.member, self.limit) {
            let body = json!({"id": member, "hours": hours});
            let done = client.post("/potluck/v1/pool/limit", &body).await?;
            let words = format!("{member} is given at most {hours} compute hours a month");
            return print_line(&if json { done.to_string() } else { words });
        }
        let answer = client.get("/potluck/v1/pool/ledger").await?;
        if json {
            return print_line(&answer.to_string());
        }
        let kept = list(&answer, "entries")
            .iter()
            .filter(|entry| self.member.as_deref().is_none_or(|member| named(entry, member)));
        let rows = rows(kept);
        if rows.is_empty() {
            return print_line("nothing was given or taken yet");
        }
        print(&output::table(["MONTH", "MEMBER", "MODEL", "JOBS", "GAVE", "TOOK", "TOKENS"], &rows))
    }
}

fn named(entry: &Value, member: &str) -> bool {
    text(entry, "name") == member || text(entry, "node").starts_with(member)
}

/// What was given and taken in a month.
#[derive(Default)]
struct Line {
    jobs: u64,
    given: u64,
    taken: u64,
    tokens: u64,
}

/// A line for each month, member and model, the latest month first.
fn rows<'a>(entries: impl Iterator<Item = &'a Value>) -> Vec<[String; 7]> {
    let mut lines: BTreeMap<(Reverse<String>, String, String), Line> = BTreeMap::new();
    for entry in entries {
        let number = |field: &str| entry.get(field).and_then(Value::as_u64).unwrap_or_default();
        let word = |field: &str| text(entry, field).to_owned();
        let line = lines.entry((Reverse(word("month")), word("name"), word("model"))).or_default();
        let way = if text(entry, "direction") == "given" { &mut line.given } else { &mut line.taken };
        *way = way.saturating_add(number("compute_micros"));
        line.jobs = line.jobs.saturating_add(number("jobs"));
        line.tokens =
            line.tokens.saturating_add(number("prompt_tokens")).saturating_add(number("completion_tokens"));
    }
    let hours = |micros: u64| format!("{:.4} h", micros as f64 / HOUR);
    lines
        .into_iter()
        .map(|((Reverse(month), name, model), line)| {
            let Line { jobs, given, taken, tokens } = line;
            [month, name, model, jobs.to_string(), hours(given), hours(taken), tokens.to_string()]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_are_one_line() {
        let entries = [
            json!({"month": "2026-11", "name": "bert", "model": "m", "direction": "given", "jobs": 1,
                "compute_micros": 3_600_000_000_u64, "prompt_tokens": 2, "completion_tokens": 3}),
            json!({"month": "2026-11", "name": "bert", "model": "m", "direction": "taken", "jobs": 2,
                "compute_micros": 1_800_000_000, "prompt_tokens": 1, "completion_tokens": 1}),
            json!({"month": "2026-12", "name": "bert", "model": "m", "direction": "taken"}),
        ];
        let rows = rows(entries.iter());
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1], ["2026-11", "bert", "m", "3", "1.0000 h", "0.5000 h", "7"]);
    }
}
