//! `potluck completions`

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, CliError, print};

/// Print a shell's completion script.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  potluck completions bash > ~/.local/share/bash-completion/completions/potluck"
)]
pub(super) struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "potluck", &mut script);
        print(&String::from_utf8_lossy(&script))
    }
}
