//! `potluck memory reindex`

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget};
use serde_json::{Value, json};

use super::super::{CliError, client::Client, print_line};

/// Builds the indexes anew; the memory answers meanwhile.
pub(super) async fn run(client: &Client, as_json: bool) -> Result<(), CliError> {
    let mut lines = client.lines("/potluck/v1/memory/reindex", &json!({})).await?;
    let bar = ProgressBar::new(0);
    if as_json || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let mut finished = false;
    while let Some(step) = lines.next().await? {
        if as_json {
            print_line(&step.to_string())?;
        }
        let number = |field: &str| step.get(field).and_then(Value::as_u64);
        if let (Some(done), Some(total)) = (number("done"), number("total")) {
            bar.set_length(total);
            bar.set_position(done);
        }
        finished |= step.get("status").is_some_and(|status| status == "success");
    }
    bar.finish_and_clear();
    match finished {
        true if as_json => Ok(()),
        true => print_line(&format!("indexed {} records anew", bar.position())),
        false => Err(CliError::Broken("the node stopped without saying why".into())),
    }
}
