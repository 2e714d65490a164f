//! The figures of a suite: a table for people, JSON for everything else.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::{
    bootstrap::{deviation, p50_p95},
    metrics::{DEPTHS, Ranks, names},
    need::Need,
    scope::{Outcome, Scope, Summary, place},
};

/// What was measured, and how.
#[derive(Clone, Debug)]
pub struct Report {
    /// The suite and its data.
    pub suite: String,
    /// What a reader must know to compare: one sentence each.
    pub notes: Vec<String>,
    /// The model questions were embedded with; `None`: by words alone.
    pub embedder: Option<String>,
    /// The machine the harness ran on.
    pub machine: String,
    /// The version of the sources.
    pub version: String,
    /// The seed.
    pub seed: u64,
    /// Ways of counting, the first is the main one.
    pub summaries: Vec<Summary>,
    /// Every answer.
    pub outcomes: Vec<Outcome>,
}

/// The columns of the table by sort of question.
const COLUMNS: [&str; 7] = ["any@1", "any@5", "any@10", "all@10", "fraction@10", "ndcg@10", "mrr"];

impl Report {
    /// Counts outcomes in these ways.
    #[must_use]
    pub fn counted(mut self, scopes: &[Scope]) -> Self {
        self.summaries = scopes.iter().map(|&scope| Summary::new(scope, &self.outcomes, self.seed)).collect();
        self
    }

    /// The figure a need asks for.
    pub fn figure(&self, need: &Need) -> Option<f64> {
        let summary = match &need.of {
            None => self.summaries.first(),
            Some(name) => self.summaries.iter().find(|summary| summary.scope.name() == name),
        };
        summary?.score(&need.name).map(|estimate| estimate.value)
    }

    /// The table.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let by = self.embedder.as_deref().unwrap_or("words alone");
        let _ = writeln!(out, "# {}\n\nBy {by}; {}; Potluck {}.", self.suite, self.machine, self.version);
        for note in &self.notes {
            let _ = writeln!(out, "{note}");
        }
        let _ = writeln!(out);
        for summary in &self.summaries {
            let _ = writeln!(
                out,
                "- {}: n = {}; {}",
                summary.scope.name(),
                summary.questions,
                summary.scope.about()
            );
        }
        self.by_scope(&mut out);
        if let Some(summary) = self.summaries.first() {
            by_kind(&mut out, summary);
            by_seed(&mut out, summary);
        }
        let [http, took, embed] = self.times();
        let _ = writeln!(
            out,
            "\nA recall took {:.1} ms (p95 {:.1}) end to end, {:.1} ({:.1}) in the node, {:.1} ({:.1}) of that for \
             embedding the question.",
            http.0, http.1, took.0, took.1, embed.0, embed.1
        );
        out
    }

    fn by_scope(&self, out: &mut String) {
        let mut heads = vec!["score (95 % interval)".to_owned()];
        heads.extend(self.summaries.iter().map(|s| format!("{}, n = {}", s.scope.name(), s.questions)));
        let row = |name: String| {
            let cell = |summary: &Summary| {
                let estimate = summary.score(&name).unwrap_or_default();
                format!("{:.3} ({:.3}–{:.3})", estimate.value, estimate.low, estimate.high)
            };
            let cells: Vec<String> = self.summaries.iter().map(cell).collect();
            std::iter::once(name.clone()).chain(cells).collect()
        };
        table(out, &heads, &names().into_iter().map(row).collect::<Vec<_>>());
    }

    /// Median and 95th percentile: end to end, in the node, for embedding.
    fn times(&self) -> [(f64, f64); 3] {
        let of = |time: fn(&Outcome) -> f64| p50_p95(self.outcomes.iter().map(time).collect());
        [of(|o| o.http_ms), of(|o| o.took_ms), of(|o| o.embed_ms)]
    }

    /// Everything; with `details` each question's ranks too.
    pub fn json(&self, details: bool) -> Value {
        let [http, took, embed] = self.times().map(|(p50, p95)| json!({"p50": p50, "p95": p95}));
        let scopes: Map<String, Value> =
            self.summaries.iter().map(|s| (s.scope.name().to_owned(), summary_json(s))).collect();
        let mut all = json!({
            "suite": self.suite, "notes": self.notes, "embedder": self.embedder, "machine": self.machine,
            "version": self.version, "seed": self.seed, "depths": DEPTHS, "scopes": scopes,
            "recall_ms": {"http": http, "node": took, "embed": embed},
        });
        if let Some(fields) = all.as_object_mut().filter(|_| details) {
            fields.insert("questions".into(), self.outcomes.iter().map(outcome_json).collect());
        }
        all
    }
}

fn by_kind(out: &mut String, summary: &Summary) {
    let mut heads = vec![format!("sort of question ({})", summary.scope.name()), "n".to_owned()];
    heads.extend(COLUMNS.map(str::to_owned));
    let row = |(kind, (count, scores)): (&String, &(usize, Vec<f64>))| {
        let score = |name: &str| place(name).and_then(|at| scores.get(at)).copied().unwrap_or_default();
        let cells = COLUMNS.map(|name| format!("{:.3}", score(name)));
        [kind.clone(), count.to_string()].into_iter().chain(cells).collect()
    };
    table(out, &heads, &summary.kinds.iter().map(row).collect::<Vec<_>>());
}

fn by_seed(out: &mut String, summary: &Summary) {
    if summary.seeds.len() < 2 {
        return;
    }
    let spread = COLUMNS.map(|name| {
        let at = place(name).unwrap_or_default();
        let values: Vec<f64> = summary.seeds.values().filter_map(|scores| scores.get(at)).copied().collect();
        format!("{name} {:.4}", deviation(&values))
    });
    let _ = writeln!(out, "\nStandard deviation over {} seeds: {}.", summary.seeds.len(), spread.join(", "));
}

/// A Markdown table whose columns are aligned for reading as text.
pub fn table(out: &mut String, heads: &[String], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).chain(heads.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, &width)| format!(" {cell:<width$} "));
        format!("|{}|", padded.collect::<Vec<_>>().join("|"))
    };
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
    let _ = writeln!(out, "\n{}\n|{}|", line(heads), rule.join("|"));
    for row in rows {
        let _ = writeln!(out, "{}", line(row));
    }
}

fn named(scores: &[f64]) -> Value {
    names().into_iter().zip(scores).map(|(name, &score)| (name, json!(score))).collect::<Map<_, _>>().into()
}

fn summary_json(summary: &Summary) -> Value {
    let estimates = names().into_iter().zip(&summary.scores);
    let scores: Map<String, Value> =
        estimates.map(|(name, e)| (name, json!({"value": e.value, "low": e.low, "high": e.high}))).collect();
    let kinds: Map<String, Value> = summary
        .kinds
        .iter()
        .map(|(kind, (count, scores))| (kind.clone(), json!({"n": count, "scores": named(scores)})))
        .collect();
    let seeds: Map<String, Value> =
        summary.seeds.iter().map(|(seed, scores)| (seed.to_string(), named(scores))).collect();
    json!({"about": summary.scope.about(), "n": summary.questions, "answers": summary.answers, "scores": scores,
        "kinds": kinds, "seeds": seeds})
}

fn outcome_json(outcome: &Outcome) -> Value {
    let ranks = |ranks: &Ranks| json!({"gold": ranks.gold, "found": ranks.found});
    json!({"id": outcome.id, "kind": outcome.kind, "seed": outcome.seed, "abstention": outcome.abstention,
        "stated": ranks(&outcome.stated), "user": ranks(&outcome.gold), "http_ms": outcome.http_ms,
        "took_ms": outcome.took_ms, "embed_ms": outcome.embed_ms})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::scope::LONGMEMEVAL;

    fn report() -> Report {
        let outcome = |id: &str, seed, rank| Outcome {
            id: id.into(),
            kind: "multi".into(),
            seed,
            stated: Ranks { gold: 1, found: vec![rank] },
            gold: Ranks { gold: 1, found: vec![rank] },
            http_ms: 10.0,
            took_ms: 8.0,
            embed_ms: 6.0,
            ..Outcome::default()
        };
        Report {
            suite: "test".into(),
            notes: vec!["A note.".into()],
            embedder: None,
            machine: "a machine".into(),
            version: "v".into(),
            seed: 1,
            summaries: Vec::new(),
            outcomes: vec![outcome("a", 1, 1), outcome("a", 2, 1), outcome("b", 1, 7), outcome("b", 2, 7)],
        }
        .counted(&LONGMEMEVAL)
    }

    #[test]
    fn the_table_shows_all_scopes_side_by_side() {
        let text = report().text();
        assert!(text.contains("official, n = 2") && text.contains("all, n = 2"), "{text}");
        assert!(text.contains("words alone") && text.contains("A note.") && text.contains("multi"), "{text}");
        assert!(text.contains("| any@5 ") && text.contains("0.500 (0.000–1.000)"), "{text}");
        assert!(text.contains("over 2 seeds") && text.contains("10.0 ms (p95 10.0) end to end"), "{text}");
    }

    #[test]
    fn json_holds_everything_and_needs_find_it() {
        let report = report();
        let json = report.json(false);
        assert_eq!(json["scopes"]["official"]["scores"]["any@10"]["value"], 1.0);
        assert_eq!(json["scopes"]["all"]["kinds"]["multi"]["scores"]["any@5"], 0.5);
        assert_eq!(json["recall_ms"]["embed"]["p50"], 6.0);
        assert!(json.get("questions").is_none());
        assert_eq!(report.json(true)["questions"][2]["user"]["found"][0], 7);
        let figure = |text: &str| report.figure(&text.parse().unwrap());
        assert_eq!(
            (figure("any@5=0"), figure("all:any@10=0"), figure("x:any@1=0")),
            (Some(0.5), Some(1.0), None)
        );
    }
}
