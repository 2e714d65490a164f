//! The running node, or one started in the background.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use clap::Parser;

use super::super::{Cli, CliError, Command as Verb, Context, client::Client};

/// Where a node in the background says what happens.
pub(super) const LOG: &str = "node.log";
/// The log is begun anew when it is longer.
const LOG_LIMIT: u64 = 16 << 20;
/// Longest time a node may take to serve.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time after the end of the one we started in which another may turn out to serve: two agents that begin at the
/// same moment start a node each, and one of the nodes gives way.
const OTHERS: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes of the log's end that are searched for a reason.
const TAIL: u64 = 4096;

/// A client of the running node; starts one if there is none.
///
/// # Errors
/// [`CliError::Unreachable`] for a node elsewhere (`--url`) that does not answer, or with the log's last words for
/// one here that does not start.
pub(super) async fn find_or_start(context: &Context) -> Result<Client, CliError> {
    let absent = match Client::connect(context).await {
        Ok(client) => return Ok(client),
        Err(error) if context.url.is_some() => return Err(error),
        Err(error) => error,
    };
    tracing::debug!(%absent, "starting a node");
    let home = context.config.home()?;
    fs::create_dir_all(&home).map_err(failed("the home folder cannot be made"))?;
    let log = home.join(LOG);
    let mut child = spawn(&log)?;
    let started = Instant::now();
    let mut ended: Option<Instant> = None;
    loop {
        tokio::time::sleep(PAUSE).await;
        match Client::connect(context).await {
            Ok(client) => return Ok(client),
            Err(error) if started.elapsed() > PATIENCE => return Err(silent(error, &log)),
            Err(error) if ended.is_some_and(|ended| ended.elapsed() > OTHERS) => {
                return Err(silent(error, &log));
            }
            Err(_) => {}
        }
        if ended.is_none() && matches!(child.try_wait(), Ok(Some(_))) {
            ended = Some(Instant::now());
        }
    }
}

fn failed(what: &'static str) -> impl Fn(std::io::Error) -> CliError {
    move |source| CliError::Io { what, source }
}

fn spawn(log: &Path) -> Result<Child, CliError> {
    let program = std::env::current_exe().map_err(failed("this program's own path is unknown"))?;
    let words = words_of_up(std::env::args_os().skip(1).collect());
    let fresh = fs::metadata(log).map_or(true, |metadata| metadata.len() > LOG_LIMIT);
    let mut options = OpenOptions::new();
    options.create(true).append(!fresh).write(true).truncate(fresh);
    let log = options.open(log).map_err(failed("the node's log cannot be written"))?;
    Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(failed("a node cannot be started"))
}

/// The words of `potluck mcp …` with `up --detached` in place of `mcp`, so that the node gets the same flags.
fn words_of_up(words: Vec<OsString>) -> Vec<OsString> {
    for (at, _) in words.iter().enumerate().filter(|(_, word)| *word == "mcp") {
        let mut changed = words.clone();
        changed.splice(at..=at, ["up".into(), "--detached".into()]);
        let whole = std::iter::once("potluck".into()).chain(changed.iter().cloned());
        // A flag's value may be the same word; then this is no `up`, and the next one is meant.
        if matches!(Cli::try_parse_from(whole), Ok(Cli { command: Verb::Up(_), .. })) {
            return changed;
        }
    }
    vec!["up".into(), "--detached".into()]
}

/// Adds the last line of the log to why nothing answers.
fn silent(error: CliError, log: &Path) -> CliError {
    match error {
        CliError::Unreachable { url, reason } => {
            let said = last_line(log).map_or_else(String::new, |line| format!("; its log ends with: {line}"));
            let reason = format!("{reason}; one was started, see {}{said}", log.display());
            CliError::Unreachable { url, reason }
        }
        other => other,
    }
}

fn last_line(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_gets_the_same_flags() {
        for (words, wanted) in [
            ("mcp", "up --detached"),
            ("--home /x mcp", "--home /x up --detached"),
            ("--home mcp mcp --offline", "--home mcp up --detached --offline"),
            ("mcp --home mcp", "up --detached --home mcp"),
        ] {
            let split = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
            assert_eq!(words_of_up(split(words)), split(wanted));
        }
    }
}
