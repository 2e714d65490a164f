//! `potluck memory search`

use clap::Args;
use serde_json::{Value, json};

use super::{
    super::{CliError, client::Client, print, print_line},
    FilterArgs, page,
};

/// Ask what is remembered, in plain words; best first.
#[derive(Args, Debug)]
pub(super) struct Search {
    /// The question.
    #[arg(required = true)]
    query: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Most memories.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=200))]
    limit: u16,
    /// Only what was known then: a date, a time, or how long ago.
    #[arg(long, value_name = "WHEN", value_parser = super::moment)]
    as_of: Option<String>,
    /// Show how each was ranked.
    #[arg(long)]
    explain: bool,
}

impl Search {
    pub(super) async fn run(self, client: &Client, as_json: bool) -> Result<(), CliError> {
        let mut fields = self.filter.fields();
        fields.insert("query".into(), self.query.join(" ").into());
        fields.insert("limit".into(), self.limit.into());
        fields.insert("explain".into(), self.explain.into());
        fields.insert("as_of".into(), json!(self.as_of));
        let answer = client.post("/potluck/v1/memory/recall", &fields.into()).await?;
        if as_json {
            return print_line(&answer.to_string());
        }
        let items = answer.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        print(&page::Page::new().items(items, true))?;
        if let Some(note) = answer.get("note").and_then(Value::as_str) {
            print_line(&format!("note: {note}"))?;
        }
        let took = answer.get("took_ms").and_then(Value::as_f64).unwrap_or_default();
        let count = items.len();
        print_line(&format!("{count} in {took:.1} ms"))
    }
}
