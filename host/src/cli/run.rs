//! `potluck run`

use std::io::{self, IsTerminal, Read, Write};

use clap::Args;
use serde_json::{Map, Value, json};

use super::{
    CliError, Context, chat,
    client::{Client, Lines, Session},
    print, print_line,
};

/// Most bytes of a prompt read from a pipe.
const PIPED: u64 = 16 << 20;

/// Ask a model once, or chat with it when there is no prompt and a terminal.
///
/// Without a running node the command brings its own for as long as it lasts.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  potluck run guide \"How do I join a pool?\"\n  potluck run guide                    chat; /help lists what can be said\n  cat notes.txt | potluck run guide \"Sum this up:\"\n  potluck run ./my-model.gguf --temperature 0.7 \"Once upon a time\""
)]
pub(super) struct Run {
    /// The model: a name, or a path of a GGUF file. `name@trusted` asks for a mode.
    model: String,
    /// The prompt; what comes through a pipe is put after it.
    prompt: Vec<String>,
    #[command(flatten)]
    options: Options,
}

/// How the answer is made.
#[derive(Args, Clone, Debug)]
pub(super) struct Options {
    /// What the model is told first.
    #[arg(long, value_name = "TEXT")]
    pub(super) system: Option<String>,
    /// 0 takes the likeliest word each time [default: 0 for one question, 0.7 in a chat].
    #[arg(long, value_name = "0-2")]
    pub(super) temperature: Option<f32>,
    /// Draw only from the likeliest words that together reach this probability.
    #[arg(long, value_name = "0-1")]
    pub(super) top_p: Option<f32>,
    /// Draw only from this many likeliest words.
    #[arg(long, value_name = "N")]
    pub(super) top_k: Option<u32>,
    /// The same seed gives the same answer.
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<i64>,
    /// Most tokens of an answer [default: until the model ends it].
    #[arg(long, value_name = "N")]
    pub(super) max_tokens: Option<u32>,
    /// Answer with a JSON object.
    #[arg(long)]
    pub(super) format_json: bool,
}

impl Run {
    pub(super) async fn run(self, context: Context) -> Result<(), CliError> {
        let piped = !io::stdin().is_terminal();
        let mut prompt = self.prompt.join(" ");
        if piped && prompt.is_empty() {
            prompt = read_pipe()?;
            if prompt.trim().is_empty() {
                return Err(CliError::Usage(
                    "there is no prompt: give one as an argument or through a pipe".into(),
                ));
            }
        } else if piped {
            let more = read_waiting_pipe()?;
            if !more.trim().is_empty() {
                prompt = format!("{prompt}\n\n{more}");
            }
        }
        let interactive = prompt.is_empty();
        let session = Session::open(&context, Some(&self.model)).await?;
        let outcome = async {
            let templated = has_template(&session.client, &self.model).await?;
            let ask = Ask { client: &session.client, model: &self.model, templated };
            if interactive {
                return chat::run(&ask, self.options.clone()).await;
            }
            let turns = turns(&self.options, &prompt);
            tokio::select! {
                outcome = once(&ask, &turns, &self.options, context.json) => outcome,
                _ = tokio::signal::ctrl_c() => Err(CliError::Interrupted),
            }
        }
        .await;
        session.close().await;
        outcome
    }
}

fn turns(options: &Options, prompt: &str) -> Vec<Value> {
    let mut turns: Vec<_> =
        options.system.iter().map(|system| json!({"role": "system", "content": system})).collect();
    turns.push(json!({"role": "user", "content": prompt}));
    turns
}

async fn has_template(client: &Client, model: &str) -> Result<bool, CliError> {
    let (name, elsewhere) = model.rsplit_once('@').map_or((model, false), |(name, _)| (name, true));
    match client.details(name).await {
        Ok(details) => Ok(details.get("template").is_some_and(Value::is_string)),
        // Whoever answers has the model and knows; this machine need not have it.
        Err(_) if elsewhere => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whom to ask.
pub(super) struct Ask<'a> {
    client: &'a Client,
    pub(super) model: &'a str,
    templated: bool,
}

impl Ask<'_> {
    /// A request; models without a chat template continue the last turn's text.
    fn body(&self, turns: &[Value], options: &Options, stream: bool) -> (&'static str, Value) {
        let mut body = Map::new();
        body.insert("model".into(), self.model.into());
        body.insert("stream".into(), stream.into());
        body.insert("stream_options".into(), json!({"include_usage": true}));
        body.insert("temperature".into(), options.temperature.unwrap_or(0.0).into());
        for (name, value) in [
            ("top_p", options.top_p.map(Value::from)),
            ("top_k", options.top_k.map(Value::from)),
            ("seed", options.seed.map(Value::from)),
            ("max_tokens", options.max_tokens.map(Value::from)),
        ] {
            if let Some(value) = value {
                body.insert(name.into(), value);
            }
        }
        if options.format_json {
            body.insert("response_format".into(), json!({"type": "json_object"}));
        }
        if self.templated {
            body.insert("messages".into(), turns.into());
            return ("/v1/chat/completions", body.into());
        }
        let prompt = turns.last().and_then(|turn| turn.get("content")).cloned().unwrap_or_default();
        body.insert("prompt".into(), prompt);
        body.entry("max_tokens").or_insert_with(|| 256.into());
        ("/v1/completions", body.into())
    }

    /// Begins a streamed answer.
    pub(super) async fn begin(&self, turns: &[Value], options: &Options) -> Result<Lines, CliError> {
        let (path, body) = self.body(turns, options, true);
        self.client.lines(path, &body).await
    }
}

/// The text that a chunk adds.
pub(super) fn text_of(chunk: &Value) -> &str {
    chunk
        .pointer("/choices/0/delta/content")
        .or_else(|| chunk.pointer("/choices/0/text"))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

async fn once(ask: &Ask<'_>, turns: &[Value], options: &Options, json: bool) -> Result<(), CliError> {
    if json {
        let (path, mut body) = ask.body(turns, options, false);
        if let Some(map) = body.as_object_mut() {
            map.remove("stream_options");
        }
        return print_line(&ask.client.post(path, &body).await?.to_string());
    }
    let mut lines = ask.begin(turns, options).await?;
    let mut ends_line = true;
    while let Some(chunk) = lines.next().await? {
        let text = text_of(&chunk);
        if !text.is_empty() {
            ends_line = text.ends_with('\n');
            print(text)?;
        }
        if chunk.pointer("/choices/0/finish_reason").and_then(Value::as_str) == Some("length") {
            let _ = writeln!(
                io::stderr(),
                "\n[the answer was cut: the token limit or the end of the context was reached]"
            );
        }
    }
    if ends_line { Ok(()) } else { print("\n") }
}

fn read_pipe() -> Result<String, CliError> {
    let mut text = String::new();
    io::stdin()
        .lock()
        .take(PIPED)
        .read_to_string(&mut text)
        .map_err(|source| CliError::Io { what: "the prompt could not be read from the pipe", source })?;
    Ok(text)
}

/// Reads a pipe or file that stands behind stdin; a stdin that is neither (a service's, a test's) is left alone.
fn read_waiting_pipe() -> Result<String, CliError> {
    #[cfg(unix)]
    {
        use std::os::{fd::AsFd, unix::fs::FileTypeExt};
        let Ok(file) = io::stdin().as_fd().try_clone_to_owned().map(std::fs::File::from) else {
            return Ok(String::new());
        };
        match file.metadata().map(|metadata| metadata.file_type()) {
            Ok(kind) if kind.is_file() || kind.is_fifo() => {}
            _ => return Ok(String::new()),
        }
    }
    read_pipe()
}
