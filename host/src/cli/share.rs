//! `potluck share`

use clap::Args;
use serde_json::{Value, json};

use super::{CliError, Client, Context, print_line};

/// Let the members of the pool use the models of a server that runs already: Ollama's, llama.cpp's, or any that speaks
/// OpenAI's API. It is shared until the node stops.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  potluck share http://localhost:11434\n  potluck share http://localhost:8080 --slots 2"
)]
pub(super) struct Share {
    /// Its address.
    server: String,
    /// A key that it wants.
    #[arg(long, env = "POTLUCK_SHARE_KEY", value_name = "KEY", hide_env_values = true)]
    key: Option<String>,
    /// Requests it is given at the same time.
    #[arg(long, value_name = "N", default_value_t = 4)]
    slots: u32,
}

impl Share {
    pub(super) async fn run(self, context: Context) -> Result<(), CliError> {
        let client = Client::connect(&context).await?;
        let mut body = json!({"url": self.server, "slots": self.slots});
        if let (Some(fields), Some(key)) = (body.as_object_mut(), self.key) {
            fields.insert("key".into(), key.into());
        }
        let shared = client.post("/potluck/v1/pool/share", &body).await?;
        if context.json {
            return print_line(&shared.to_string());
        }
        let models = shared.get("models").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let names: Vec<&str> = models.iter().filter_map(Value::as_str).collect();
        print_line(&format!("the pool can use {}", names.join(", ")))
    }
}
