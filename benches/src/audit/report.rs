//! What limits tell apart, in numbers.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    cost::Cost,
    measure::{Cell, MARKS, Row},
    roc::{above, area, limit},
};

/// Honest answers that may be called false.
pub const ALARM: f64 = 0.001;
/// The clip of the product's limits among [`super::measure::CLIPS`].
pub const CLIP: usize = 2;

/// One kind of answer to one model, under audit.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The model.
    pub subject: String,
    /// The kind.
    pub kind: String,
    /// Answers.
    pub answers: usize,
    /// Their mean length in tokens.
    pub tokens: f64,
    /// Mean clipped margin in milli-logits, over all of them.
    pub margin: f64,
    /// Share of tokens that the verifier would not have drawn.
    pub differing: f64,
    /// Area under the curve of the mean margin at 300 tokens, against honest answers of other arithmetic.
    pub area: f64,
    /// The same of the least agreement of exponents.
    pub area_activations: f64,
    /// Share found by the mean margin alone at a limit that at most [`ALARM`] of the honest pass, at each of [`MARKS`].
    pub found: Vec<f64>,
    /// The same among greedy answers, and among drawn ones, at 300 tokens.
    pub by_draw: [Option<f64>; 2],
    /// The same by the least agreement of exponents.
    pub found_activations: Vec<f64>,
    /// Share that the product's limits for exact providers fail: accounts, forced, activations, any.
    pub exact: [f64; 4],
    /// The same by those for other arithmetic.
    pub float: [f64; 4],
}

/// Limits that honest answers give.
#[derive(Clone, Debug, Serialize)]
pub struct Calibration {
    /// The model.
    pub subject: String,
    /// Honest answers of other arithmetic.
    pub answers: usize,
    /// What they were made on.
    pub made: Vec<String>,
    /// Limit of the mean margin at each of [`MARKS`], in milli-logits.
    pub limits: Vec<f64>,
    /// Where the limit is set on every other answer: the share of the rest that passes it.
    pub held_out: f64,
    /// Largest margin of one token, in milli-logits.
    pub largest: f64,
    /// Largest margin of an end, in milli-logits.
    pub end: f64,
    /// Least agreement, largest mean and median of mantissas of any answer.
    pub activations: Option<[u32; 3]>,
    /// The same that at most [`ALARM`] of the answers pass, each on its own.
    pub activations_limits: Option<[f64; 3]>,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Limits by model.
    pub calibrations: Vec<Calibration>,
    /// Kinds of answers by model.
    pub lines: Vec<Line>,
    /// What an audit costs.
    pub costs: Vec<Cost>,
}

/// Mean margin at a mark in milli-logits.
pub fn mean(row: &Row, mark: usize, clip: usize) -> f64 {
    let sum = row.margins.get(mark).and_then(|m| m.get(clip)).copied().unwrap_or(0) as f64;
    let tokens = MARKS.get(mark).copied().unwrap_or(1).min(row.tokens).max(1);
    sum / 1000.0 / tokens as f64
}

/// How far exponents are from agreement, of 128; nothing where no commitment could be judged.
pub fn disagreement(row: &Row, mark: usize) -> f64 {
    row.activations.get(mark).copied().flatten().map_or(0.0, |it| 128.0 - f64::from(it[0]))
}

/// The honest answers of a model by which limits are set: those of other arithmetic where there are any.
pub fn baseline(cells: &[Cell], subject: &str) -> Vec<Row> {
    let of = |kinds: &[&str]| -> Vec<Row> {
        let fits = |cell: &&Cell| cell.subject == subject && kinds.contains(&cell.kind.as_str());
        cells.iter().filter(fits).flat_map(|cell| cell.rows.clone()).collect()
    };
    let other = of(&["honest-float", "honest-gpu"]);
    if other.is_empty() { of(&["honest"]) } else { other }
}

fn numbers(rows: &[Row], of: impl Fn(&Row) -> f64) -> Vec<f64> {
    rows.iter().map(of).collect()
}

fn share(rows: &[Row], of: impl Fn(&Row) -> bool) -> f64 {
    rows.iter().filter(|row| of(row)).count() as f64 / rows.len().max(1) as f64
}

fn verdicts(rows: &[Row], of: impl Fn(&Row) -> [bool; 3]) -> [f64; 4] {
    [
        share(rows, |row| of(row)[0]),
        share(rows, |row| of(row)[1]),
        share(rows, |row| of(row)[2]),
        share(rows, |row| of(row).contains(&true)),
    ]
}

fn line(cell: &Cell, honest: &[Row]) -> Line {
    let last = MARKS.len() - 1;
    let (rows, all) = (&cell.rows, MARKS.len());
    let total: usize = rows.iter().map(|row| row.tokens).sum();
    let sum: i64 = rows.iter().filter_map(|row| row.margins.get(last)?.get(CLIP)).sum();
    let differing: u64 = rows.iter().filter_map(|row| row.differing.get(last)).map(|d| u64::from(*d)).sum();
    let found = |rows: &[Row], of: &dyn Fn(&Row) -> f64| {
        above(&numbers(rows, of), limit(&numbers(honest, of), ALARM))
    };
    let some = |greedy: bool| {
        let part: Vec<Row> = rows.iter().filter(|row| (row.preset == 0) == greedy).cloned().collect();
        (!part.is_empty()).then(|| found(&part, &|row| mean(row, last, CLIP)))
    };
    Line {
        subject: cell.subject.clone(),
        kind: cell.kind.clone(),
        answers: rows.len(),
        tokens: total as f64 / rows.len().max(1) as f64,
        margin: sum as f64 / 1000.0 / total.max(1) as f64,
        differing: differing as f64 / total.max(1) as f64,
        area: area(&numbers(honest, |r| mean(r, last, CLIP)), &numbers(rows, |r| mean(r, last, CLIP))),
        area_activations: area(
            &numbers(honest, |r| disagreement(r, all)),
            &numbers(rows, |r| disagreement(r, all)),
        ),
        found: (0..all).map(|mark| found(rows, &|row| mean(row, mark, CLIP))).collect(),
        by_draw: [some(true), some(false)],
        found_activations: (0..=all).map(|mark| found(rows, &|row| disagreement(row, mark))).collect(),
        exact: verdicts(rows, |row| row.exact),
        float: verdicts(rows, |row| row.float),
    }
}

fn calibration(subject: &str, cells: &[Cell]) -> Calibration {
    let rows = baseline(cells, subject);
    let last = MARKS.len() - 1;
    let every = |odd: usize| -> Vec<f64> {
        rows.iter().skip(odd).step_by(2).map(|row| mean(row, last, CLIP)).collect()
    };
    let worst = |row: &Row| row.activations.last().copied().flatten();
    let most = |of: &dyn Fn([u32; 3]) -> u32| rows.iter().filter_map(worst).map(of).max();
    let within = |of: &dyn Fn([u32; 3]) -> f64| {
        limit(&rows.iter().filter_map(worst).map(of).collect::<Vec<_>>(), ALARM)
    };
    let largest = |of: &dyn Fn(&Row) -> Option<i64>| {
        rows.iter().filter_map(of).filter(|m| *m < i64::MAX).max().unwrap_or(0) as f64 / 1000.0
    };
    let made = |cell: &&Cell| cell.subject == subject && cell.kind.starts_with("honest");
    Calibration {
        subject: subject.to_owned(),
        answers: rows.len(),
        made: cells.iter().filter(made).flat_map(|cell| cell.made.clone()).collect(),
        limits: (0..MARKS.len()).map(|mark| limit(&numbers(&rows, |r| mean(r, mark, CLIP)), ALARM)).collect(),
        held_out: above(&every(1), limit(&every(0), ALARM)),
        largest: largest(&|row| Some(row.largest)),
        end: largest(&|row| row.end),
        activations: most(&|it| 128 - it[0])
            .zip(most(&|it| it[1]))
            .zip(most(&|it| it[2]))
            .map(|((apart, mantissa), median)| [128 - apart, mantissa, median]),
        activations_limits: rows.iter().any(|row| worst(row).is_some()).then(|| {
            [
                128.0 - within(&|it| 128.0 - f64::from(it[0])),
                within(&|it| it[1].into()),
                within(&|it| it[2].into()),
            ]
        }),
    }
}

impl Report {
    /// Of these cells.
    pub fn make(cells: &[Cell], costs: Vec<Cost>) -> Self {
        let subjects: BTreeMap<&str, ()> = cells.iter().map(|cell| (cell.subject.as_str(), ())).collect();
        Self {
            calibrations: subjects.keys().map(|subject| calibration(subject, cells)).collect(),
            lines: cells.iter().map(|cell| line(cell, &baseline(cells, &cell.subject))).collect(),
            costs,
        }
    }

    /// Tables in Markdown.
    pub fn text(&self) -> String {
        use std::fmt::Write as _;
        let percent = |x: f64| format!("{:.1}", 100.0 * x);
        let mut out = String::new();
        out.push_str("| model | honest, other arithmetic | limit at 32 | 100 | 300 tokens | held out | largest margin | of an end | least agreement | mantissas |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n");
        for it in &self.calibrations {
            let at = |mark: usize| it.limits.get(mark).copied().unwrap_or(0.0);
            let [agreement, mantissa, median] = it.activations.unwrap_or_default();
            let _ = writeln!(
                out,
                "| {} | {} | {:.2} | {:.2} | {:.2} | {} % | {:.0} | {:.0} | {agreement}/128 | {:.1}, {median} |",
                it.subject,
                it.answers,
                at(2),
                at(4),
                at(7),
                percent(it.held_out),
                it.largest,
                it.end,
                f64::from(mantissa) / 1000.0
            );
        }
        for subject in &self.calibrations {
            let _ = writeln!(out, "\n{}: {}.\n", subject.subject, subject.made.join("; "));
            out.push_str("| answers | n | tokens | margin, m-logits | other tokens | AUC | found at 32 | 100 | 300 | greedy | drawn | AUC states | found by states | exact | float |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n");
            for it in self.lines.iter().filter(|line| line.subject == subject.subject) {
                let at = |mark: usize| percent(it.found.get(mark).copied().unwrap_or(0.0));
                let [greedy, drawn] = it.by_draw.map(|x| x.map_or("–".into(), percent));
                let _ = writeln!(
                    out,
                    "| {} | {} | {:.0} | {:.2} | {} % | {:.4} | {} | {} | {} | {greedy} | {drawn} | {:.4} | {} | {} | {} |",
                    it.kind,
                    it.answers,
                    it.tokens,
                    it.margin,
                    percent(it.differing),
                    it.area,
                    at(2),
                    at(4),
                    at(7),
                    it.area_activations,
                    percent(it.found_activations.last().copied().unwrap_or(0.0)),
                    percent(it.exact[3]),
                    percent(it.float[3])
                );
            }
        }
        for it in &self.costs {
            out.push_str(&it.text());
        }
        out
    }
}
