//! `potluck policy`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::{CliError, Client, Context, pool::moment, print_line};
use crate::policy::{Kind, MAX_COMPONENT};

mod explain;
mod list;
mod local;
mod simulate;

/// Let WebAssembly components decide who serves a job, what it costs and what counts as cheating.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  potluck policy new mine --kind routing         begin a policy\n  potluck policy build mine                      build it\n  potluck policy check mine/mine.wasm            see whether a node would take it\n  potluck policy propose mine/mine.wasm          put it to the vote; as the pool's owner: let it decide\n  potluck policy list                            what decides, and what is voted on\n  potluck policy explain JOB                     why a job went where it went"
)]
pub(super) struct Policy {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List what decides, what is voted on, and which components are here.
    #[command(visible_alias = "ls")]
    List,
    /// Show what a component says of itself and what was found out about it.
    Show {
        /// Its hash, the beginning of it, or the name of a policy that decides.
        policy: String,
    },
    /// See whether a node would take a component, and why not. Needs no node.
    Check {
        /// The component.
        file: PathBuf,
    },
    /// Ask a component one question. Needs no node.
    Try(local::Try),
    /// Begin a policy: writes a folder with everything that is needed.
    New(local::New),
    /// Build a policy's folder into a component.
    Build(local::Build),
    /// Try routing policies on a pool that exists only in numbers. Needs no node.
    Simulate(simulate::Simulate),
    /// Check a component and keep it on this machine, so that it is here when others approve it.
    Add {
        /// The component.
        file: PathBuf,
    },
    /// Put a policy to the vote of the pool; where its owner decides, and as its owner, this decides.
    #[command(visible_alias = "approve")]
    Propose(Propose),
    /// Vote on what was proposed.
    Vote {
        /// The component's hash, or the beginning of it.
        policy: String,
        /// For or against.
        #[arg(value_parser = ["yes", "no"])]
        vote: String,
        /// A few words for the others.
        #[arg(long, value_name = "TEXT", default_value = "")]
        note: String,
    },
    /// Let a policy that is here decide from now on; `native` is the rule that is built in.
    Use {
        /// Its hash, the beginning of it, a file, or `native`.
        policy: String,
        /// What `native` is to decide again.
        #[arg(long)]
        kind: Option<Kind>,
    },
    /// Go back to what decided before.
    Rollback {
        /// What about.
        kind: Kind,
        /// On this machine only, without asking the pool.
        #[arg(long)]
        here: bool,
    },
    /// Show why a job went where it went, and execute the decision again.
    Explain(explain::Explain),
}

/// Put a policy to the vote.
#[derive(Args, Debug)]
struct Propose {
    /// A component's file, or the hash of one that is here.
    policy: String,
    /// When it is to decide, as in 2026-12-24T18:00:00Z; without it as soon as enough are for it.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// A few words for the others.
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
}

impl Policy {
    pub(super) async fn run(self, context: Context) -> Result<(), CliError> {
        let json = context.json;
        match self.command {
            Command::Check { file } => return local::check(&file, json),
            Command::Try(command) => return command.run(json),
            Command::New(command) => return command.run(json),
            Command::Build(command) => return command.run(json),
            Command::Simulate(command) => return command.run(json),
            _ => {}
        }
        let client = Client::connect(&context).await?;
        match self.command {
            Command::List => list::run(&client, json).await,
            Command::Show { policy } => {
                let found =
                    client.get(&format!("/potluck/v1/policies/components/{}", word(&policy)?)).await?;
                if json { print_line(&found.to_string()) } else { print_line(local::page(&found).trim_end()) }
            }
            Command::Add { file } => {
                let bytes = local::read(&file, MAX_COMPONENT as u64)?;
                let request = client.to(Method::POST, "/potluck/v1/policies")?.body(bytes);
                let added = client.answer(request).await?;
                if json { print_line(&added.to_string()) } else { print_line(local::page(&added).trim_end()) }
            }
            Command::Propose(Propose { policy, from, note }) => {
                let from = from.as_deref().map(time).transpose()?;
                let component = offered(&client, &policy).await?;
                let body = json!({"component": component, "from_ms": from, "note": note, "yes": true});
                voted(&vote(&client, body).await?, json)
            }
            Command::Vote { policy, vote: word, note } => {
                let body = json!({"component": policy, "yes": word == "yes", "note": note});
                voted(&vote(&client, body).await?, json)
            }
            Command::Use { policy, kind } if policy == "native" => {
                voted(&vote(&client, json!({"kind": kind, "yes": true})).await?, json)
            }
            Command::Use { policy, .. } => {
                let component = offered(&client, &policy).await?;
                let now = crate::memory::Millis::now().0;
                voted(
                    &vote(&client, json!({"component": component, "from_ms": now, "yes": true})).await?,
                    json,
                )
            }
            Command::Rollback { kind, here } => {
                let body = json!({"kind": kind, "here": here});
                let done = client.post("/potluck/v1/policies/rollback", &body).await?;
                if here {
                    let to = done.get("hash").and_then(Value::as_str).unwrap_or("the rule that is built in");
                    let words = format!("on this machine {kind} is decided by {to} again");
                    return print_line(&if json { done.to_string() } else { words });
                }
                voted(&done, json)
            }
            Command::Explain(command) => command.run(&client, json).await,
            Command::Check { .. }
            | Command::Try(_)
            | Command::New(_)
            | Command::Build(_)
            | Command::Simulate(_) => Ok(()),
        }
    }
}

/// A hash or name that can stand in an address.
fn word(text: &str) -> Result<&str, CliError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if text.is_empty() || !text.chars().all(plain) {
        return Err(CliError::Usage(format!(
            "`{text}` is no hash and no name of a policy: see `potluck policy list`"
        )));
    }
    Ok(text)
}

/// The hash of a component that the node has: that of a file is given to it first.
async fn offered(client: &Client, policy: &str) -> Result<String, CliError> {
    let path = Path::new(policy);
    if !path.is_file() {
        return Ok(policy.to_owned());
    }
    let bytes = local::read(path, MAX_COMPONENT as u64)?;
    let request = client.to(Method::POST, "/potluck/v1/policies")?.body(bytes);
    let added = client.answer(request).await?;
    Ok(added.get("hash").and_then(Value::as_str).unwrap_or_default().to_owned())
}

async fn vote(client: &Client, body: Value) -> Result<Value, CliError> {
    let fields = body.as_object().into_iter().flatten();
    let said: serde_json::Map<_, _> = fields
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    client.post("/potluck/v1/policies/vote", &Value::Object(said)).await
}

fn voted(done: &Value, json: bool) -> Result<(), CliError> {
    if json {
        return print_line(&done.to_string());
    }
    let text = |field| done.get(field).and_then(Value::as_str).unwrap_or_default();
    let votes = done.get("yes").and_then(Value::as_array).map_or(0, Vec::len);
    let needed = done.get("needed").and_then(Value::as_u64).unwrap_or(1);
    let approved = done.get("approved").and_then(Value::as_bool).unwrap_or_default();
    let (kind, hash, from) = (text("kind"), text("hash"), moment(done, "from_ms"));
    print_line(&if approved {
        format!("approved: {hash} decides about {kind} from {from} on")
    } else {
        format!("{votes} of {needed} votes: {hash} for {kind}, from {from} on")
    })
}

/// A moment in milliseconds since 1970.
fn time(text: &str) -> Result<i64, CliError> {
    let moment: jiff::Timestamp = text.parse().map_err(|error| {
        CliError::Usage(format!("--from {text} is no time ({error}); write one as in 2026-12-24T18:00:00Z"))
    })?;
    Ok(moment.as_millisecond())
}
