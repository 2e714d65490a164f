//! `potluck memory import --with`: sources read through an importer, in this process.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{super::super::CliError, Reader, Source, Unwanted};
use crate::memory::{
    Draft, Millis,
    foreign::{self, Grant, Importer, Item, Limits, Step},
};

/// How long an importer is waited for before what it gave is sent.
const PATIENCE: Duration = Duration::from_millis(200);
/// How often something is sent while it gives nothing: the node gives up on an import in which nothing comes.
const SIGN: Duration = Duration::from_secs(10);

/// Checks and compiles an importer.
pub(super) async fn load(path: PathBuf) -> Result<Importer, CliError> {
    let loading = tokio::task::spawn_blocking(move || Importer::open(&path, Limits::default()));
    let loaded = loading.await.map_err(|error| CliError::Broken(error.to_string()))?;
    Ok(loaded?)
}

/// The sources of an importer: each file or folder as it was named. What a folder holds is for the importer to say.
pub(super) fn sources(paths: &[PathBuf]) -> Result<Vec<Source>, CliError> {
    let source = |path: &PathBuf| {
        if path.as_os_str() == "-" {
            return Err(CliError::Usage("an importer reads a file or a folder; `-` is neither".into()));
        }
        Ok(Source { path: Some(path.clone()), size: 0 })
    };
    paths.iter().map(source).collect()
}

impl Reader {
    /// Reads one source through an importer. That an importer fails is told at the end, and what it gave before is
    /// sent as if it had not.
    pub(super) fn foreign(
        &mut self,
        number: u32,
        file: &Source,
        importer: &Importer,
    ) -> io::Result<Result<(), Unwanted>> {
        let path = file.path.as_deref().unwrap_or(Path::new(""));
        match self.run_importer(number, path, importer) {
            Ok(outcome) => Ok(outcome),
            Err(error) => {
                self.shared.told().failures.push(format!("{}: {error}", file.name()));
                Ok(Ok(()))
            }
        }
    }

    fn run_importer(
        &mut self,
        number: u32,
        path: &Path,
        importer: &Importer,
    ) -> Result<Result<(), Unwanted>, foreign::ForeignError> {
        let grant = Grant::of(path, &scratch())?;
        let mut import = importer.import(grant)?;
        let agent = importer.agent(&import.description().name);
        let mut sent = Instant::now();
        for item in 1.. {
            let outcome = match import.step(PATIENCE)? {
                Step::Item(Item::Entry(entry)) => self.draft(number, item, draft(entry, &agent)),
                Step::Item(Item::Problem(problem)) => {
                    self.shared.refuse(number, item, format!("{}: {}", problem.source, problem.reason));
                    Ok(())
                }
                Step::Waiting if sent.elapsed() >= SIGN => {
                    sent = Instant::now();
                    self.sign(number, item)
                }
                Step::Waiting if self.sender.is_closed() => Err(Unwanted),
                Step::Waiting => self.send(),
                Step::Over => return Ok(Ok(())),
            };
            if outcome.is_err() {
                return Ok(Err(Unwanted));
            }
        }
        Ok(Ok(()))
    }

    /// An empty line, which the node passes over; it counts as a line all the same.
    fn sign(&mut self, number: u32, line: u64) -> Result<(), Unwanted> {
        self.held.push(b'\n');
        self.shared.told().lines.push((number, line));
        self.send()
    }
}

/// Where a private folder may be made: in the user's caches, which mostly lie on the same file system as what is to be
/// imported, so that a large file is linked and not copied.
fn scratch() -> PathBuf {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    caches.filter(|path| path.is_dir()).unwrap_or_else(std::env::temp_dir)
}

/// A record of an importer, as the memory takes it.
fn draft(entry: foreign::Entry, agent: &str) -> Draft {
    Draft {
        source: Some(entry.provenance(agent)),
        content: entry.content,
        kind: entry.kind,
        project: entry.project,
        tags: entry.tags,
        // What lies outside of all times is not known.
        occurred_at: entry.occurred_at.and_then(|at| Millis::from_ms(at).ok()),
        ..Draft::default()
    }
}
