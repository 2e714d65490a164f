//! `potluck policy simulate`

use std::{
    fs,
    io::{BufReader, BufWriter, IsTerminal},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::{
    super::{CliError, output, print, print_line},
    local::read,
};
use crate::policy::{
    Engine, EngineConfig, MAX_COMPONENT, Policy,
    simulate::{Contestant, Measured, Progress, Report, Rules, Scenario, Trace, picture, simulate},
};

/// Try routing policies on a pool that exists only in numbers, beside the order that is built in. Needs no node.
///
/// The same jobs meet the same machines, absences and failures once for each policy. The same trace, seed and
/// components give the same report everywhere.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  potluck policy simulate mine.wasm --out report.svg                  compare with the native order\n  potluck policy simulate a.wasm b.wasm --peers 50 --jobs 5000        on a small pool\n  potluck policy simulate a.wasm --pricing p.wasm                     where machines ask for money\n  potluck policy simulate --record trace.jsonl                        write down what is made up\n  potluck policy simulate mine.wasm --trace trace.jsonl               use it, or what was recorded elsewhere"
)]
pub(super) struct Simulate {
    /// Routing policies.
    #[arg(value_name = "FILE.wasm")]
    files: Vec<PathBuf>,
    /// A pricing policy: machines ask for what it says.
    #[arg(long, value_name = "FILE.wasm")]
    pricing: Option<PathBuf>,
    /// Jobs and machines as lines of JSON, instead of what is made up.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["peers", "jobs", "load"])]
    trace: Option<PathBuf>,
    /// Machines to make up.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    peers: u32,
    /// Jobs to make up.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=2_000_000))]
    jobs: u32,
    /// How much of what the machines can do is asked for, in hundredths.
    #[arg(long, value_name = "PERCENT", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=200))]
    load: u32,
    /// What everything random follows from.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Machines with a model that each machine knows of.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    candidates: u16,
    /// Draw the report as SVG.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write the trace to a file.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

impl Simulate {
    pub(super) fn run(self, json: bool) -> Result<(), CliError> {
        let engine = Engine::new(EngineConfig::default()).map_err(usage)?;
        let mut contestants = vec![Contestant::native()];
        for file in &self.files {
            contestants.push(Contestant::policy(load(&engine, file)?));
        }
        let pricing = self.pricing.as_deref().map(|file| load(&engine, file)).transpose()?;
        let trace = self.happenings()?;
        if let Some(file) = &self.record {
            let to = fs::File::create(file).map_err(|source| unwritten("the trace", source))?;
            trace.write(BufWriter::new(to)).map_err(usage)?;
        }
        let rules = Rules { seed: self.seed, candidates: self.candidates.into(), ..Rules::default() };
        let bar = bar(json);
        let mut told = |progress: Progress<'_>| {
            show(&bar, progress);
            true
        };
        let simulated = simulate(&trace, &contestants, pricing.as_ref(), &rules, &mut told);
        bar.finish_and_clear();
        let (report, measured) = simulated.map_err(usage)?;
        if let Some(file) = &self.out {
            fs::write(file, picture(&report)).map_err(|source| unwritten("the picture", source))?;
        }
        if json {
            print_line(&whole(&report, &measured).to_string())
        } else {
            print(&page(&report, &measured))
        }
    }

    /// The trace that was given, or one that is made up.
    fn happenings(&self) -> Result<Trace, CliError> {
        let Some(file) = &self.trace else {
            let Self { peers, jobs, load, seed, .. } = *self;
            return Ok(Scenario { machines: peers, jobs, load, seed }.trace());
        };
        let opened = fs::File::open(file);
        let opened =
            opened.map_err(|error| CliError::Usage(format!("{} cannot be read: {error}", file.display())))?;
        let found = Trace::read(BufReader::new(opened));
        found.map_err(|error| CliError::Usage(format!("{}: {error}", file.display())))
    }
}

fn load(engine: &Engine, file: &Path) -> Result<Arc<Policy>, CliError> {
    let bytes = read(file, MAX_COMPONENT as u64)?;
    engine.load(&bytes).map_err(|error| CliError::Usage(format!("{}: {error}", file.display())))
}

fn usage(error: impl std::fmt::Display) -> CliError {
    CliError::Usage(error.to_string())
}

fn unwritten(what: &'static str, source: std::io::Error) -> CliError {
    let what =
        if what == "the trace" { "the trace cannot be written" } else { "the picture cannot be written" };
    CliError::Io { what, source }
}

fn bar(json: bool) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if json || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} jobs {eta}") {
        bar.set_style(style);
    }
    bar
}

fn show(bar: &ProgressBar, progress: Progress<'_>) {
    let Progress { name, place, of, done, jobs } = progress;
    bar.set_length((of * jobs) as u64);
    bar.set_position((place * jobs + done) as u64);
    if bar.message() != name {
        bar.set_message(name.to_owned());
    }
}

/// The report and, under `measured`, the only part that another run gives otherwise.
fn whole(report: &Report, measured: &[Measured]) -> Value {
    json!({"report": report, "measured": measured})
}

fn page(report: &Report, measured: &[Measured]) -> String {
    let minutes = report.span_us as f64 / 6e7;
    let head = format!(
        "{} jobs on {} machines in {minutes:.0} minutes; {}\n\n",
        report.jobs, report.machines, report.note
    );
    let cost = if report.pricing.is_some() { "price" } else { "work" };
    let legend = format!(
        "\nFIRST and WHOLE: seconds to the first token and to the end; COST: {cost} of a job in micro-credits, on average;\n\
         GINI, MAX/MEAN: how uneven machines are used; JAIN: 1 where all askers wait alike, where all machines get their part\n\n"
    );
    let costs: Vec<_> = measured.iter().map(Measured::row).collect();
    let table = output::table(Report::HEAD, &report.rows());
    format!("{head}{table}{legend}{}", output::table(Measured::HEAD, &costs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_trace_gives_the_report_again() {
        let folder = tempfile::tempdir().unwrap();
        let record = folder.path().join("trace.jsonl");
        let out = |name: &str| Some(folder.path().join(name));
        let made = Simulate {
            files: vec![],
            pricing: None,
            trace: None,
            peers: 20,
            jobs: 200,
            load: 50,
            seed: 3,
            candidates: 64,
            out: out("a.svg"),
            record: Some(record.clone()),
        };
        let again = Simulate {
            files: vec![],
            pricing: None,
            trace: Some(record.clone()),
            peers: 1000,
            jobs: 100_000,
            load: 60,
            seed: 3,
            candidates: 64,
            out: out("b.svg"),
            record: None,
        };
        let bad = Simulate {
            files: vec![],
            pricing: None,
            trace: out("a.svg"),
            peers: 1,
            jobs: 1,
            load: 1,
            seed: 1,
            candidates: 1,
            out: None,
            record: None,
        };
        made.run(true).unwrap();
        again.run(false).unwrap();
        let svg = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(svg("a.svg"), svg("b.svg"));
        assert!(bad.run(true).unwrap_err().to_string().contains("does not begin with"));
    }
}
