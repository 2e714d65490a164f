//! A report as a picture: one row for each contestant, one column for each question, the same scale in each column.
//!
//! The SVG needs nothing else: no script, no font, no file beside it. It follows the reader's choice of light or dark.

mod frame;

use std::fmt::Write;

use super::{Outcome, Report, Spread};
use frame::{Frame, Scale};

const WIDTH: f64 = 1240.0;
const LEFT: f64 = 216.0;
const TOP: f64 = 96.0;
const ROW: f64 = 196.0;
const COLUMN: f64 = 254.0;
const PLOT: [f64; 2] = [206.0, 118.0];

const STYLE: &str = "\
svg{--paper:#fff;--ink:#1b1f24;--faint:#646d78;--grid:#dde1e6;--other:#a3abb5;--one:#0a6aa1;--two:#b4530a;background:var(--paper);\
font:12px system-ui,sans-serif}\
@media(prefers-color-scheme:dark){svg{--paper:#14171b;--ink:#e8eaed;--faint:#9aa4af;--grid:#2c323a;--other:#6d7681;--one:#62bff2;\
--two:#f0a35c}}\
text{fill:var(--ink)}.faint{fill:var(--faint);font-size:11px}.head{font-size:13px;font-weight:600}.title{font-size:17px;font-weight:600}\
.grid{stroke:var(--grid);fill:none}.one,.two,.other{fill:none;stroke-width:1.8;stroke-linejoin:round}.one{stroke:var(--one)}\
.two{stroke:var(--two)}.other{stroke:var(--other);stroke-width:1.2}.dash{stroke-dasharray:5 3}.end{text-anchor:end}.mid{text-anchor:middle}\
.o{fill:var(--one)}.t{fill:var(--two)}.paper{fill:var(--paper)}";

/// Draws a report. The first contestant is drawn in grey behind each of the others.
pub fn picture(report: &Report) -> String {
    let height = TOP + ROW * report.outcomes.len() as f64 + 34.0;
    let mut svg = String::new();
    begin(&mut svg, report, height);
    let scales = Scales::of(report);
    for (place, outcome) in report.outcomes.iter().enumerate() {
        let top = TOP + ROW * place as f64;
        words(&mut svg, report, outcome, top);
        let first = report.outcomes.first().filter(|_| place > 0);
        row(&mut svg, report, &scales, outcome, first, top);
    }
    let note = format!(
        "seed {}; each machine knows at most {} machines with a model; grey: {}",
        report.rules.seed,
        report.rules.candidates,
        report.outcomes.first().map_or("", |outcome| outcome.name.as_str())
    );
    text(&mut svg, "faint", 20.0, height - 12.0, &note);
    svg.push_str("</svg>\n");
    svg
}

fn begin(svg: &mut String, report: &Report, height: f64) {
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
         <title>Simulation of routing policies</title>\n<desc>{}</desc>\n<style>{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{WIDTH}\" height=\"{height}\"/>",
        escaped(&described(report))
    );
    text(svg, "title", 20.0, 30.0, "Who serves a job: routing policies compared");
    let pricing =
        report.pricing.as_ref().map_or("no prices".to_owned(), |[name, _]| format!("prices by {name}"));
    let what = format!(
        "{} jobs on {} machines with {} models in {:.0} minutes, {pricing}",
        report.jobs,
        report.machines,
        report.models,
        report.span_us as f64 / 6e7
    );
    text(svg, "faint", 20.0, 49.0, &what);
    let cost = if report.pricing.is_some() { "Price of a job" } else { "Work for a job" };
    for (column, head) in ["Latency", "Use of machines", cost, "Slowdown of askers"].iter().enumerate() {
        text(svg, "head", LEFT + COLUMN * column as f64, TOP - 14.0, head);
    }
    text(svg, "faint o", LEFT + 66.0, TOP - 14.0, "first token");
    text(svg, "faint t", LEFT + 130.0, TOP - 14.0, "whole answer");
}

/// The picture in a sentence for each contestant, for those who cannot see it.
fn described(report: &Report) -> String {
    let mut all = String::new();
    for it in &report.outcomes {
        let seconds = |micros: u64| micros as f64 / 1e6;
        let _ = write!(
            all,
            "{}: first token after {:.2} s for half and {:.2} s for 99 of a hundred jobs, whole answer {:.2} s and {:.2} s, \
             Gini of use {:.3}, Jain of askers {:.3}, {} jobs lost. ",
            it.name,
            seconds(it.first.p50),
            seconds(it.first.p99),
            seconds(it.whole.p50),
            seconds(it.whole.p99),
            it.load.gini,
            it.fairness.askers_jain,
            it.totals.lost()
        );
    }
    all.trim_end().to_owned()
}

/// The numbers beside the curves.
fn words(svg: &mut String, report: &Report, it: &Outcome, top: f64) {
    text(svg, "head", 20.0, top + 12.0, &it.name);
    let seconds = |spread: &Spread| {
        let [a, b, c] = [spread.p50, spread.p90, spread.p99].map(|micros| brief(micros as f64 / 1e6));
        format!("{a} / {b} / {c}")
    };
    let lines = [
        ("first, s", seconds(&it.first)),
        ("whole, s", seconds(&it.whole)),
        ("Gini, max/mean", format!("{:.3}, {:.1}", it.load.gini, it.load.max_over_mean)),
        ("cost, mean", format!("{} µcr", brief(report.cost(it).mean))),
        ("prefix reused", format!("{:.1} %", it.load.reused as f64 / 1e4)),
        ("Jain ask, give", format!("{:.3}, {:.3}", it.fairness.askers_jain, it.fairness.providers_jain)),
        (
            "lost, retried",
            format!("{}, {}", it.totals.lost(), it.totals.tries.saturating_sub(it.totals.jobs)),
        ),
    ];
    for (place, (name, value)) in lines.iter().enumerate() {
        let y = top + 32.0 + 16.0 * place as f64;
        text(svg, "faint", 20.0, y, name);
        text(svg, "end", LEFT - 28.0, y, value);
    }
}

/// One scale for each column.
struct Scales {
    latency: Scale,
    cost: Scale,
    slowdown: Scale,
}

impl Scales {
    fn of(report: &Report) -> Self {
        let all = |of: &dyn Fn(&Outcome) -> Vec<&Spread>, unit: f64| {
            let spreads: Vec<_> = report.outcomes.iter().flat_map(of).collect();
            let ends = spreads.iter().flat_map(|spread| [spread.curve.get(1), spread.curve.last()]);
            Scale::logarithmic(ends.flatten().map(|value| *value as f64 / unit))
        };
        Self {
            latency: all(&|it| vec![&it.first, &it.whole], 1e6),
            cost: all(&|it| vec![report.cost(it)], 1.0),
            slowdown: all(&|it| vec![&it.fairness.askers], 1e3),
        }
    }
}

fn row(svg: &mut String, report: &Report, scales: &Scales, it: &Outcome, first: Option<&Outcome>, top: f64) {
    let frame = |column: f64, scale: &Scale| Frame::new([LEFT + COLUMN * column, top], PLOT, scale.clone());
    let share = Scale::linear(100.0);
    let latency = frame(0.0, &scales.latency);
    latency.draw(svg, "seconds", "% of jobs");
    let used = frame(1.0, &share);
    used.draw(svg, "% of machines, the least used first", "% used");
    let cost = frame(2.0, &scales.cost);
    cost.draw(svg, "micro-credits", "% of jobs");
    let fair = frame(3.0, &scales.slowdown);
    fair.draw(svg, "times as long as alone, mean of an asker", "% of askers");
    let mut draw = |it: &Outcome, classes: [&str; 2]| {
        let [one, two] = classes;
        latency.distribution(svg, one, &it.first, 1e6);
        latency.distribution(svg, two, &it.whole, 1e6);
        used.profile(svg, one, &it.load.utilisation, 1e4);
        cost.distribution(svg, one, report.cost(it), 1.0);
        fair.distribution(svg, one, &it.fairness.askers, 1e3);
    };
    if let Some(first) = first {
        draw(first, ["other", "other dash"]);
    }
    draw(it, ["one", "two dash"]);
}

fn text(svg: &mut String, class: &str, x: f64, y: f64, words: &str) {
    let _ = writeln!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escaped(words));
}

fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A number in three digits or so.
fn brief(number: f64) -> String {
    match number {
        n if n < 10.0 => format!("{n:.2}"),
        n if n < 100.0 => format!("{n:.1}"),
        n if n < 100_000.0 => format!("{n:.0}"),
        n if n < 1e6 => format!("{:.0} k", n / 1e3),
        n => format!("{:.1} M", n / 1e6),
    }
}
