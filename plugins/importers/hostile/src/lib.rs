//! An importer that misbehaves in every way that a test asks for: the word in the file `behave`, or the name of the
//! one file it is given, says how. What it got away with is an entry, what was refused a problem.

#![cfg(target_family = "wasm")]
#![allow(clippy::panic, reason = "crashing is one of the things it does")]

mod ways;

use potluck_importer::{Batch, Description, Importer, Kind, entry, export_importer, files, problem};

/// The importer, and how often it was called.
struct Hostile {
    way: String,
    calls: usize,
}

impl Importer for Hostile {
    fn describe() -> Description {
        Description {
            name: "hostile".into(),
            version: "0.1.0".into(),
            summary: "Misbehaves as it is told.".into(),
            licence: "Apache-2.0".into(),
        }
    }

    fn open(name: &str) -> Result<Self, String> {
        let way = if name.is_empty() {
            files::read_to_string("behave").map_err(|error| error.to_string())?.trim().to_owned()
        } else {
            name.to_owned()
        };
        match way.as_str() {
            "loop-in-open" => ways::spin(),
            "refuse" => Err("this is not for me".into()),
            _ => Ok(Self { way, calls: 0 }),
        }
    }

    fn next(&mut self) -> Result<Batch, String> {
        self.calls += 1;
        let mut out = Out { batch: Batch { entries: Vec::new(), problems: Vec::new() } };
        if self.calls == 1 || self.way == "endless" {
            ways::act(&self.way, &mut out);
        } else {
            match (self.way.as_str(), self.calls) {
                ("crash", 2 | 3) | ("give-up", 2) => out.did("still here"),
                ("crash", _) => panic!("a bug in the middle"),
                ("give-up", _) => return Err("the file ends early".into()),
                ("loop", _) => ways::spin(),
                _ => {}
            }
        }
        Ok(out.batch)
    }
}

export_importer!(Hostile);

/// What is given back.
struct Out {
    batch: Batch,
}

impl Out {
    /// Something worked.
    fn did(&mut self, what: impl Into<String>) {
        self.batch.entries.push(entry(what, Kind::Fact, "hostile"));
    }

    /// Something was refused.
    fn failed(&mut self, what: &str, why: impl std::fmt::Debug) {
        self.batch.problems.push(problem(what, format!("{why:?}")));
    }

    /// One or the other.
    fn tried<T, E: std::fmt::Debug>(&mut self, what: &str, outcome: Result<T, E>) {
        match outcome {
            Ok(_) => self.did(format!("DID {what}")),
            Err(error) => self.failed(what, error),
        }
    }
}
