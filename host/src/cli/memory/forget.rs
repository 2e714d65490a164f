//! `potluck memory forget`

use std::io::{self, BufRead, IsTerminal, Write};

use clap::Args;
use serde_json::{Map, Value};

use super::{
    super::{CliError, client::Client, print, print_line},
    FilterArgs, address_of, page,
};

/// Memories shown before the question whether to forget them.
const SHOWN: usize = 10;

/// Forget memories, given by ids or by what describes them. It shows what would go, and asks.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  potluck memory forget 0197c2a4-…\n  potluck memory forget --project old-shop --until 2024-01-01\n  potluck memory forget --tag draft --hard --yes"
)]
pub(super) struct Forget {
    /// Their ids.
    ids: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Erase the texts for good; without it the history still has them.
    #[arg(long)]
    hard: bool,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
}

impl Forget {
    pub(super) async fn run(self, client: &Client, json: bool) -> Result<(), CliError> {
        if self.ids.is_empty() == self.filter.is_empty() {
            return Err(CliError::Usage(
                "say what to forget: ids, or one of --project, --kind, --tag, --since and --until".into(),
            ));
        }
        if self.yes {
            let done = client.post("/potluck/v1/memory/forget", &self.request(true)).await?;
            return report(&done, json);
        }
        let would = client.post("/potluck/v1/memory/forget", &self.request(false)).await?;
        if json {
            return print_line(&would.to_string());
        }
        let count = would.get("count").and_then(Value::as_u64).unwrap_or_default();
        if count == 0 {
            return print_line("nothing matches, so nothing is forgotten");
        }
        show(client, &would).await?;
        if !io::stdin().is_terminal() {
            return Err(CliError::Usage(format!("{count} would be forgotten; pass --yes to do it")));
        }
        if !ask(count, self.hard)? {
            return print_line("nothing was forgotten");
        }
        let done = client.post("/potluck/v1/memory/forget", &self.request(true)).await?;
        report(&done, json)
    }

    fn request(&self, confirm: bool) -> Value {
        let mut fields = Map::new();
        if self.ids.is_empty() {
            fields.insert("filter".into(), self.filter.fields().into());
        } else {
            fields.insert("ids".into(), self.ids.as_slice().into());
        }
        if let Some(reason) = &self.reason {
            fields.insert("reason".into(), reason.as_str().into());
        }
        fields.insert("hard".into(), self.hard.into());
        fields.insert("confirm".into(), confirm.into());
        fields.into()
    }
}

/// Shows the first of what would go.
async fn show(client: &Client, would: &Value) -> Result<(), CliError> {
    let ids: Vec<_> =
        would.get("ids").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let mut items = Vec::new();
    for id in ids.iter().take(SHOWN) {
        items.push(client.get(&address_of(id, &[])?).await?);
    }
    print(&page::Page::new().items(&items, false))?;
    let count = would.get("count").and_then(Value::as_u64).unwrap_or_default();
    let more = count.saturating_sub(items.len() as u64);
    if more > 0 { print_line(&format!("… and {more} more")) } else { Ok(()) }
}

fn ask(count: u64, hard: bool) -> Result<bool, CliError> {
    let memories = if count == 1 { "this memory".to_owned() } else { format!("these {count} memories") };
    let how = if hard { "Erase {} for good?" } else { "Forget {}?" };
    let failed = |source| CliError::Io { what: "the answer could not be read", source };
    write!(io::stderr(), "{} [y/N] ", how.replace("{}", &memories)).map_err(failed)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn report(done: &Value, json: bool) -> Result<(), CliError> {
    if json {
        return print_line(&done.to_string());
    }
    let count = done.get("count").and_then(Value::as_u64).unwrap_or_default();
    let hard = done.get("hard").and_then(Value::as_bool).unwrap_or_default();
    print_line(&if hard { format!("erased {count} for good") } else { format!("forgot {count}") })
}
