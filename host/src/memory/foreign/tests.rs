//! Importers that misbehave, and those that are shipped.

mod hostile;
mod loading;
mod shipped;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use tempfile::TempDir;

use super::*;
use crate::memory::Kind;

/// Where the built importers lie.
const DIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/importers/dist");
/// Where the sources of the importers lie, and with them their fixtures.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/importers");

fn built(name: &str) -> Vec<u8> {
    fs::read(Path::new(DIST).join(name)).unwrap()
}

/// Limits that a test need not wait for.
fn short() -> Limits {
    Limits { memory: 64 << 20, fuel: 1_000_000_000, call: Duration::from_secs(30), ..Limits::default() }
}

/// What an import gave.
#[derive(Debug, Default)]
struct Outcome {
    entries: Vec<Entry>,
    problems: Vec<Problem>,
    error: Option<ForeignError>,
    used: Used,
}

impl Outcome {
    fn of(importer: &Importer, path: &Path) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let grant = Grant::of(path, scratch.path()).unwrap();
        let mut outcome = Self::default();
        match importer.import(grant) {
            Ok(import) => outcome.take(import),
            Err(error) => outcome.error = Some(error),
        }
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "a private folder was left");
        outcome
    }

    fn take(&mut self, mut import: Import) {
        for item in import.by_ref() {
            assert!(self.error.is_none(), "something came after the error");
            match item {
                Ok(Item::Entry(entry)) => self.entries.push(entry),
                Ok(Item::Problem(problem)) => self.problems.push(problem),
                Err(error) => self.error = Some(error),
            }
        }
        self.used = import.used();
    }

    fn contents(&self) -> Vec<&str> {
        self.entries.iter().map(|entry| entry.content.as_str()).collect()
    }

    fn stop(&self) -> &Stop {
        match &self.error {
            Some(ForeignError::Stopped { stop, .. }) => stop,
            other => panic!("{other:?} is no stop"),
        }
    }

    /// Fails when the guest got away with something.
    fn got_away_with_nothing(&self) {
        let done: Vec<_> =
            self.contents().into_iter().filter(|it| it.contains("DID") || it.contains("SECRET")).collect();
        assert!(done.is_empty(), "{done:?}");
    }
}
