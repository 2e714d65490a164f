//! What needs no node: check, try, new, build.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::{Value, json};

use super::super::{CliError, print, print_line};
use crate::{
    node::pool::policies::describe,
    policy::{self, Engine, EngineConfig, Kind, MAX_COMPONENT, scaffold, types::Input},
};

/// Ask a component one question. Needs no node.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  potluck policy try mine.wasm                   list the questions that every policy is asked\n  potluck policy try mine.wasm --vector one      ask one of them\n  potluck policy try mine.wasm --input q.json    ask another; - reads standard input"
)]
pub(super) struct Try {
    /// The component.
    file: PathBuf,
    /// A question as JSON: text, a file, or - for standard input.
    #[arg(long, value_name = "JSON", conflicts_with = "vector")]
    input: Option<String>,
    /// One of the questions that every policy is asked, by its name.
    #[arg(long, value_name = "NAME")]
    vector: Option<String>,
}

/// Begin a policy.
#[derive(Args, Debug)]
pub(super) struct New {
    /// The folder to make; its name is the policy's.
    folder: PathBuf,
    /// What it decides.
    #[arg(long, default_value = "routing")]
    kind: Kind,
}

/// Build a policy's folder into a component.
#[derive(Args, Debug)]
pub(super) struct Build {
    /// The folder.
    #[arg(default_value = ".")]
    folder: PathBuf,
}

/// A file of at most `most` bytes.
pub(super) fn read(path: &Path, most: u64) -> Result<Vec<u8>, CliError> {
    let wrong = |reason: String| CliError::Usage(format!("{} cannot be read: {reason}", path.display()));
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(|error| wrong(error.to_string()))?;
    if bytes.len() as u64 > most {
        return Err(wrong(format!("it has more than {most} bytes")));
    }
    Ok(bytes)
}

fn load(file: &Path) -> Result<std::sync::Arc<policy::Policy>, CliError> {
    let bytes = read(file, MAX_COMPONENT as u64)?;
    let engine = Engine::new(EngineConfig::default()).map_err(usage)?;
    engine.load(&bytes).map_err(|error| CliError::Usage(format!("{}: {error}", file.display())))
}

fn usage(error: impl std::fmt::Display) -> CliError {
    CliError::Usage(error.to_string())
}

pub(super) fn check(file: &Path, json: bool) -> Result<(), CliError> {
    let found = describe(&*load(file)?);
    if json { print_line(&found.to_string()) } else { print(&page(&found)) }
}

/// What was found out about a component, for people.
pub(super) fn page(found: &Value) -> String {
    let at = |path: &str| found.pointer(path).cloned().unwrap_or_default();
    let text = |path: &str| at(path).as_str().unwrap_or_default().to_owned();
    let vectors = at("/report/vectors").as_array().map_or(0, Vec::len);
    format!(
        "{} {}  {} policy, interface {}, {}\n{}\nhash      {}\nsize      {} bytes\nvectors   {vectors} answered, at most {} fuel\ncompiled  in {:.0} ms\nwarm      {}\n",
        text("/description/name"),
        text("/description/version"),
        text("/kind"),
        text("/abi"),
        text("/description/licence"),
        text("/description/summary"),
        text("/hash"),
        at("/size"),
        at("/report/most_fuel"),
        at("/report/compile_micros").as_f64().unwrap_or_default() / 1e3,
        if at("/keeps_warm").as_bool().unwrap_or_default() {
            "it keeps nothing between calls"
        } else {
            "each call gets a new instance"
        },
    )
}

impl Try {
    pub(super) fn run(self, json: bool) -> Result<(), CliError> {
        let policy = load(&self.file)?;
        let vectors = policy::vectors(policy.kind());
        let input = match (&self.input, &self.vector) {
            (Some(given), _) => question(given)?,
            (None, Some(name)) => {
                let found = vectors.into_iter().find(|vector| vector.name == *name);
                found
                    .ok_or_else(|| usage(format!("there is no question `{name}`: run it without --vector")))?
                    .input
            }
            (None, None) => {
                let names: Vec<String> = vectors.into_iter().map(|vector| vector.name).collect();
                return print_line(&if json {
                    json!({"vectors": names}).to_string()
                } else {
                    names.join("\n")
                });
            }
        };
        let decided = policy.decide(&input).map_err(usage)?;
        let micros = decided.took.as_secs_f64() * 1e6;
        let answer = json!({"output": decided.output, "fuel": decided.fuel, "took_us": micros});
        let pretty = serde_json::to_string_pretty(&answer).unwrap_or_default();
        print_line(&if json { answer.to_string() } else { pretty })
    }
}

/// A question given as text, in a file, or on standard input.
fn question(given: &str) -> Result<Input, CliError> {
    let bytes = if given == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().take(4 << 20).read_to_end(&mut bytes).map_err(usage)?;
        bytes
    } else if given.trim_start().starts_with('{') {
        given.as_bytes().to_vec()
    } else {
        read(Path::new(given), 4 << 20)?
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        usage(format!(
            "the question cannot be read: {error}; `potluck policy try FILE --vector NAME` shows one that can"
        ))
    })
}

impl New {
    pub(super) fn run(self, json: bool) -> Result<(), CliError> {
        let name = self.folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        scaffold::new(&self.folder, name, self.kind).map_err(usage)?;
        let folder = self.folder.display().to_string();
        let words =
            format!("wrote {folder}; change {folder}/src/lib.rs, then run `potluck policy build {folder}`");
        print_line(&if json { json!({"folder": folder, "kind": self.kind}).to_string() } else { words })
    }
}

impl Build {
    pub(super) fn run(self, json: bool) -> Result<(), CliError> {
        let built = scaffold::build(&self.folder).map_err(usage)?;
        let hash = policy::PolicyHash::of(&built.bytes);
        let (path, size) = (built.path.display().to_string(), built.bytes.len());
        let words =
            format!("built {path}, {size} bytes, {hash}\ncheck it with `potluck policy check {path}`");
        print_line(&if json { json!({"file": path, "size": size, "hash": hash}).to_string() } else { words })
    }
}
