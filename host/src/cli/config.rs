//! `potluck config`

use clap::{Args, Subcommand};
use serde_json::json;

use super::{CliError, print, print_line};
use crate::config::{Config, DEFAULT_TOML, Flags};

/// Show the configuration.
#[derive(Args, Debug)]
pub(super) struct ConfigCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum What {
    /// The default configuration with comments, to start a file of one's own.
    PrintDefault,
    /// What is in force now: file, environment and flags together; keys are not shown.
    Show,
    /// The file that is read.
    Path,
}

impl ConfigCommand {
    /// Whether it works even when the configuration file is broken.
    pub(super) fn needs_no_file(&self) -> bool {
        !matches!(self.what, What::Show)
    }

    pub(super) fn run(&self, flags: &Flags, json: bool) -> Result<(), CliError> {
        match self.what {
            What::PrintDefault if json => {
                print_line(&serde_json::to_value(Config::default()).unwrap_or_default().to_string())
            }
            What::PrintDefault => print(DEFAULT_TOML),
            What::Path => {
                let path = match &flags.config {
                    Some(path) => path.clone(),
                    None => Config::default_path()?,
                };
                if json {
                    return print_line(&json!({"path": path, "exists": path.exists()}).to_string());
                }
                print_line(&path.display().to_string())
            }
            What::Show => {
                let mut config = Config::load(flags)?;
                for key in &mut config.http.keys {
                    key.token = key.token.as_ref().map(|_| "(hidden)".into());
                }
                config.home = Some(config.home()?);
                if json {
                    return print_line(&serde_json::to_value(&config).unwrap_or_default().to_string());
                }
                let text = toml::to_string(&config).map_err(|error| CliError::Broken(error.to_string()))?;
                print(&text)
            }
        }
    }
}
