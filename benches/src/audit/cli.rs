//! The command line.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};

use super::{
    attack::Attack,
    cost,
    measure::{Settings, attacked, honest, honest_float, honest_gpu, keep, kept},
    plots,
    report::Report,
    subject::{SUBJECTS, Subject},
};

/// Makes honest answers and others on real kernels, audits all of them, and says what an audit tells apart.
#[derive(Debug, Parser)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes and audits answers, and keeps what was found in a folder. Can be done in parts.
    Measure(Measure),
    /// Tables and pictures of what a folder holds.
    Report(Show),
    /// Names of models and of the kinds of answers to them.
    List {
        /// stories260K in f32.
        #[arg(long, value_name = "FILE")]
        stories: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Measure {
    /// The model that is asked for, see `list`.
    #[arg(long)]
    subject: String,
    /// Kinds of answers: `honest`, `honest-float`, `honest-gpu` and names of attacks; all when none is named.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Answers of each kind.
    #[arg(long, default_value_t = 2000)]
    answers: usize,
    /// Threads of verifier and attackers.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Sequences at once.
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// stories260K in f32.
    #[arg(long, value_name = "FILE")]
    stories: PathBuf,
    /// Where to keep what was found.
    #[arg(long, value_name = "DIR")]
    keep: PathBuf,
}

#[derive(Debug, Args)]
struct Show {
    /// What `measure` kept.
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// Print everything as JSON.
    #[arg(long)]
    json: bool,
    /// Write pictures (SVG) into this folder.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// Also measure what an audit of this model's answers costs; may be given more than once.
    #[arg(long, value_name = "FILE")]
    cost: Vec<PathBuf>,
    /// Threads for it.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Tokens of the prompt and of the answer for it.
    #[arg(long, num_args = 2, default_values_t = [128, 128])]
    tokens: Vec<usize>,
}

impl Cli {
    /// Measures or shows.
    ///
    /// # Errors
    /// A model that cannot be read or run, or a file that cannot be written.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Measure(it) => it.run(),
            Command::Report(it) => it.run(),
            Command::List { stories } => {
                for name in SUBJECTS {
                    let subject = Subject::load(name, &stories)?;
                    let kinds: Vec<String> = Attack::all(&subject).into_iter().map(Attack::name).collect();
                    println!("{name}: honest, honest-float, honest-gpu, {}", kinds.join(", "));
                }
                Ok(())
            }
        }
    }
}

impl Measure {
    fn run(self) -> Result<()> {
        let subject = Subject::load(&self.subject, &self.stories)?;
        let settings =
            Settings { answers: self.answers, threads: self.threads, batch: self.batch.clamp(1, 512) };
        let wanted = |name: &str| self.only.is_empty() || self.only.iter().any(|only| only == name);
        let done = |cell: super::measure::Cell| {
            let [made, replayed] = cell.seconds;
            eprintln!(
                "{} {}: {} answers, {made:.1} s + {replayed:.1} s",
                cell.subject,
                cell.kind,
                cell.rows.len()
            );
            keep(&self.keep, &cell)
        };
        if wanted("honest") {
            done(honest(&subject, &settings)?)?;
        }
        if wanted("honest-float") {
            done(honest_float(&subject, &settings)?)?;
        }
        if wanted("honest-gpu") {
            done(honest_gpu(&subject, &settings)?)?;
        }
        for attack in Attack::all(&subject).into_iter().filter(|attack| wanted(&attack.name())) {
            done(attacked(&subject, attack, &settings)?)?;
        }
        Ok(())
    }
}

impl Show {
    fn run(self) -> Result<()> {
        let cells = kept(&self.from)?;
        let [prompt, answer] = <[usize; 2]>::try_from(self.tokens).ok().context("two numbers of tokens")?;
        let costs = self.cost.iter().map(|path| cost::measure(path, self.threads, [prompt, answer], 3));
        let report = Report::make(&cells, costs.collect::<Result<_>>()?);
        if let Some(folder) = &self.plots {
            fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
            for (name, svg) in plots::all(&cells, &report) {
                let path = folder.join(name);
                fs::write(&path, svg).with_context(|| format!("{} cannot be written", path.display()))?;
            }
        }
        if self.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            print!("{}", report.text());
        }
        Ok(())
    }
}
