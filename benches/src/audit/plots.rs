//! Pictures of the document.

use crate::incentives::chart::{Picture, Scale};

use super::{
    measure::{Cell, MARKS},
    report::{ALARM, CLIP, Report, baseline, disagreement, mean},
    roc::curve,
};

/// A number of an answer.
type Of<'a> = &'a dyn Fn(&super::measure::Row) -> f64;

/// Kinds that the curves show, with their colours.
const SHOWN: [(&str, &str); 5] = [
    ("a", "q4_0"),
    ("b", "ffn-pruned"),
    ("c", "prompt-one-token"),
    ("d", "temperature-5"),
    ("e", "temperature-25"),
];

/// All pictures with the names of their files.
pub fn all(cells: &[Cell], report: &Report) -> Vec<(String, String)> {
    let mut pictures = Vec::new();
    for it in &report.calibrations {
        pictures.push((format!("roc-{}.svg", it.subject), roc(cells, &it.subject)));
        pictures.push((format!("length-{}.svg", it.subject), length(report, &it.subject)));
    }
    pictures
}

/// Share of cheats found over share of honest answers called false.
fn roc(cells: &[Cell], subject: &str) -> String {
    let mut picture = Picture::new(
        2,
        "Honest answers called false, and cheats found",
        "For every limit on the mean margin, and on the least agreement of hidden states: the share of cheats found over \
         the share of honest answers called false, for five kinds of cheats.",
    );
    let honest = baseline(cells, subject);
    let last = MARKS.len() - 1;
    let across = ("% of honest answers called false", Scale::logarithmic(0.01, 100.0));
    let up = ("% of cheats found", Scale::linear(0.0, 100.0));
    let marks: [(&str, Of<'_>); 2] = [
        ("Margins, up to 300 tokens", &|row| mean(row, last, CLIP)),
        ("Hidden states", &|row| disagreement(row, MARKS.len())),
    ];
    for (column, (head, of)) in (0u32..).zip(marks) {
        let frame = picture.frame(column, &format!("{head}: {subject}"), across, up);
        let good: Vec<f64> = honest.iter().map(of).collect();
        for (class, kind) in SHOWN {
            let Some(cell) = cells.iter().find(|c| c.subject == subject && c.kind == kind) else { continue };
            let bad: Vec<f64> = cell.rows.iter().map(of).collect();
            let points = curve(&good, &bad).into_iter().map(|(x, y)| (100.0 * x, 100.0 * y));
            picture.line(&frame, class, points);
        }
        if column == 0 {
            picture.legend(&frame, &SHOWN);
        }
    }
    picture.finish()
}

/// Share found over the length of the answer.
fn length(report: &Report, subject: &str) -> String {
    let mut picture = Picture::new(
        1,
        "Cheats found by length",
        "The share of cheats found by the mean margin over the first tokens of the answer, at a limit that at most one in \
         a thousand honest answers passes.",
    );
    let across = ("tokens", Scale::linear(0.0, 300.0));
    let up = ("% of cheats found", Scale::linear(0.0, 100.0));
    let head = format!("Found at {:.1} % of honest answers called false: {subject}", 100.0 * ALARM);
    let frame = picture.frame(0, &head, across, up);
    for (class, kind) in SHOWN {
        let Some(line) = report.lines.iter().find(|l| l.subject == subject && l.kind == kind) else {
            continue;
        };
        let points = MARKS.iter().zip(&line.found).map(|(mark, found)| (*mark as f64, 100.0 * found));
        picture.line(&frame, class, points);
    }
    picture.legend(&frame, &SHOWN);
    picture.finish()
}
