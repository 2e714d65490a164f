//! `potluck pool`

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{CliError, Client, Context, print_line};
use crate::memory::Millis;

mod invite;
mod key;
mod ledger;
mod members;
mod status;

/// Share this node with machines that you trust: friends', a team's, your own.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  potluck pool create home                       found a pool\n  potluck pool invite                            print an invite for one machine\n  potluck join potluck1…                         on the other machine\n  potluck pool members                           who is there\n  potluck pool revoke anna-laptop                shut one out, at once"
)]
pub(super) struct Pool {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Found a pool. Its key stays on this machine.
    Create {
        /// What to call it.
        name: String,
        /// What to call this machine in it; without it the host's name.
        #[arg(long, value_name = "NAME")]
        as_name: Option<String>,
        /// Let so many members approve the pool's policies by vote; without it you decide.
        #[arg(long, value_name = "VOTES", value_parser = clap::value_parser!(u32).range(1..=512))]
        quorum: Option<u32>,
    },
    /// Print an invite for another machine.
    Invite(invite::Invite),
    /// List the members.
    #[command(visible_alias = "ls")]
    Members,
    /// Show one member: what it may do, and where it is.
    Show {
        /// Its name, or the beginning of its id.
        member: String,
    },
    /// Shut out a member, or take back an invite: at once, and for good.
    Revoke {
        /// A member's name, or the beginning of the id of a member or an invite.
        target: String,
        /// Why, for the others to read.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Give a member another name.
    Rename {
        /// Its name, or the beginning of its id.
        member: String,
        /// The new name.
        name: String,
    },
    /// Leave the pool.
    Leave {
        /// Leave also when nobody could invite any more afterwards.
        #[arg(long)]
        force: bool,
    },
    /// Say how the pool is, and what went wrong lately.
    Status,
    /// Show who gave and who took how much.
    Ledger(ledger::Ledger),
    /// Write the pool's key to a file, protected by a passphrase.
    ExportKey(key::ExportKey),
    /// Take over a pool's key that was exported.
    ImportKey(key::ImportKey),
}

impl Pool {
    pub(super) async fn run(self, context: Context) -> Result<(), CliError> {
        let client = Client::connect(&context).await?;
        let json = context.json;
        match self.command {
            Command::Create { name, as_name, quorum } => {
                let body = json!({"name": name, "as": as_name, "quorum": quorum});
                let done = client.post("/potluck/v1/pool", &body).await?;
                told(&done, json, |done| {
                    format!(
                        "founded the pool {}; invite a machine with `potluck pool invite`",
                        text(done, "name")
                    )
                })
            }
            Command::Invite(command) => command.run(&client, json).await,
            Command::Members => members::list(&client, json).await,
            Command::Show { member } => members::show(&client, &member, json).await,
            Command::Revoke { target, reason } => {
                let body = json!({"id": target, "reason": reason});
                let done = client.post("/potluck/v1/pool/revoke", &body).await?;
                told(&done, json, |done| format!("{} is shut out, for good", text(done, "name")))
            }
            Command::Rename { member, name } => {
                let body = json!({"id": member, "name": name});
                let done = client.post("/potluck/v1/pool/rename", &body).await?;
                told(&done, json, |done| format!("{member} is called {} now", text(done, "name")))
            }
            Command::Leave { force } => {
                let done = client.post("/potluck/v1/pool/leave", &json!({"force": force})).await?;
                told(&done, json, |done| format!("left the pool {}", text(done, "name")))
            }
            Command::Status => status::run(&client, json).await,
            Command::Ledger(command) => command.run(&client, json).await,
            Command::ExportKey(command) => command.run(&client, json).await,
            Command::ImportKey(command) => command.run(&client, json).await,
        }
    }
}

/// Prints an answer as JSON, or in words.
fn told(answer: &Value, json: bool, words: impl Fn(&Value) -> String) -> Result<(), CliError> {
    print_line(&if json { answer.to_string() } else { words(answer) })
}

/// A field that is text; empty when it is not.
pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// A moment in milliseconds since the Unix epoch, as people read it.
pub(super) fn moment(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_i64).map(|ms| Millis(ms).to_string()).unwrap_or_default()
}

/// The objects of a list.
pub(super) fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// An object without the fields that nothing was said about.
fn said(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let said = fields.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(said.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}
