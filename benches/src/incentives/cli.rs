//! The command line.

use std::{fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Parser;

use super::{
    agent::Kind,
    plots,
    report::{Report, Summary},
    settings::Settings,
};

/// Plays the credits of a public pool with agents: who earns, who is caught, and what the rules cost.
///
/// The same flags give the same bytes on every machine.
#[derive(Debug, Parser)]
pub struct Cli {
    #[command(flatten)]
    settings: Settings,
    /// Print everything as JSON.
    #[arg(long)]
    json: bool,
    /// Write pictures (SVG) into this folder.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
}

impl Cli {
    /// Plays, prints and draws.
    ///
    /// # Errors
    /// Settings that cannot be played, or a picture that cannot be written.
    pub fn run(self) -> Result<()> {
        if let Some(wrong) = self.settings.wrong() {
            bail!("these settings cannot be played: {wrong}");
        }
        let report = Report::make(&self.settings, &|what| eprintln!("playing {what}"))?;
        if let Some(folder) = &self.plots {
            fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
            for (name, svg) in plots::all(&report) {
                let path = folder.join(name);
                fs::write(&path, svg).with_context(|| format!("{} cannot be written", path.display()))?;
            }
        }
        if self.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            print!("{}", text(&report));
        }
        Ok(())
    }
}

fn line(it: &Summary) -> String {
    let of = |kind| it.fates.get(&kind).map_or(0.0, |fate| fate.profit);
    let wrong: usize = it.fates.iter().filter(|(kind, _)| kind.good()).map(|(_, fate)| fate.convicted).sum();
    format!(
        "| {} | {:.3} | {:.3} | {:.3} | {:.3} | {:.3} | {:.2} % | {} | {:.1} % | {:.0} % |\n",
        it.name,
        of(Kind::Honest),
        of(Kind::Churning),
        of(Kind::Lazy),
        of(Kind::Cheating),
        of(Kind::Colluding),
        it.bad * 100.0,
        wrong,
        it.served * 100.0,
        it.top_tenth * 100.0,
    )
}

/// The report as tables in Markdown.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{} failed audits in a row convict; the test drifts nowhere at {:.2} % of failures; a cheat gains {} credits.\n",
        report.failures,
        report.indifferent * 100.0,
        report.gain
    );
    out.push_str("| kind | profit/h | last 30 days | convicted | in ramp | days p50, p90 | jobs p50, p90 | audits p50, p90 | slashed | forfeited |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n");
    for (kind, it) in &report.summary.fates {
        let [[d, dd], [j, jj], [a, aa]] = [it.days.map(u64::from), it.jobs, it.audits];
        let _ = writeln!(
            out,
            "| {} | {:.3} | {:.3} | {} | {} | {d}, {dd} | {j}, {jj} | {a}, {aa} | {:.0} | {:.0} |",
            kind.name(),
            it.profit,
            it.late,
            it.convicted,
            it.in_ramp,
            it.sums.slashed.credits(),
            it.sums.forfeited.credits()
        );
    }
    out.push_str("\n| pool | honest | churning | lazy | cheating | colluding | bad answers | good convicted | wanted and served | richest tenth |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n");
    out.push_str(&line(&report.summary));
    report.variants.iter().for_each(|it| out.push_str(&line(it)));
    out.push_str("\n| audited | first failure, simulated | (1−q)/q | sequential, simulated | k(1−q)/q |\n|---:|---:|---:|---:|---:|\n");
    for row in report.surface.iter().step_by(5) {
        let _ = writeln!(
            out,
            "| {:.2} % | {:.1} | {:.1} | {:.1} | {:.1} |",
            row.audit.unit() * 100.0,
            row.first,
            row.first_formula,
            row.sequential,
            row.sequential_formula
        );
    }
    out.push_str("\n| skipped | audits p10 | p50 | p90 | caught | bad answers paid |\n|---:|---:|---:|---:|---:|---:|\n");
    for it in &report.skipping {
        let [a, b, c] = it.audits.map(|audits| audits.map_or("–".to_owned(), |audits| audits.to_string()));
        let _ = writeln!(
            out,
            "| {:.0} % | {a} | {b} | {c} | {:.1} % | {:.0} |",
            it.bad.unit() * 100.0,
            it.caught * 100.0,
            it.paid
        );
    }
    out.push_str("\n| good answers that fail | convictions in a million audits | Wald |\n|---:|---:|---:|\n");
    for it in &report.alarms {
        let _ =
            writeln!(out, "| {:.1} % | {:.2} | {:.3} |", it.alarm.unit() * 100.0, it.convicted, it.formula);
    }
    out.push_str("\n| ring's seats | confirm | audits of its own, p50 | wrong convictions in a million audits |\n|---:|---:|---:|---:|\n");
    for it in &report.rings {
        let own = it.audits.map_or("–".to_owned(), |audits| audits.to_string());
        let _ =
            writeln!(out, "| {:.0} % | {} | {own} | {:.1} |", it.seats.unit() * 100.0, it.confirm, it.wrong);
    }
    out.push_str("\n| stake | at once | in ramp | patient | patient, fast |\n|---:|---:|---:|---:|---:|\n");
    for it in &report.throwaways {
        let _ = writeln!(
            out,
            "| {} | {:.3} | {:.3} | {:.3} | {:.2} |",
            it.stake, it.at_once, it.in_ramp, it.patient, it.patient_fast
        );
    }
    if let Some(day) = report.days.last() {
        let _ = writeln!(
            out,
            "\nEnd: granted {}, burnt {}, free {}, staked {}, withheld {}, treasury {}, unpaid fees {}, Gini {:?}.",
            day.granted,
            day.burnt,
            day.free,
            day.staked,
            day.withheld,
            day.treasury,
            report.summary.unpaid,
            report.summary.gini.map(|gini| (gini * 1e3).round() / 1e3)
        );
        for place in [0, 6, 13, 29, 59, 89, 119, 149, 179] {
            if let Some(day) = report.days.get(place) {
                let _ = writeln!(
                    out,
                    "day {}: served {:.1} % of wanted, price {}, free {}, richest tenth {}",
                    place + 1,
                    day.served as f64 / day.wanted.max(1) as f64 * 100.0,
                    day.price,
                    day.free,
                    day.top_tenth
                );
            }
        }
    }
    out
}
