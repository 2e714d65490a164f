//! `potluck join`

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
};

use clap::Args;
use serde_json::{Value, json};

use super::{CliError, Client, Context, print_line};

/// No invite is longer, with line breaks and all.
const LIMIT: u64 = 8 * 1024;

/// Join a trusted pool with an invite. Returns when this machine is a member.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  potluck join potluck1qv8…\n  potluck join --file invite.txt\n  ssh desk potluck pool invite | potluck join -"
)]
pub(super) struct Join {
    /// The invite; `-` reads it from stdin.
    #[arg(env = "POTLUCK_INVITE", hide_env_values = true, required_unless_present = "file")]
    invite: Option<String>,
    /// Read the invite from a file.
    #[arg(long, value_name = "FILE", conflicts_with = "invite")]
    file: Option<PathBuf>,
    /// What to call this machine; without it the invite's name, or the host's.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

impl Join {
    pub(super) async fn run(self, context: Context) -> Result<(), CliError> {
        let invite = self.invite()?;
        let client = Client::connect(&context).await?;
        if !context.json {
            eprintln!("joining…");
        }
        let body = json!({"invite": invite, "name": self.name});
        let done = client.post("/potluck/v1/pool/join", &body).await?;
        if context.json {
            return print_line(&done.to_string());
        }
        let text = |field: &str| done.get(field).and_then(Value::as_str).unwrap_or_default();
        print_line(&format!("joined the pool {} as {}", text("pool"), text("name")))
    }

    fn invite(&self) -> Result<String, CliError> {
        let mut text = String::new();
        let failed = |source| CliError::Io { what: "the invite could not be read", source };
        match (&self.file, self.invite.as_deref()) {
            (Some(path), _) => {
                File::open(path)
                    .and_then(|file| file.take(LIMIT).read_to_string(&mut text))
                    .map_err(failed)?;
            }
            (None, Some("-")) => {
                io::stdin().lock().take(LIMIT).read_to_string(&mut text).map_err(failed)?;
            }
            (None, Some(invite)) => text.push_str(invite),
            (None, None) => {}
        }
        Ok(text)
    }
}
