//! `potluck models`

use clap::Args;
use serde_json::Value;

use super::{CliError, Context, client::Session, output, print, print_line};
use crate::api::time::unix_now;

/// List the models that can be run, wherever they came from.
#[derive(Args, Debug)]
pub(super) struct Models {}

pub(super) async fn run(context: Context) -> Result<(), CliError> {
    let session = Session::open(&context, None).await?;
    let answer = session.client.get("/potluck/v1/models").await;
    session.close().await;
    let answer = answer?;
    if context.json {
        return print_line(&answer.to_string());
    }
    let models = answer.get("models").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if models.is_empty() {
        return print("no models yet; get one with `potluck pull hf.co/USER/REPO:QUANT`\n");
    }
    let text =
        |model: &Value, field: &str| model.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let number = |model: &Value, field: &str| model.get(field).and_then(Value::as_u64).unwrap_or_default();
    let rows: Vec<_> = models
        .iter()
        .map(|model| {
            let modified = number(model, "modified");
            let age = if modified == 0 {
                "-".into()
            } else {
                output::span(unix_now().saturating_sub(modified)) + " ago"
            };
            let size = output::bytes(number(model, "size"));
            [text(model, "name"), text(model, "kind"), size, text(model, "origin"), age]
        })
        .collect();
    print(&output::table(["NAME", "KIND", "SIZE", "FROM", "MODIFIED"], &rows))
}
