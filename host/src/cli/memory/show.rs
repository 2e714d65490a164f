//! `potluck memory show`

use clap::Args;
use serde_json::Value;

use super::{
    super::{CliError, client::Client, print, print_line},
    address_of, page,
};

/// Show one memory in full.
#[derive(Args, Debug)]
pub(super) struct Show {
    /// Its id.
    id: String,
    /// Show every version too, oldest first.
    #[arg(long)]
    history: bool,
}

impl Show {
    pub(super) async fn run(self, client: &Client, as_json: bool) -> Result<(), CliError> {
        let pairs: &[_] = if self.history { &[("history", "true".to_owned())] } else { &[] };
        let answer = client.get(&address_of(&self.id, pairs)?).await?;
        if as_json {
            return print_line(&answer.to_string());
        }
        let page = page::Page::new();
        print(&page.full(&answer))?;
        let history = answer.get("history").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if !history.is_empty() {
            print_line("history, oldest first:\n")?;
            print(&page.items(history, false))?;
        }
        Ok(())
    }
}
