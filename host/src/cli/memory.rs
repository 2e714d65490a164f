//! `potluck memory`

use clap::{Args, Subcommand};
use reqwest::Url;
use serde_json::{Map, Value};

use super::{CliError, Context, client::Session};
use crate::{api::memory::parse::KINDS, config::value::parse_duration, memory::Millis};

mod add;
mod export;
mod forget;
mod import;
mod list;
mod markdown;
mod page;
mod reindex;
mod search;
mod show;
mod stats;
mod status;
mod verify;

/// Keep and search what your agents remember.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  potluck memory add \"The staging database is on port 5433\" --project shop --tag database\n  potluck memory search where is the staging database\n  potluck memory import ~/notes --project shop\n  potluck memory export backup.jsonl"
)]
pub(super) struct MemoryCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Remember something.
    Add(add::Add),
    /// Ask what is remembered.
    Search(search::Search),
    /// List the latest memories.
    #[command(visible_alias = "ls")]
    List(list::List),
    /// Show one memory, and its history.
    Show(show::Show),
    /// Forget memories.
    Forget(forget::Forget),
    /// Take in memories of other programs, notes, or an export.
    Import(import::Import),
    /// Write all memories as JSON Lines.
    Export(export::Export),
    /// Say how much is remembered.
    Stats,
    /// Say how the memory is in step with the pool.
    Status,
    /// Build the indexes anew from the log.
    Reindex,
    /// Check every byte and every signature of the log.
    Verify,
}

impl MemoryCommand {
    pub(super) async fn run(self, context: Context) -> Result<(), CliError> {
        let session = Session::open(&context, None).await?;
        let work = async {
            let client = &session.client;
            match self.command {
                Command::Add(command) => command.run(client, context.json).await,
                Command::Search(command) => command.run(client, context.json).await,
                Command::List(command) => command.run(client, context.json).await,
                Command::Show(command) => command.run(client, context.json).await,
                Command::Forget(command) => command.run(client, context.json).await,
                Command::Import(command) => command.run(client, context.json).await,
                Command::Export(command) => command.run(client, context.json).await,
                Command::Stats => stats::run(client, context.json).await,
                Command::Status => status::run(client, context.json).await,
                Command::Reindex => reindex::run(client, context.json).await,
                Command::Verify => verify::run(client, context.json).await,
            }
        };
        let outcome = tokio::select! {
            outcome = work => outcome,
            _ = tokio::signal::ctrl_c() => Err(CliError::Interrupted),
        };
        session.close().await;
        outcome
    }
}

/// Which memories are meant.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct FilterArgs {
    /// Only this project.
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Only this kind: fact, decision, task, reference or preference (repeatable: any of them).
    #[arg(long = "kind", value_name = "KIND", value_parser = kind)]
    kinds: Vec<String>,
    /// Only with this tag (repeatable: all of them).
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Only what occurred or was written then or later: a date, a time, or how long ago (7d, 12h).
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    since: Option<String>,
    /// Only what occurred or was written before then.
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    until: Option<String>,
}

impl FilterArgs {
    fn is_empty(&self) -> bool {
        self.fields().is_empty()
    }

    /// The fields of a request.
    fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        for (name, value) in [("project", &self.project), ("since", &self.since), ("until", &self.until)] {
            if let Some(value) = value {
                fields.insert(name.into(), value.as_str().into());
            }
        }
        for (name, list) in [("kinds", &self.kinds), ("tags", &self.tags)] {
            if !list.is_empty() {
                fields.insert(name.into(), list.as_slice().into());
            }
        }
        fields
    }

    /// The same after `?`.
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let single = [("project", &self.project), ("since", &self.since), ("until", &self.until)];
        let mut pairs: Vec<_> =
            single.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect();
        pairs.extend(self.kinds.iter().map(|kind| ("kinds", kind.clone())));
        pairs.extend(self.tags.iter().map(|tag| ("tags", tag.clone())));
        pairs
    }
}

/// An address with fields after `?`.
fn address(path: &str, pairs: &[(&'static str, String)]) -> String {
    let Ok(mut url) = Url::parse("http://localhost/") else { return path.to_owned() };
    url.query_pairs_mut().extend_pairs(pairs);
    match url.query() {
        Some(query) if !query.is_empty() => format!("{path}?{query}"),
        _ => path.to_owned(),
    }
}

/// The address of one memory; what is no id is refused there.
fn address_of(id: &str, pairs: &[(&'static str, String)]) -> Result<String, CliError> {
    let plain = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !plain {
        return Err(CliError::Usage(format!(
            "`{id}` is not the id of a memory; `potluck memory list` shows ids"
        )));
    }
    Ok(address(&format!("/potluck/v1/memory/{id}"), pairs))
}

fn kind(text: &str) -> Result<String, String> {
    let names = KINDS.map(|(name, _)| name);
    if names.contains(&text) { Ok(text.to_owned()) } else { Err(format!("use one of {}", names.join(", "))) }
}

/// A moment for a request: given as one, or as how long ago.
fn moment(text: &str) -> Result<String, String> {
    if Millis::parse(text).is_ok() {
        return Ok(text.to_owned());
    }
    let ago = parse_duration(text).map_err(|_| {
        format!("`{text}` is no time; write e.g. 2025-03-31, 2025-03-31T12:00:00Z, 7d or 12h")
    })?;
    let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
    Millis::from_ms(Millis::now().0.saturating_sub(ago))
        .map(|at| at.to_string())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_people_say_them() {
        assert_eq!(moment("2025-03-31").unwrap(), "2025-03-31");
        assert!(moment("7d").unwrap().ends_with('Z'));
        assert!(moment("7d").unwrap() < moment("1h").unwrap());
        assert!(moment("yesterday").is_err());
    }

    #[test]
    fn addresses_are_escaped() {
        assert_eq!(address("/x", &[]), "/x");
        assert_eq!(address("/x", &[("project", "a&b=c ?".into())]), "/x?project=a%26b%3Dc+%3F");
        assert!(address_of("../status", &[]).is_err());
        assert!(address_of("", &[]).is_err());
    }
}
