//! `potluck pool export-key` and `potluck pool import-key`

use std::{
    fs,
    io::{self, IsTerminal, Read, Write},
    path::PathBuf,
};

use clap::Args;
use serde_json::{Value, json};

use super::super::{CliError, client::Client, print_line};

/// Shortest passphrase.
const SHORTEST: usize = 8;

/// Write the pool's key to a file, protected by a passphrase (asked for, or POTLUCK_PASSPHRASE).
#[derive(Args, Debug)]
pub(super) struct ExportKey {
    /// The file, which must not exist.
    file: PathBuf,
}

/// Take over a pool's key that was exported: this machine can then invite and shut out members.
#[derive(Args, Debug)]
pub(super) struct ImportKey {
    /// The file.
    file: PathBuf,
}

impl ExportKey {
    pub(super) async fn run(self, client: &Client, json: bool) -> Result<(), CliError> {
        let failed = |source| CliError::Io { what: "the key could not be written", source };
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let passphrase = passphrase(true)?;
        let answer = client.post("/potluck/v1/pool/key/export", &json!({"passphrase": passphrase})).await?;
        let key = answer.get("key").and_then(Value::as_str).unwrap_or_default();
        let mut file = options.open(&self.file).map_err(failed)?;
        writeln!(file, "{key}").and_then(|()| file.sync_all()).map_err(failed)?;
        let words = format!("wrote {}; whoever has it and the passphrase owns the pool", self.file.display());
        print_line(&if json { json!({"file": self.file}).to_string() } else { words })
    }
}

impl ImportKey {
    pub(super) async fn run(self, client: &Client, json: bool) -> Result<(), CliError> {
        let failed = |source| CliError::Io { what: "the key could not be read", source };
        let mut key = String::new();
        fs::File::open(&self.file)
            .and_then(|file| file.take(4096).read_to_string(&mut key))
            .map_err(failed)?;
        let body = json!({"key": key.trim(), "passphrase": passphrase(false)?});
        let answer = client.post("/potluck/v1/pool/key/import", &body).await?;
        let words = "this machine owns the pool's key now";
        print_line(&if json { answer.to_string() } else { words.to_owned() })
    }
}

/// The passphrase from the environment, or from the terminal.
fn passphrase(new: bool) -> Result<String, CliError> {
    if let Ok(given) = std::env::var("POTLUCK_PASSPHRASE") {
        return checked(given, new);
    }
    if !io::stdin().is_terminal() {
        return Err(CliError::Usage(
            "there is no terminal to ask for a passphrase; set POTLUCK_PASSPHRASE".into(),
        ));
    }
    let failed = |source| CliError::Io { what: "the passphrase could not be read", source };
    let first = hidden("passphrase: ").map_err(failed)?;
    if new && hidden("once more: ").map_err(failed)? != first {
        return Err(CliError::Usage("the two passphrases differ".into()));
    }
    checked(first, new)
}

fn checked(passphrase: String, new: bool) -> Result<String, CliError> {
    if new && passphrase.chars().count() < SHORTEST {
        return Err(CliError::Usage(format!("a passphrase needs at least {SHORTEST} characters")));
    }
    Ok(passphrase)
}

/// Asks on the terminal without showing what is typed.
fn hidden(prompt: &str) -> io::Result<String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = io::stdin();
    write!(io::stderr(), "{prompt}")?;
    let before = tcgetattr(&stdin)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &silent)?;
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    // The terminal shows what is typed again, whatever happened.
    tcsetattr(&stdin, OptionalActions::Flush, &before)?;
    writeln!(io::stderr())?;
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
