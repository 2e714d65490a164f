//! `potluck share`

use clap::Args;
use serde_json::{Value, json};

use super::{CliError, Client, Context, print_line};

/// Let the members of the pool use the models of a server that runs already: Ollama's, llama.cpp's, or any that speaks
/// OpenAI's API. It stays shared, also after a restart, until `--stop`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  potluck share http://localhost:11434\n  potluck share http://localhost:8080 --slots 2\n  potluck share                                  list what is shared\n  potluck share --stop http://localhost:8080"
)]
pub(super) struct Share {
    /// Its address; without one, what is shared is listed.
    server: Option<String>,
    /// Share it no longer.
    #[arg(long, requires = "server")]
    stop: bool,
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
        let Some(server) = self.server else { return list(&client, context.json).await };
        if self.stop {
            let ended = client.post("/potluck/v1/pool/unshare", &json!({"url": server})).await?;
            let words = format!("{server} is shared no longer");
            return print_line(&if context.json { ended.to_string() } else { words });
        }
        let mut body = json!({"url": server, "slots": self.slots});
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

async fn list(client: &Client, json: bool) -> Result<(), CliError> {
    let shared = client.get("/potluck/v1/pool/share").await?;
    if json {
        return print_line(&shared.to_string());
    }
    let servers = shared.get("servers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if servers.is_empty() {
        return print_line(
            "nothing is shared; `potluck share http://localhost:11434` shares an Ollama server",
        );
    }
    for server in servers {
        let url = server.get("url").and_then(Value::as_str).unwrap_or_default();
        let models = server.get("models").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let names: Vec<&str> = models.iter().filter_map(Value::as_str).collect();
        let there = server.get("there").and_then(Value::as_bool).unwrap_or_default();
        print_line(&format!("{url}  {}", if there { names.join(", ") } else { "away; tried again".into() }))?;
    }
    Ok(())
}
