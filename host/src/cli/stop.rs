//! `potluck stop`

use clap::Args;
use serde_json::{Value, json};

use super::{CliError, Client, Context, print_line};

/// Unload a model from memory once its running requests are done.
#[derive(Args, Debug)]
pub(super) struct Stop {
    /// The model.
    model: String,
}

impl Stop {
    pub(super) async fn run(self, context: Context) -> Result<(), CliError> {
        let client = Client::connect(&context).await?;
        let answer = client.post("/potluck/v1/models/unload", &json!({"model": self.model})).await?;
        if context.json {
            return print_line(&answer.to_string());
        }
        match answer.get("was_loaded").and_then(Value::as_bool) {
            Some(false) => print_line(&format!("{} was not loaded", self.model)),
            _ => print_line(&format!("unloaded {}", self.model)),
        }
    }
}
