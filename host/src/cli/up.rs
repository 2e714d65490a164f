//! `potluck up`

use clap::Args;
use serde_json::json;

use super::{CliError, Context, print_line};
use crate::node::Node;

/// Run the node in the foreground until SIGINT or SIGTERM.
///
/// Prints one line `ready http://…` when it serves; everything else goes to stderr.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  potluck up\n  potluck up --model ./my-model.gguf --listen 127.0.0.1:0\n  POTLUCK_PARALLEL=4 potluck up --keep-alive forever"
)]
pub(super) struct Up {
    /// Offer this model besides those found: a name, or a path of a GGUF file (repeatable).
    #[arg(long = "model", env = "POTLUCK_MODELS", value_name = "NAME|PATH", value_delimiter = ',')]
    pub(super) models: Vec<String>,
    /// Leave the session of the terminal or program that started it: `potluck mcp` starts a node so.
    #[arg(long, hide = true)]
    detached: bool,
}

impl Up {
    pub(super) async fn run(self, context: Context) -> Result<(), CliError> {
        #[cfg(unix)]
        if self.detached {
            // It fails only for a process that leads a session already.
            let _ = rustix::process::setsid();
        }
        serve(context).await
    }
}

async fn serve(context: Context) -> Result<(), CliError> {
    // Before the ready line, so that a signal right after it is not missed.
    let mut signals = Signals::new()?;
    let mut node = Node::bind(context.config).await?;
    let url = node.url();
    if context.json {
        print_line(&json!({"event": "ready", "url": url}).to_string())?;
    } else {
        print_line(&format!("ready {url}"))?;
    }
    tokio::select! {
        () = signals.next() => {}
        () = node.join() => {
            return Err(CliError::Broken("the server ended by itself".into()));
        }
    }
    tracing::info!("stopping; a second signal stops at once");
    tokio::select! {
        () = node.shutdown() => Ok(()),
        () = signals.next() => Err(CliError::Interrupted),
    }
}

/// SIGINT and SIGTERM.
#[derive(Debug)]
struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> Result<Self, CliError> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen =
            |kind| signal(kind).map_err(|source| CliError::Io { what: "signals cannot be received", source });
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    #[cfg(not(unix))]
    fn new() -> Result<Self, CliError> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
