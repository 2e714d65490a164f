//! `potluck ps`

use clap::Args;
use serde_json::Value;

use super::{CliError, Client, Context, output, print, print_line};

/// List the models in memory, and how busy they are.
#[derive(Args, Debug)]
pub(super) struct Ps {}

pub(super) async fn run(context: Context) -> Result<(), CliError> {
    let client = Client::connect(&context).await?;
    let answer = client.get("/potluck/v1/status").await?;
    let models = answer.get("models").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if context.json {
        return print_line(&serde_json::json!({"models": models}).to_string());
    }
    if models.is_empty() {
        return print("no model is in memory; one is loaded when it is first asked\n");
    }
    let text =
        |model: &Value, field: &str| model.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let number = |model: &Value, field: &str| model.get(field).and_then(Value::as_u64).unwrap_or_default();
    let rows: Vec<_> = models
        .iter()
        .map(|model| {
            let memory = number(model, "weights_bytes") + number(model, "cache_bytes");
            let until = match model.pointer("/expires_in/secs").and_then(Value::as_u64) {
                Some(seconds) => format!("in {}", output::span(seconds)),
                None => "never".into(),
            };
            [
                text(model, "name"),
                text(model, "device"),
                output::bytes(memory),
                number(model, "context").to_string(),
                number(model, "active").to_string(),
                number(model, "queued").to_string(),
                until,
            ]
        })
        .collect();
    print(&output::table(["NAME", "ON", "MEMORY", "CONTEXT", "ACTIVE", "QUEUED", "UNLOADED"], &rows))
}
