//! The command line of the memory bench.

use std::{
    collections::BTreeSet,
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Parser, Subcommand};
use serde_json::Value;

use super::{
    copies::{self, CopiesArgs},
    layout::{Haystack, each, locomo, longmemeval, pool::Pool},
    need::{Need, check},
    node::{NodeArgs, machine, version},
    report::Report,
    scope::{LONGMEMEVAL, Outcome, Scope},
    speed::{self, SpeedArgs},
    store::progress,
    suite::{Apart, LIMIT, Runner},
};

/// Measures how well and how fast the memory of a node recalls.
#[derive(Debug, Parser)]
pub struct Cli {
    #[command(subcommand)]
    command: Suite,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    output: Output,
    /// What keeps haystacks apart.
    #[arg(long, global = true, value_enum, default_value_t)]
    apart: Apart,
    /// The seed of every random choice.
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
}

/// Where figures go, and what they must be.
#[derive(Args, Clone, Debug)]
struct Output {
    /// Write everything to this file as JSON.
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Each question's ranks too, in the JSON.
    #[arg(long, global = true, requires = "json")]
    details: bool,
    /// End with an error unless this is reached, such as any@10=0.93 or all:any@10=0.9 (repeatable).
    #[arg(long = "need", global = true, value_name = "NAME=VALUE")]
    needs: Vec<Need>,
}

#[derive(Debug, Subcommand)]
enum Suite {
    /// LongMemEval S, M or oracle, in the official layout.
    Longmemeval {
        /// The file.
        file: PathBuf,
        #[command(flatten)]
        selection: Selection,
    },
    /// Questions about one pool of all sessions.
    Pool {
        #[command(flatten)]
        files: Files,
    },
    /// Questions about haystacks like those of LongMemEval-S, mixed from a pool.
    Slike {
        #[command(flatten)]
        files: Files,
        /// How many haystacks each question gets.
        #[arg(long, default_value_t = 5)]
        seeds: u64,
        /// Sessions of a haystack.
        #[arg(long, default_value_t = 48)]
        size: usize,
        /// Sessions of it that are evidence of no question.
        #[arg(long, default_value_t = 24)]
        noise: usize,
    },
    /// LoCoMo, in the official layout.
    Locomo {
        /// The file.
        file: PathBuf,
        /// Index what is seen on pictures, too.
        #[arg(long)]
        captions: bool,
    },
    /// Time, throughput and size by the number of records.
    Speed(SpeedArgs),
    /// Write signed copies of a node's export on stdout, for programs that fill memories.
    Copies(CopiesArgs),
}

/// Which questions of a file.
#[derive(Args, Clone, Debug, Default)]
struct Selection {
    /// Only the first so many questions.
    #[arg(long, value_name = "N")]
    take: Option<usize>,
    /// Only the questions whose ids stand in this file, one a line.
    #[arg(long, value_name = "FILE")]
    only: Option<PathBuf>,
}

/// The files of a pool.
#[derive(Args, Clone, Debug)]
struct Files {
    /// Sessions that are evidence, JSON Lines of {id, turns, date?}.
    #[arg(long, value_name = "FILE")]
    corpus: Option<PathBuf>,
    /// Sessions that are evidence of nothing.
    #[arg(long, value_name = "FILE")]
    distractors: Option<PathBuf>,
    /// Questions, JSON Lines of {id, query, type, date, abstention, gold, oracle_sessions?, user_evidence}.
    #[arg(long, value_name = "FILE")]
    queries: Option<PathBuf>,
    /// Leave the sessions' dates out.
    #[arg(long)]
    undated: bool,
    #[command(flatten)]
    selection: Selection,
}

impl Cli {
    /// Runs the suite, prints its table, writes its JSON.
    ///
    /// # Errors
    /// What went wrong, or which needs are unmet.
    pub fn run(&self) -> Result<()> {
        match &self.command {
            Suite::Longmemeval { file, selection } => self.finish(&self.longmemeval(file, selection)?),
            Suite::Pool { files } => self.finish(&self.pool(files)?),
            Suite::Slike { files, seeds, size, noise } => {
                self.finish(&self.slike(files, *seeds, *size, *noise)?)
            }
            Suite::Locomo { file, captions } => self.finish(&self.locomo(file, *captions)?),
            Suite::Speed(args) => {
                let table = speed::measure(args, &self.node, self.seed)?;
                println!("{}", table.text());
                self.write(&table.json())?;
                check(&self.output.needs, |need| table.figure(need))
            }
            Suite::Copies(args) => copies::write(args, self.seed, BufWriter::new(std::io::stdout().lock())),
        }
    }

    fn finish(&self, report: &Report) -> Result<()> {
        println!("{}", report.text());
        self.write(&report.json(self.output.details))?;
        check(&self.output.needs, |need| report.figure(need))
    }

    fn write(&self, value: &Value) -> Result<()> {
        let Some(path) = &self.output.json else { return Ok(()) };
        let text = serde_json::to_string_pretty(value)?;
        std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))
    }

    fn runner(&self) -> Result<Runner> {
        Runner::new(&self.node, self.apart, self.seed)
    }

    fn report(&self, suite: String, notes: Vec<String>, runner: &Runner, outcomes: Vec<Outcome>) -> Report {
        let mut all = vec![format!(
            "A session is a record; the {LIMIT} best are asked for; sessions are put in in an order shuffled by the \
             seed {}; each haystack is a {} of its own.",
            self.seed,
            if self.apart == Apart::Home { "node" } else { "project" }
        )];
        all.extend(notes);
        Report {
            suite,
            notes: all,
            embedder: runner.embedder(),
            machine: machine(),
            version: version(),
            seed: self.seed,
            summaries: Vec::new(),
            outcomes,
        }
    }

    fn longmemeval(&self, file: &Path, selection: &Selection) -> Result<Report> {
        let mut chosen = selection.chosen()?;
        let mut runner = self.runner()?;
        let mut outcomes = Vec::new();
        read(file, |entry: longmemeval::Entry| {
            let haystack = chosen.of(entry.haystack());
            if !haystack.questions.is_empty() {
                outcomes.extend(runner.run(&haystack, self.seed)?);
            }
            Ok(())
        })?;
        let notes = vec!["Only the user's turns are indexed, a blank line between them.".to_owned()];
        let suite = format!("LongMemEval, {}", name(file));
        Ok(self.report(suite, notes, &runner, outcomes).counted(&LONGMEMEVAL))
    }

    fn pool(&self, files: &Files) -> Result<Report> {
        let (mut pool, notes) = files.read()?;
        let mut runner = self.runner()?;
        pool.questions = files.selection.chosen()?.of(pool.whole()).questions;
        let outcomes = runner.run(&pool.whole(), self.seed)?;
        let suite = format!("Pool of {} sessions", pool.corpus.len() + pool.distractors.len());
        Ok(self.report(suite, notes, &runner, outcomes).counted(&LONGMEMEVAL))
    }

    fn slike(&self, files: &Files, seeds: u64, size: usize, noise: usize) -> Result<Report> {
        let (mut pool, mut notes) = files.read()?;
        let mut runner = self.runner()?;
        pool.questions = files.selection.chosen()?.of(pool.whole()).questions;
        let bar = progress(seeds * pool.questions.len() as u64, "haystacks");
        let mut outcomes = Vec::new();
        for seed in (self.seed..).take(usize::try_from(seeds)?) {
            for question in &pool.questions {
                outcomes.extend(runner.run(&pool.like_s(question, noise, size, seed), seed)?);
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        notes.push(format!(
            "A haystack is a question's evidence, {noise} sessions that are evidence of nothing, and evidence of \
             other questions up to {size}; {seeds} haystacks a question."
        ));
        let suite = format!("Haystacks of {size} sessions like those of LongMemEval-S");
        Ok(self.report(suite, notes, &runner, outcomes).counted(&LONGMEMEVAL))
    }

    fn locomo(&self, file: &Path, captions: bool) -> Result<Report> {
        let mut runner = self.runner()?;
        let mut outcomes = Vec::new();
        read(file, |entry: locomo::Entry| {
            outcomes.extend(runner.run(&entry.haystack(captions), self.seed)?);
            Ok(())
        })?;
        let notes = vec![
            "Both speakers' turns are indexed, a blank line between them; questions without evidence do not count; \
             hit@k is any@k, and fraction@k is the share of evidence sessions found."
                .to_owned(),
            format!("Captions of pictures are {}.", if captions { "indexed" } else { "left out" }),
        ];
        Ok(self
            .report(format!("LoCoMo, {}", name(file)), notes, &runner, outcomes)
            .counted(&[Scope::Official]))
    }
}

/// Reads a file of an array, element by element, with a bar over its bytes.
fn read<T: serde::de::DeserializeOwned>(path: &Path, take: impl FnMut(T) -> Result<()>) -> Result<()> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let bar = progress(file.metadata()?.len(), "bytes read");
    let done = each(bar.wrap_read(file), take).with_context(|| path.display().to_string());
    bar.finish_and_clear();
    done
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Questions that are still to be taken.
struct Chosen {
    left: usize,
    only: Option<BTreeSet<String>>,
}

impl Selection {
    fn chosen(&self) -> Result<Chosen> {
        let read = |path: &PathBuf| -> Result<BTreeSet<String>> {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            Ok(text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect())
        };
        Ok(Chosen { left: self.take.unwrap_or(usize::MAX), only: self.only.as_ref().map(read).transpose()? })
    }
}

impl Chosen {
    fn of(&mut self, mut haystack: Haystack) -> Haystack {
        haystack.questions.retain(|question| {
            let wanted = self.left > 0 && self.only.as_ref().is_none_or(|only| only.contains(&question.id));
            self.left -= usize::from(wanted);
            wanted
        });
        haystack
    }
}

impl Files {
    /// The pool, and what must be said about it.
    fn read(&self) -> Result<(Pool, Vec<String>)> {
        let corpus = or_shared(self.corpus.as_deref(), "corpus.jsonl", "--corpus")?;
        let queries = or_shared(self.queries.as_deref(), "queries.dev.jsonl", "--queries")?;
        let distractors = match (&self.distractors, &self.corpus) {
            (Some(path), _) => Some(path.clone()),
            // A corpus of one's own is not mixed with somebody else's noise.
            (None, Some(_)) => None,
            (None, None) => or_shared(None, "s_distractors.jsonl", "--distractors").ok(),
        };
        let mut pool = Pool::read(&corpus, distractors.as_deref(), &queries)?;
        if self.undated {
            pool.corpus.iter_mut().chain(&mut pool.distractors).for_each(|session| session.date = None);
        }
        let (held, noise) = pool.dated();
        let notes = vec![
            format!(
                "{} sessions of evidence ({held} dated), {} of none ({noise} dated), {} questions of {}.",
                pool.corpus.len(),
                pool.distractors.len(),
                pool.questions.len(),
                name(&queries)
            ),
            "Only the user's turns are indexed, a blank line between them.".to_owned(),
        ];
        Ok((pool, notes))
    }
}

/// The file that is named, or that of the shared test data.
///
/// # Errors
/// When neither is there.
pub fn or_shared(given: Option<&Path>, file: &str, flag: &str) -> Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".."));
    let places =
        [root.to_owned(), PathBuf::from(".")].map(|at| at.join("../shared/data/longmemeval").join(file));
    let found = places.iter().find(|path| path.is_file()).cloned();
    ensure!(found.is_some(), "there is no ../shared/data/longmemeval/{file}; name a file with {flag}");
    found.context("a file")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::memory::layout::Question;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from([
            "memory",
            "slike",
            "--seeds",
            "3",
            "--need",
            "any@10=0.9",
            "--json",
            "x",
            "--details",
            "--words-only",
            "--node-arg=--threads=2",
        ]);
        let cli = cli.unwrap();
        assert_eq!((cli.output.needs.len(), cli.node.words_only, cli.apart), (1, true, Apart::Project));
        assert!(Cli::try_parse_from(["memory", "longmemeval"]).is_err());
        assert!(Cli::try_parse_from(["memory", "pool", "--need", "any@10"]).is_err());
    }

    #[test]
    fn questions_are_chosen_by_id_and_number() {
        let question = |id: &str| Question { id: id.into(), ..Question::default() };
        let haystack =
            Haystack { questions: ["a", "b", "c", "d"].map(question).into(), ..Haystack::default() };
        let only = Some(["b", "c", "d"].map(str::to_owned).into());
        let mut chosen = Chosen { left: 2, only };
        let ids: Vec<String> = chosen.of(haystack.clone()).questions.into_iter().map(|q| q.id).collect();
        assert_eq!(ids, ["b", "c"]);
        assert!(chosen.of(haystack).questions.is_empty());
    }
}
