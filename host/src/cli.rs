//! The commands: one file each, thin clients of a running node.

use std::{
    fmt::Write as _,
    io::{self, Write},
    process::ExitCode,
};

use clap::{Args, CommandFactory, Parser, Subcommand};
use serde_json::json;
use tracing_subscriber::EnvFilter;

use crate::{
    config::{Config, ConfigError, Flags, LogFormat},
    node::NodeError,
};

mod bench;
#[cfg(feature = "public")]
mod chain;
mod chat;
mod client;
mod completions;
mod config;
#[cfg(feature = "public")]
mod credits;
mod doctor;
mod down;
#[cfg(feature = "public")]
mod gov;
mod join;
mod mcp;
mod memory;
mod models;
mod output;
mod peer;
mod policy;
mod pool;
#[cfg(feature = "public")]
mod provider;
mod ps;
#[cfg(feature = "public")]
mod public;
mod pull;
mod rm;
mod run;
mod share;
mod show;
mod stop;
mod up;

use client::Client;

/// Compute that a community owns: AI on your own machine first.
#[derive(Debug, Parser)]
#[command(name = "potluck", version, arg_required_else_help = true, propagate_version = true, max_term_width = 110, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:\n  potluck up                                     start the node\n  potluck run guide \"How do I join a pool?\"      ask once\n  potluck run guide                              chat\n  potluck pull hf.co/Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M\n\nEvery flag has an environment variable; `potluck up --help` shows them all.";

/// Flags of every command.
#[derive(Args, Debug)]
struct Common {
    /// Write JSON instead of text.
    #[arg(long, global = true, env = "POTLUCK_JSON", value_parser = clap::builder::BoolishValueParser::new(), num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_env = true)]
    json: bool,
    /// Ask the node at this address instead of the one on this machine.
    #[arg(long, global = true, env = "POTLUCK_URL", value_name = "URL")]
    url: Option<String>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node in the foreground.
    Up(up::Up),
    /// Stop the node.
    Down(down::Down),
    /// Ask a model once, or chat with it.
    Run(run::Run),
    /// Fetch a model.
    Pull(pull::Pull),
    /// List the models that can be run.
    #[command(visible_aliases = ["list", "ls"])]
    Models(models::Models),
    /// Show what a model is.
    Show(show::Show),
    /// List the models in memory.
    Ps(ps::Ps),
    /// Unload a model.
    Stop(stop::Stop),
    /// Delete a pulled model.
    Rm(rm::Rm),
    /// Keep and search what your agents remember.
    Memory(memory::MemoryCommand),
    /// Give AI agents the memory: serve MCP over stdio, or install it in a client.
    Mcp(mcp::Mcp),
    /// Share this node with machines that you trust.
    Pool(pool::Pool),
    /// Let the pool use the models of another server: Ollama's, llama.cpp's or any that speaks OpenAI's API.
    Share(share::Share),
    /// Let components decide who serves, what it costs and what is cheating.
    Policy(policy::Policy),
    /// Join a trusted pool with an invite.
    Join(join::Join),
    /// Credits of the public pool: what this machine has, owes and earned.
    #[cfg(feature = "public")]
    Credits(credits::Credits),
    /// Offer this machine to the public pool.
    #[cfg(feature = "public")]
    Provider(provider::Provider),
    /// Serve strangers, and see what was earned and paid.
    #[cfg(feature = "public")]
    Public(public::Public),
    /// Vote on the policies of the public pool.
    #[cfg(feature = "public")]
    Gov(gov::Gov),
    /// The chain of the public pool.
    #[cfg(feature = "public")]
    Chain(chain::Chain),
    /// Say what this machine can do, and what is wrong.
    Doctor(doctor::Doctor),
    /// Measure a model's speed.
    Bench(bench::Bench),
    /// Print a shell's completion script.
    Completions(completions::Completions),
    /// Show the configuration.
    Config(config::ConfigCommand),
}

/// What a command works with.
#[derive(Debug)]
struct Context {
    json: bool,
    url: Option<String>,
    flags: Flags,
    config: Config,
}

/// Why a command failed. Every message says what happened, why, and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The node does not start.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// Nothing answers where the node should be.
    #[error("no node answers at {url} ({reason}); start one with `potluck up`, or name another with --url")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
    /// An importer cannot be used.
    #[error(transparent)]
    Foreign(#[from] crate::memory::foreign::ForeignError),
    /// Importers ended early.
    #[error("{0}\nwhat it gave before is kept; importing again is safe, nothing is written twice")]
    Importer(String),
    /// The node refused.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The node's words.
        message: String,
        /// The node's word for programs.
        code: Option<String>,
    },
    /// The connection broke, or the answer made no sense.
    #[error("the node's answer could not be read: {0}; see its log")]
    Broken(String),
    /// The terminal, a pipe or a file failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The words of the command make no sense together.
    #[error("{0}")]
    Usage(String),
    /// The user broke off.
    #[error("interrupted")]
    Interrupted,
    /// A check failed; its lines have said why.
    #[error("{0} of the checks failed; each line above says what to do")]
    Unwell(usize),
}

impl CliError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Interrupted => 130,
            _ => 1,
        }
    }

    fn word(&self) -> &str {
        match self {
            Self::Config(_) => "config",
            Self::Node(_) => "node",
            Self::Unreachable { .. } => "unreachable",
            Self::Refused { code, .. } => code.as_deref().unwrap_or("refused"),
            Self::Broken(_) => "broken",
            Self::Foreign(_) | Self::Importer(_) => "importer",
            Self::Io { .. } => "io",
            Self::Usage(_) => "usage",
            Self::Interrupted => "interrupted",
            Self::Unwell(_) => "unwell",
        }
    }
}

/// Runs the program and says how it ended.
pub fn main() -> ExitCode {
    // clap counts a variable of the environment as an argument, and would miss that there is none.
    if std::env::args_os().len() <= 1 {
        let help = Cli::command().render_help();
        let _ =
            print(&if output::colours(&io::stdout()) { help.ansi().to_string() } else { help.to_string() });
        return ExitCode::SUCCESS;
    }
    let cli = Cli::parse();
    let json = cli.common.json;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => return fail(&CliError::Io { what: "no threads could be started", source }, json),
    };
    let outcome = runtime.block_on(dispatch(cli));
    // Threads that wait for a terminal must not hold the program back.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, json),
    }
}

fn fail(error: &CliError, json: bool) -> ExitCode {
    let mut text = String::new();
    if json {
        let _ = write!(text, "{}", json!({"error": {"message": error.to_string(), "code": error.word()}}));
    } else if output::colours(&io::stderr()) {
        let _ = write!(text, "\x1b[1;31merror:\x1b[0m {error}");
    } else {
        let _ = write!(text, "error: {error}");
    }
    let _ = writeln!(io::stderr(), "{text}");
    ExitCode::from(error.exit_code())
}

async fn dispatch(cli: Cli) -> Result<(), CliError> {
    let Cli { common, command } = cli;
    let mut flags = common.flags;
    match &command {
        Command::Completions(command) => return command.run(),
        Command::Config(command) if command.needs_no_file() => return command.run(&flags, common.json),
        Command::Up(up) => flags.models.clone_from(&up.models),
        _ => {}
    }
    let loaded = Config::load(&flags);
    if let Command::Doctor(doctor::Doctor { peer: None, .. }) = command {
        // A broken configuration is one of the things the doctor reports.
        let (config, problem) = match loaded {
            Ok(config) => (config, None),
            Err(error) => (Config::default(), Some(error)),
        };
        start_log(&config, &flags, false);
        let context = Context { json: common.json, url: common.url, flags, config };
        return doctor::run(context, problem).await;
    }
    let config = loaded?;
    start_log(&config, &flags, matches!(command, Command::Up(_)));
    let context = Context { json: common.json, url: common.url, flags, config };
    match command {
        Command::Up(command) => command.run(context).await,
        Command::Down(_) => down::run(context).await,
        Command::Run(command) => command.run(context).await,
        Command::Pull(command) => command.run(context).await,
        Command::Models(_) => models::run(context).await,
        Command::Show(command) => command.run(context).await,
        Command::Ps(_) => ps::run(context).await,
        Command::Stop(command) => command.run(context).await,
        Command::Rm(command) => command.run(context).await,
        Command::Memory(command) => command.run(context).await,
        Command::Mcp(command) => command.run(context).await,
        Command::Pool(command) => command.run(context).await,
        Command::Join(command) => command.run(context).await,
        Command::Bench(command) => command.run(context).await,
        Command::Config(command) => command.run(&context.flags, context.json),
        Command::Share(command) => command.run(context).await,
        Command::Policy(command) => command.run(context).await,
        #[cfg(feature = "public")]
        Command::Credits(command) => command.run(context).await,
        #[cfg(feature = "public")]
        Command::Provider(command) => command.run(context).await,
        #[cfg(feature = "public")]
        Command::Public(command) => command.run(context).await,
        #[cfg(feature = "public")]
        Command::Gov(command) => command.run(context).await,
        #[cfg(feature = "public")]
        Command::Chain(command) => command.run(context).await,
        Command::Doctor(command) => peer::run(context, command).await,
        Command::Completions(_) => Ok(()),
    }
}

/// Logs go to stderr. Commands other than `up` only warn unless a level was asked for.
fn start_log(config: &Config, flags: &Flags, serving: bool) {
    let level = if serving || flags.log_level.is_some() { config.log.level.as_str() } else { "warn" };
    // These libraries report every session and every look at an index; a plain level does not ask for that.
    let plain = ["error", "warn", "info"].contains(&level);
    let level = if plain { format!("{level},rmcp=error,milli_core=warn") } else { level.to_owned() };
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(output::colours(&io::stderr()));
    let _ = match config.log.format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

/// Writes to stdout; a reader that has gone away is no failure.
fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(CliError::Interrupted),
        Err(source) => Err(CliError::Io { what: "the output could not be written", source }),
        Ok(()) => Ok(()),
    }
}

/// Writes a line to stdout.
fn print_line(text: &str) -> Result<(), CliError> {
    print(&format!("{text}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_arguments_give_help() {
        let error = Cli::try_parse_from(["potluck"]).unwrap_err();
        assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
    }

    #[test]
    fn global_flags_stand_anywhere() {
        for words in [
            &["potluck", "--json", "models"][..],
            &["potluck", "models", "--json"],
            &["potluck", "up", "--listen", "127.0.0.1:0", "--model", "a", "--model", "b", "--home", "/tmp/x"],
            &["potluck", "run", "guide", "hello", "there"],
            &["potluck", "ls"],
            &["potluck", "config", "print-default"],
        ] {
            Cli::try_parse_from(words).unwrap();
        }
    }
}
