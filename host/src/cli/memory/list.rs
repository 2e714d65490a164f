//! `potluck memory list`

use clap::Args;
use serde_json::Value;

use super::{
    super::{CliError, client::Client, print, print_line},
    FilterArgs, address, page,
};

/// List the latest memories, newest first.
#[derive(Args, Debug)]
pub(super) struct List {
    #[command(flatten)]
    filter: FilterArgs,
    /// Most memories.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
    limit: u16,
}

impl List {
    pub(super) async fn run(self, client: &Client, as_json: bool) -> Result<(), CliError> {
        let mut pairs = self.filter.pairs();
        pairs.push(("limit", self.limit.to_string()));
        let answer = client.get(&address("/potluck/v1/memory/recent", &pairs)).await?;
        if as_json {
            return print_line(&answer.to_string());
        }
        let items = answer.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        print(&page::Page::new().items(items, false))
    }
}
