//! The flags and environment variables of every configuration value.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;

use super::{ApiKey, Config, ConfigError, LogFormat, value};
use crate::{
    inference::Device,
    job::{KeepAlive, Mode},
};

/// Overrides of configuration values. `None`: the file's value or the default.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Configuration")]
pub struct Flags {
    /// Configuration file [default: ~/.config/potluck/config.toml].
    #[arg(long, global = true, env = "POTLUCK_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder for the node's files [default: ~/.local/share/potluck].
    #[arg(long, global = true, env = "POTLUCK_HOME", value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// Address and port to serve on [default: 127.0.0.1:7685]; port 0 lets the system choose.
    #[arg(long, global = true, env = "POTLUCK_LISTEN", value_name = "ADDR:PORT", hide_short_help = true)]
    pub listen: Option<SocketAddr>,
    /// Mode of requests that name none: local, trusted or public [default: local].
    #[arg(long, global = true, env = "POTLUCK_MODE", value_name = "MODE", hide_short_help = true)]
    pub mode: Option<Mode>,
    /// Fetch nothing from the network.
    #[arg(long, global = true, env = "POTLUCK_OFFLINE", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_short_help = true)]
    pub offline: Option<bool>,
    /// What to compute on [default: auto].
    #[arg(long, global = true, env = "POTLUCK_DEVICE", value_name = "auto|cpu|gpu", value_parser = value::parse_device, hide_short_help = true)]
    pub device: Option<Device>,
    /// Worker threads [default: one per physical core].
    #[arg(long, global = true, env = "POTLUCK_THREADS", value_name = "N", hide_short_help = true)]
    pub threads: Option<usize>,
    /// Context per request, in tokens [default: the model's own].
    #[arg(long, global = true, env = "POTLUCK_CONTEXT", value_name = "TOKENS", hide_short_help = true)]
    pub context: Option<u32>,
    /// Requests answered at the same time [default: 16].
    #[arg(long, global = true, env = "POTLUCK_PARALLEL", value_name = "N", hide_short_help = true)]
    pub parallel: Option<usize>,
    /// Requests that may wait; one more is answered 429 [default: 512].
    #[arg(long, global = true, env = "POTLUCK_MAX_QUEUE", value_name = "N", hide_short_help = true)]
    pub max_queue: Option<usize>,
    /// How long a model stays loaded after its last use: 5m, 0, forever [default: 5m].
    #[arg(long, global = true, env = "POTLUCK_KEEP_ALIVE", value_name = "TIME", value_parser = value::parse_keep_alive, allow_hyphen_values = true, hide_short_help = true)]
    pub keep_alive: Option<KeepAlive>,
    /// Most models in memory at the same time [default: 3].
    #[arg(long, global = true, env = "POTLUCK_MAX_LOADED", value_name = "N", hide_short_help = true)]
    pub max_loaded: Option<usize>,
    /// Bytes that models and their caches may take [default: 80 % of the memory].
    #[arg(long, global = true, env = "POTLUCK_MEMORY_BUDGET", value_name = "BYTES", hide_short_help = true)]
    pub memory_budget: Option<u64>,
    /// Offer models found in other programs' caches [default: true].
    #[arg(long, global = true, env = "POTLUCK_CACHES", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_short_help = true)]
    pub caches: Option<bool>,
    /// Keys that requests must carry (comma-separated or repeated); commands send the first to the node.
    #[arg(
        long = "api-key",
        global = true,
        env = "POTLUCK_API_KEY",
        value_name = "KEY",
        value_delimiter = ',',
        hide_env_values = true,
        hide_short_help = true
    )]
    pub api_keys: Option<Vec<String>>,
    /// Need a key even on loopback [default: false, true with --api-key].
    #[arg(long, global = true, env = "POTLUCK_REQUIRE_KEY", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_short_help = true)]
    pub require_key: Option<bool>,
    /// Web origins whose pages may call the node (comma-separated).
    #[arg(
        long,
        global = true,
        env = "POTLUCK_ORIGINS",
        value_name = "ORIGIN",
        value_delimiter = ',',
        hide_short_help = true
    )]
    pub origins: Option<Vec<String>>,
    /// Further host names under which a loopback node may be asked (comma-separated).
    #[arg(
        long,
        global = true,
        env = "POTLUCK_HOSTS",
        value_name = "HOST",
        value_delimiter = ',',
        hide_short_help = true
    )]
    pub hosts: Option<Vec<String>>,
    /// Most bytes in a request's body [default: 16777216].
    #[arg(long, global = true, env = "POTLUCK_BODY_LIMIT", value_name = "BYTES", hide_short_help = true)]
    pub body_limit: Option<usize>,
    /// Most connections at once [default: 1024].
    #[arg(long, global = true, env = "POTLUCK_MAX_CONNECTIONS", value_name = "N", hide_short_help = true)]
    pub max_connections: Option<usize>,
    /// Time for a client to send its request and to take each part of the answer [default: 1m].
    #[arg(long, global = true, env = "POTLUCK_CLIENT_TIMEOUT", value_name = "TIME", value_parser = value::parse_duration, hide_short_help = true)]
    pub client_timeout: Option<Duration>,
    /// What this machine is called in a pool [default: the host's name].
    #[arg(long, global = true, env = "POTLUCK_NODE_NAME", value_name = "NAME", hide_short_help = true)]
    pub node_name: Option<String>,
    /// Addresses for the members of a pool (comma-separated) [default: 0.0.0.0:7686,[::]:7686].
    #[arg(
        long,
        global = true,
        env = "POTLUCK_POOL_LISTEN",
        value_name = "ADDR:PORT",
        value_delimiter = ',',
        hide_short_help = true
    )]
    pub pool_listen: Option<Vec<SocketAddr>>,
    /// Further addresses to tell the members, as multiaddresses (comma-separated).
    #[arg(
        long,
        global = true,
        env = "POTLUCK_ANNOUNCE",
        value_name = "MULTIADDR",
        value_delimiter = ',',
        hide_short_help = true
    )]
    pub announce: Option<Vec<String>>,
    /// Let members reach each other through this machine [default: true].
    #[arg(long, global = true, env = "POTLUCK_RELAY", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_short_help = true)]
    pub relay: Option<bool>,
    /// Look for members in the local network [default: true].
    #[arg(long, global = true, env = "POTLUCK_LAN", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_short_help = true)]
    pub lan: Option<bool>,
    /// Requests of other members answered at the same time [default: 8].
    #[arg(long, global = true, env = "POTLUCK_MAX_JOBS", value_name = "N", hide_short_help = true)]
    pub max_jobs: Option<usize>,
    /// Bytes a second that members may copy from here [default: no limit].
    #[arg(long, global = true, env = "POTLUCK_COPY_RATE", value_name = "BYTES", hide_short_help = true)]
    pub copy_rate: Option<u64>,
    /// A node of the public pool's chain, e.g. ws://127.0.0.1:9944 [default: none].
    #[arg(long, global = true, env = "POTLUCK_CHAIN_ENDPOINT", value_name = "URL", hide_short_help = true)]
    pub chain_endpoint: Option<String>,
    /// Nodes of the public pool to begin with, as multiaddresses (comma-separated).
    #[arg(
        long,
        global = true,
        env = "POTLUCK_PUBLIC_BOOTSTRAP",
        value_name = "MULTIADDR",
        value_delimiter = ',',
        hide_short_help = true
    )]
    pub public_bootstrap: Option<Vec<String>>,
    /// error, warn, info, debug, trace or a filter [default: info].
    #[arg(long, global = true, env = "POTLUCK_LOG", value_name = "LEVEL", hide_short_help = true)]
    pub log_level: Option<String>,
    /// How log lines look [default: text].
    #[arg(long, global = true, env = "POTLUCK_LOG_FORMAT", value_enum, hide_short_help = true)]
    pub log_format: Option<LogFormat>,
    /// Models to offer besides those found (`--model` of `potluck up`).
    #[arg(skip)]
    pub models: Vec<String>,
}

impl Flags {
    /// Puts these values over those of `config`.
    ///
    /// # Errors
    /// None today; values are checked by [`Config::check`] afterwards.
    pub fn apply(&self, config: &mut Config) -> Result<(), ConfigError> {
        fn set<T: Clone>(to: &mut T, from: &Option<T>) {
            if let Some(value) = from {
                to.clone_from(value);
            }
        }
        if self.home.is_some() {
            config.home.clone_from(&self.home);
        }
        set(&mut config.listen, &self.listen);
        set(&mut config.mode, &self.mode);
        set(&mut config.offline, &self.offline);
        let inference = &mut config.inference;
        set(&mut inference.device, &self.device);
        if self.threads.is_some() {
            inference.threads = self.threads;
        }
        if self.context.is_some() {
            inference.context = self.context;
        }
        set(&mut inference.parallel, &self.parallel);
        set(&mut inference.max_queue, &self.max_queue);
        set(&mut inference.keep_alive, &self.keep_alive);
        set(&mut inference.max_loaded, &self.max_loaded);
        if self.memory_budget.is_some() {
            inference.memory_budget = self.memory_budget;
        }
        set(&mut inference.caches, &self.caches);
        if !self.models.is_empty() {
            inference.models.clone_from(&self.models);
        }
        let http = &mut config.http;
        for token in self.api_keys.iter().flatten().filter(|token| !token.is_empty()) {
            http.keys.push(ApiKey {
                name: "--api-key".into(),
                token: Some(token.clone()),
                sha256: None,
                modes: vec![Mode::Local, Mode::Trusted, Mode::Public],
                mode: None,
                admin: true,
                memory: true,
                budget: None,
            });
            http.require_key = true;
        }
        set(&mut http.require_key, &self.require_key);
        set(&mut http.origins, &self.origins);
        set(&mut http.hosts, &self.hosts);
        set(&mut http.body_limit, &self.body_limit);
        set(&mut http.max_connections, &self.max_connections);
        set(&mut http.client_timeout, &self.client_timeout);
        let pool = &mut config.pool;
        if self.node_name.is_some() {
            pool.name.clone_from(&self.node_name);
        }
        set(&mut pool.listen, &self.pool_listen);
        set(&mut pool.announce, &self.announce);
        set(&mut pool.relay, &self.relay);
        set(&mut pool.lan, &self.lan);
        set(&mut pool.max_jobs, &self.max_jobs);
        if self.copy_rate.is_some() {
            pool.copy_rate = self.copy_rate;
        }
        set(&mut config.public.bootstrap, &self.public_bootstrap);
        if self.chain_endpoint.is_some() {
            config.chain.endpoint.clone_from(&self.chain_endpoint);
        }
        set(&mut config.log.level, &self.log_level);
        set(&mut config.log.format, &self.log_format);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        flags: Flags,
    }

    #[test]
    fn flags_beat_the_file_which_beats_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        std::fs::write(&file, "listen = '127.0.0.1:1'\n[inference]\nparallel = 2\nmax_queue = 3\n").unwrap();
        let words = [
            "potluck",
            "--config",
            file.to_str().unwrap(),
            "--parallel",
            "5",
            "--offline",
            "--keep-alive",
            "-1",
        ];
        let config = Config::load(&Command::parse_from(words).flags).unwrap();
        assert_eq!(config.listen.port(), 1);
        assert_eq!((config.inference.parallel, config.inference.max_queue), (5, 3));
        assert!(config.offline && config.inference.caches);
        assert_eq!(config.inference.keep_alive, KeepAlive::Forever);
    }

    #[test]
    fn an_api_key_is_then_required() {
        let flags =
            Command::parse_from(["potluck", "--config", "/dev/null", "--api-key", "secret-key"]).flags;
        let config = Config::load(&flags).unwrap();
        assert!(config.http.require_key);
        assert_eq!(config.http.keys.len(), 1);
    }

    #[test]
    fn a_named_file_must_exist() {
        let flags = Command::parse_from(["potluck", "--config", "/nowhere/config.toml"]).flags;
        assert!(matches!(Config::load(&flags), Err(ConfigError::Read { .. })));
    }

    #[test]
    fn every_flag_has_an_environment_twin() {
        let command = <Command as clap::CommandFactory>::command();
        for argument in command.get_arguments().filter(|a| a.get_id() != "help") {
            assert!(argument.get_env().is_some(), "--{} has none", argument.get_id());
        }
    }
}
