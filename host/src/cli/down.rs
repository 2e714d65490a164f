//! `potluck down`

use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{CliError, Context, print_line};
use crate::node::home::{self, Advert};

/// Longest that a node takes to finish its requests, and some more.
const PATIENCE: Duration = Duration::from_secs(20);

/// Stop the node that uses this home folder, once its running requests are done.
#[derive(Args, Debug)]
pub(super) struct Down {}

pub(super) async fn run(context: Context) -> Result<(), CliError> {
    let folder = context.config.home()?;
    let told = |words: &str, stopped: bool| {
        print_line(&if context.json { json!({"stopped": stopped}).to_string() } else { words.to_owned() })
    };
    let Some(advert) = Advert::read(&folder) else {
        return told("no node uses this home folder", false);
    };
    let process = i32::try_from(advert.pid).ok().and_then(Pid::from_raw);
    let signalled = process.map(|process| kill_process(process, Signal::TERM));
    match signalled {
        Some(Ok(())) => {}
        // It ended without taking its notice back.
        Some(Err(rustix::io::Errno::SRCH)) | None => return told("no node uses this home folder", false),
        Some(Err(error)) => {
            return Err(CliError::Io {
                what: "the node could not be asked to stop",
                source: std::io::Error::from(error),
            });
        }
    }
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if !home::is_used(&folder) {
            return told("stopped", true);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let pid = advert.pid;
    Err(CliError::Broken(format!("process {pid} does not stop; end it with `kill -9 {pid}`")))
}
