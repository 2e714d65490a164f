//! `potluck gov`

use std::path::Path;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    CliError, Client, Context,
    credits::ended,
    output,
    pool::{list, text},
    print, print_line,
};
use crate::policy::{Kind, MAX_COMPONENT, PolicyHash};

/// Vote on which policies decide in the public pool.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  potluck gov policies                           what is approved\n  potluck gov propose pricing mine.wasm          put a component to the vote\n  potluck gov vote 3 yes --tokens 100\n  potluck gov status                             what is voted on"
)]
pub(super) struct Gov {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the policies that are in force, and those to come.
    Policies,
    /// Put a policy to the vote. Costs a deposit of tokens, which comes back.
    Propose {
        /// What it decides.
        kind: Kind,
        /// A component's file, or its hash.
        policy: String,
        /// The block from which on it decides [default: soon after the longest vote].
        #[arg(long, value_name = "BLOCK")]
        from: Option<u32>,
        /// Where the component is to be had.
        #[arg(long, value_name = "URL", default_value = "")]
        uri: String,
        /// Propose that it no longer decides.
        #[arg(long)]
        revoke: bool,
    },
    /// Vote in a referendum.
    Vote {
        /// Its number, as in `potluck gov status`.
        referendum: u32,
        /// For or against.
        #[arg(value_parser = ["yes", "no"])]
        vote: String,
        /// Tokens to vote with.
        #[arg(long, value_name = "TOKENS")]
        tokens: String,
        /// From 0 (counts a tenth, no lock) to 6 (counts six times, locked the longest).
        #[arg(long, value_name = "0-6", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=6))]
        conviction: u8,
    },
    /// Pay the deposit that a referendum needs before it is decided; `propose` does so by itself. It comes back.
    Deposit {
        /// Its number, as in `potluck gov status`.
        referendum: u32,
    },
    /// List what is voted on.
    Status,
}

impl Gov {
    pub(super) async fn run(self, context: Context) -> Result<(), CliError> {
        let client = Client::connect(&context).await?;
        let json = context.json;
        match self.command {
            Command::Policies => {
                let found = client.get("/potluck/v1/gov/policies").await?;
                if json { print_line(&found.to_string()) } else { print(&policies(&found)) }
            }
            Command::Propose { kind, policy, from, uri, revoke } => {
                let component =
                    if revoke { hash_of(&policy)? } else { offered(&client, kind, &policy).await? };
                let body =
                    json!({"kind": kind, "component": component, "from": from, "uri": uri, "revoke": revoke});
                let done = client.post("/potluck/v1/gov/propose", &body).await?;
                if json { print_line(&done.to_string()) } else { proposed(&done, &component) }
            }
            Command::Vote { referendum, vote, tokens, conviction } => {
                let aye = vote == "yes";
                let body =
                    json!({"referendum": referendum, "aye": aye, "tokens": tokens, "conviction": conviction});
                ended(&client.post("/potluck/v1/gov/vote", &body).await?, json)
            }
            Command::Deposit { referendum } => {
                let body = json!({"referendum": referendum});
                ended(&client.post("/potluck/v1/gov/deposit", &body).await?, json)
            }
            Command::Status => {
                let found = client.get("/potluck/v1/gov/referenda").await?;
                if json { print_line(&found.to_string()) } else { print(&status(&found)) }
            }
        }
    }
}

/// The hash of a component: that of a file, or the words themselves.
fn hash_of(policy: &str) -> Result<String, CliError> {
    let path = Path::new(policy);
    if !path.is_file() {
        let hash = policy.parse::<PolicyHash>().map_err(|error| CliError::Usage(error.to_string()))?;
        return Ok(hash.to_string());
    }
    let failed = |source| CliError::Io { what: "the component could not be read", source };
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_COMPONENT as u64 {
        return Err(CliError::Usage(format!("{policy} is larger than a component may be")));
    }
    Ok(PolicyHash::of(&std::fs::read(path).map_err(failed)?).to_string())
}

/// The hash of a component. That of a file is checked and kept by this machine's node, so that it has it when it is
/// approved.
async fn offered(client: &Client, kind: Kind, policy: &str) -> Result<String, CliError> {
    let hash = hash_of(policy)?;
    if !Path::new(policy).is_file() {
        return Ok(hash);
    }
    let failed = |source| CliError::Io { what: "the component could not be read", source };
    let bytes = std::fs::read(policy).map_err(failed)?;
    let request = client.to(Method::POST, "/potluck/v1/policies")?.body(bytes);
    let added = client.answer(request).await?;
    match text(&added, "kind") {
        decides if decides == kind.to_string() => Ok(text(&added, "hash").to_owned()),
        decides => Err(CliError::Usage(format!(
            "{policy} decides about {decides}, not about {kind}: propose it with `potluck gov propose {decides} {policy}`"
        ))),
    }
}

fn proposed(done: &Value, component: &str) -> Result<(), CliError> {
    let Some(referendum) = done.get("referendum").and_then(Value::as_u64) else { return ended(done, false) };
    let from = done.get("from").and_then(Value::as_u64).unwrap_or_default();
    let mut words = format!(
        "referendum {referendum}: {component} from block {from} on; vote with `potluck gov vote {referendum} yes --tokens N`"
    );
    if let Some(missing) = done.get("deposit_missing").and_then(Value::as_str) {
        words += &format!("\nthe deposit that a decision needs was not paid: {missing}");
    }
    print_line(&words)
}

fn policies(found: &Value) -> String {
    let number = |value: &Value, field: &str| value.get(field).and_then(Value::as_u64).unwrap_or_default();
    let rows: Vec<_> = list(found, "policies")
        .iter()
        .map(|it| {
            let in_force = it.get("in_force").and_then(Value::as_bool).unwrap_or_default();
            let from = number(it, "from");
            let when = if in_force { format!("since block {from}") } else { format!("from block {from} on") };
            let decides = it.get("decides").and_then(Value::as_bool).unwrap_or_default();
            let here = if decides { "decides" } else { text(it, "trouble") };
            let fields = [text(it, "kind"), text(it, "hash"), &when, here, text(it, "uri")];
            fields.map(str::to_owned)
        })
        .collect();
    if rows.is_empty() {
        return format!(
            "no policy is approved yet (block {}): the rules that are built in decide\n",
            number(found, "block")
        );
    }
    output::table(["KIND", "COMPONENT", "WHEN", "HERE", "WHERE"], &rows)
}

fn status(found: &Value) -> String {
    let rows: Vec<_> = list(found, "referenda")
        .iter()
        .map(|it| {
            let number = |field| it.get(field).and_then(Value::as_u64);
            let at = number("at").map(|at| format!(" {at}")).unwrap_or_default();
            let deposited = it.get("deposited").and_then(Value::as_bool).unwrap_or_default();
            let state = format!("{}{at}", text(it, "state"));
            let deposit = if deposited { "" } else { "deposit missing" };
            [
                number("index").unwrap_or_default().to_string(),
                state,
                text(it, "ayes").to_owned(),
                text(it, "nays").to_owned(),
                deposit.to_owned(),
            ]
        })
        .collect();
    if rows.is_empty() {
        return "nothing was voted on yet\n".into();
    }
    output::table(["REFERENDUM", "STATE", "YES", "NO", ""], &rows)
}
