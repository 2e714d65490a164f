//! `potluck mcp`

use clap::{Args, Subcommand};

use super::{CliError, Context};

mod clients;
mod diff;
mod edit;
mod install;
mod jsonc;
mod relay;
mod start;

/// Serve the memory to an AI agent over stdio, or install it in a client.
///
/// Without a command it speaks MCP on stdin and stdout, and passes everything on to the running node, so that one
/// process owns the memory however many agents use it. When no node runs, one is started in the background with
/// the same flags; it logs to `node.log` in the home folder and stays until it is stopped (`kill` the process
/// that `potluck doctor` shows).
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  potluck mcp install claude-code\n  potluck mcp install cursor --project --dry-run\n  potluck mcp clients\n  claude mcp add potluck -- potluck mcp"
)]
pub(super) struct Mcp {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the memory into a client's configuration.
    Install(install::Install),
    /// Take it out again.
    Uninstall(install::Uninstall),
    /// List the clients: which are found here, and which have the memory.
    Clients,
}

impl Mcp {
    pub(super) async fn run(self, context: Context) -> Result<(), CliError> {
        match self.command {
            None => relay::run(context).await,
            Some(Command::Install(command)) => command.run(&context),
            Some(Command::Uninstall(command)) => command.run(&context),
            Some(Command::Clients) => install::list(&context),
        }
    }
}
