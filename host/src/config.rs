//! One TOML file, and for every value a flag and an environment variable.
//!
//! [`Config::default`] is a good offline node: loopback only, no key needed, every local model cache used.
//! A flag beats an environment variable, which beats the file, which beats the default.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use libp2p::Multiaddr;
use potluck_primitives::MicroCredits;
use serde::{Deserialize, Serialize};

use crate::{
    inference::Device,
    job::{KeepAlive, Mode},
};

pub(crate) mod chain;
pub mod flags;
pub(crate) mod public;
pub mod value;

pub use chain::ChainSection;
pub use flags::Flags;
pub use public::PublicSection;

/// The slowest that a file may be given away, in bytes a second: slower, and the other side takes it for gone.
const MIN_COPY_RATE: u64 = 64 << 10;

/// The commented default configuration; `docs/config.toml` of the repository.
pub const DEFAULT_TOML: &str = include_str!("../../docs/config.toml");

/// Most bytes a configuration file may have.
const FILE_LIMIT: u64 = 1 << 20;

/// Everything a node can be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the node keeps its files. `None`: `$XDG_DATA_HOME/potluck`, else `~/.local/share/potluck`.
    pub home: Option<PathBuf>,
    /// Address and port to serve on; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Mode of a request that names none.
    pub mode: Mode,
    /// Whether the node may not fetch anything from the network.
    pub offline: bool,
    /// Models and how they run.
    pub inference: InferenceSection,
    /// Who may ask, and how much at once.
    pub http: HttpSection,
    /// How this machine is in a trusted pool.
    pub pool: PoolSection,
    /// Where the chain of the public pool is.
    pub chain: ChainSection,
    /// What this machine asks of strangers and strangers may ask of it.
    pub public: PublicSection,
    /// What is logged, on stderr.
    pub log: LogSection,
}

/// Models and how they run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InferenceSection {
    /// Models to offer besides those found: names, or paths of GGUF files.
    pub models: Vec<String>,
    /// What to compute on.
    pub device: Device,
    /// Worker threads. `None`: one per physical core.
    pub threads: Option<usize>,
    /// Context per request, in tokens. `None`: the model's own, up to what memory allows.
    pub context: Option<u32>,
    /// Requests answered at the same time.
    pub parallel: usize,
    /// Requests that may wait; one more is answered 429.
    pub max_queue: usize,
    /// How long a model stays loaded after its last use.
    #[serde(with = "value::keep_alive")]
    pub keep_alive: KeepAlive,
    /// Most models in memory at the same time.
    pub max_loaded: usize,
    /// Bytes that models and their caches may take. `None`: 80 % of the machine's memory.
    pub memory_budget: Option<u64>,
    /// Whether models in the caches of Ollama, Hugging Face, LM Studio and llama.cpp are offered.
    pub caches: bool,
}

/// Who may ask, and how much at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSection {
    /// Whether a key is needed even on loopback. Off loopback one is always needed.
    pub require_key: bool,
    /// The keys.
    pub keys: Vec<ApiKey>,
    /// Web origins whose pages may call the node, e.g. `https://app.example`.
    pub origins: Vec<String>,
    /// Host names, besides loopback ones, under which a loopback node may be asked.
    pub hosts: Vec<String>,
    /// Most bytes in a request's body.
    pub body_limit: usize,
    /// Most connections at once.
    pub max_connections: usize,
    /// Time for a client to send its request, and to take each part of the answer.
    #[serde(with = "value::duration")]
    pub client_timeout: Duration,
}

/// Someone who may ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// Whose key it is; shown in logs.
    pub name: String,
    /// The key itself. Better: `sha256`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// SHA-256 of the key, 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Modes it may use.
    #[serde(default = "only_local")]
    pub modes: Vec<Mode>,
    /// Mode of its requests that name none. `None`: the node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Whether it may pull, load, unload and delete models and read the node's state.
    #[serde(default)]
    pub admin: bool,
    /// Whether it may read and write the memory, over HTTP and MCP.
    #[serde(default)]
    pub memory: bool,
    /// Credits that its requests may spend in the public pool in a day. `None`: the whole daily budget.
    #[serde(default, with = "chain::credits::optional", skip_serializing_if = "Option::is_none")]
    pub budget: Option<MicroCredits>,
}

fn only_local() -> Vec<Mode> {
    vec![Mode::Local]
}

/// How this machine is in a trusted pool. Nothing of it is used before a pool is founded or joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolSection {
    /// What this machine is called in a pool. `None`: the host's name.
    pub name: Option<String>,
    /// Addresses at which other members reach this machine, over QUIC (UDP) and TCP.
    pub listen: Vec<SocketAddr>,
    /// Further addresses to tell the members, as multiaddresses: a forwarded port, for example.
    pub announce: Vec<String>,
    /// Whether members that cannot reach each other may do so through this machine, encrypted.
    pub relay: bool,
    /// Whether members are looked for in the local network.
    pub lan: bool,
    /// Requests of other members that are answered at the same time.
    pub max_jobs: usize,
    /// Bytes a second that all members together may copy from here. `None`: as many as the network carries, and
    /// 16 MiB while an answer is being computed.
    pub copy_rate: Option<u64>,
}

/// What is logged, on stderr.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSection {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `potluck=debug,info`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            home: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 7685)),
            mode: Mode::Local,
            offline: false,
            inference: InferenceSection::default(),
            http: HttpSection::default(),
            pool: PoolSection::default(),
            chain: ChainSection::default(),
            public: PublicSection::default(),
            log: LogSection::default(),
        }
    }
}

impl Default for InferenceSection {
    fn default() -> Self {
        Self {
            models: Vec::new(),
            device: Device::Auto,
            threads: None,
            context: None,
            parallel: 16,
            max_queue: 512,
            keep_alive: KeepAlive::For(Duration::from_secs(300)),
            max_loaded: 3,
            memory_budget: None,
            caches: true,
        }
    }
}

impl Default for HttpSection {
    fn default() -> Self {
        Self {
            require_key: false,
            keys: Vec::new(),
            origins: Vec::new(),
            hosts: Vec::new(),
            body_limit: 16 << 20,
            max_connections: 1024,
            client_timeout: Duration::from_secs(60),
        }
    }
}

impl Default for PoolSection {
    fn default() -> Self {
        Self {
            name: None,
            listen: vec![
                SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7686)),
                SocketAddr::from((Ipv6Addr::UNSPECIFIED, 7686)),
            ],
            announce: Vec::new(),
            relay: true,
            lan: true,
            max_jobs: 8,
            copy_rate: None,
        }
    }
}

impl Default for LogSection {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("the configuration file {} is wrong: {reason}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What and where.
        reason: String,
    },
    /// A value makes no sense.
    #[error("{field}: {reason}")]
    Invalid {
        /// The value's name, as in the file.
        field: String,
        /// What is wrong with it and what would be right.
        reason: String,
    },
    /// There is no home folder to default to.
    #[error("no {what} folder is known because HOME is not set; pass {flag}")]
    NoHome {
        /// What was looked for.
        what: &'static str,
        /// What to pass.
        flag: &'static str,
    },
}

impl Config {
    /// The file that is read when none is named: `$XDG_CONFIG_HOME/potluck/config.toml`, else
    /// `~/.config/potluck/config.toml`.
    ///
    /// # Errors
    /// [`ConfigError::NoHome`] when neither variable is set.
    pub fn default_path() -> Result<PathBuf, ConfigError> {
        Ok(xdg("XDG_CONFIG_HOME", ".config", "configuration", "--config FILE")?.join("potluck/config.toml"))
    }

    /// The configuration that these flags (which carry the environment's values too) and the file give.
    ///
    /// # Errors
    /// Any [`ConfigError`]; a missing file is one only when it was named.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let mut config = match &flags.config {
            Some(path) => Self::read(path)?,
            None => match Self::default_path() {
                Ok(path) if path.exists() => Self::read(&path)?,
                _ => Self::default(),
            },
        };
        flags.apply(&mut config)?;
        config.check()?;
        Ok(config)
    }

    /// The configuration in one file.
    ///
    /// # Errors
    /// [`ConfigError::Read`] and [`ConfigError::Parse`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(failed)?.len() > FILE_LIMIT {
            return Err(ConfigError::Parse {
                path: path.to_owned(),
                reason: "it is larger than 1 MiB".into(),
            });
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        Self::parse(&text).map_err(|reason| ConfigError::Parse { path: path.to_owned(), reason })
    }

    /// The configuration in a TOML text.
    ///
    /// # Errors
    /// What is wrong and where, in words; an unknown field comes with the nearest known one.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| {
            let reason = error.to_string();
            match value::suggestion(error.message()) {
                Some(nearest) => format!("{}\ndid you mean `{nearest}`?", reason.trim_end()),
                None => reason.trim_end().to_owned(),
            }
        })
    }

    /// Where the node keeps its files.
    ///
    /// # Errors
    /// [`ConfigError::NoHome`] when nothing says where.
    pub fn home(&self) -> Result<PathBuf, ConfigError> {
        match &self.home {
            Some(home) => Ok(home.clone()),
            None => Ok(xdg("XDG_DATA_HOME", ".local/share", "data", "--home DIR")?.join("potluck")),
        }
    }

    /// Checks what types cannot say.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] naming the field.
    pub fn check(&self) -> Result<(), ConfigError> {
        let invalid = |field: &str, reason: &str| {
            Err(ConfigError::Invalid { field: field.to_owned(), reason: reason.to_owned() })
        };
        let inference = &self.inference;
        if !(1..=1024).contains(&inference.parallel) {
            return invalid("inference.parallel", "must be from 1 to 1024");
        }
        if inference.max_queue > 65_536 {
            return invalid("inference.max_queue", "must be at most 65536");
        }
        if inference.max_loaded == 0 {
            return invalid("inference.max_loaded", "must be at least 1");
        }
        if inference.threads.is_some_and(|threads| !(1..=1024).contains(&threads)) {
            return invalid("inference.threads", "must be from 1 to 1024");
        }
        if inference.context.is_some_and(|context| context < 16) {
            return invalid("inference.context", "must be at least 16 tokens");
        }
        if !(1024..=1 << 30).contains(&self.http.body_limit) {
            return invalid("http.body_limit", "must be from 1024 to 1073741824 bytes");
        }
        if !(1..=1 << 20).contains(&self.http.max_connections) {
            return invalid("http.max_connections", "must be from 1 to 1048576");
        }
        if self.http.client_timeout < Duration::from_secs(1) {
            return invalid("http.client_timeout", "must be at least 1s");
        }
        if self.pool.listen.is_empty() || self.pool.listen.len() > 16 {
            return invalid("pool.listen", "must be from 1 to 16 addresses");
        }
        if self.pool.announce.len() > 16 {
            return invalid("pool.announce", "must be at most 16 addresses");
        }
        if let Some(wrong) = self.pool.announce.iter().find(|text| text.parse::<Multiaddr>().is_err()) {
            let reason = format!("`{wrong}` is no multiaddress; write e.g. /ip4/192.0.2.1/udp/7686/quic-v1");
            return invalid("pool.announce", &reason);
        }
        if !(1..=1024).contains(&self.pool.max_jobs) {
            return invalid("pool.max_jobs", "must be from 1 to 1024");
        }
        if self.pool.copy_rate.is_some_and(|rate| rate < MIN_COPY_RATE) {
            return invalid("pool.copy_rate", "must be at least 65536 bytes a second");
        }
        if let Err((field, reason)) = self.chain.check().and_then(|()| self.public.check()) {
            return invalid(field, &reason);
        }
        for (index, key) in self.http.keys.iter().enumerate() {
            key.check().or_else(|reason| invalid(&format!("http.keys[{index}]"), reason))?;
        }
        if self.http.require_key && self.http.keys.is_empty() {
            return invalid("http.require_key", "is on but http.keys has no key; add one or pass --api-key");
        }
        Ok(())
    }
}

impl ApiKey {
    fn check(&self) -> Result<(), &'static str> {
        match (&self.token, &self.sha256) {
            (Some(token), None) if token.len() >= 8 => {}
            (Some(_), None) => return Err("the token needs at least 8 characters"),
            (None, Some(digest)) if digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()) => {}
            (None, Some(_)) => return Err("sha256 must be 64 hex digits"),
            _ => return Err("needs exactly one of token and sha256"),
        }
        if self.modes.is_empty() {
            return Err("modes must name at least one of local, trusted, public");
        }
        if self.mode.is_some_and(|mode| !self.modes.contains(&mode)) {
            return Err("mode must be one of its modes");
        }
        Ok(())
    }
}

fn xdg(
    variable: &str,
    under_home: &str,
    what: &'static str,
    flag: &'static str,
) -> Result<PathBuf, ConfigError> {
    if let Some(dir) = std::env::var_os(variable).map(PathBuf::from).filter(|dir| dir.is_absolute()) {
        return Ok(dir);
    }
    match std::env::home_dir() {
        Some(home) if home.is_absolute() => Ok(home.join(under_home)),
        _ => Err(ConfigError::NoHome { what, flag }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_file_is_the_default() {
        assert_eq!(Config::parse(DEFAULT_TOML).unwrap(), Config::default());
    }

    #[test]
    fn the_documented_file_names_every_value() {
        let full = Config {
            home: Some("/x".into()),
            inference: InferenceSection {
                threads: Some(1),
                context: Some(64),
                memory_budget: Some(1),
                ..Default::default()
            },
            chain: ChainSection { endpoint: Some("ws://127.0.0.1:9944".into()), ..Default::default() },
            public: PublicSection {
                issuer_account: Some(String::new()),
                max_model_bytes: Some(1),
                rate: Some(1),
                prompt_price: Some(MicroCredits(1)),
                answer_price: Some(MicroCredits(1)),
                ..Default::default()
            },
            ..Default::default()
        };
        let table = toml::Table::try_from(&full).unwrap();
        let names = |table: &toml::Table| table.keys().cloned().collect::<Vec<_>>();
        let mut all = names(&table);
        for section in ["inference", "http", "chain", "public", "log"] {
            all.extend(names(table[section].as_table().unwrap()));
        }
        for name in all {
            assert!(DEFAULT_TOML.contains(&name), "docs/config.toml does not mention `{name}`");
        }
    }

    #[test]
    fn an_unknown_field_is_named_with_its_nearest() {
        let error = Config::parse("[inference]\nparalel = 2\n").unwrap_err();
        assert!(error.contains("paralel") && error.contains("did you mean `parallel`?"), "{error}");
        let error = Config::parse("lisen = '127.0.0.1:1'\n").unwrap_err();
        assert!(error.contains("did you mean `listen`?"), "{error}");
        assert!(!Config::parse("zzzzzzzz = 1").unwrap_err().contains("did you mean"));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let refused = |text: &str| Config::parse(text).unwrap().check().unwrap_err().to_string();
        assert!(refused("[inference]\nparallel = 0").starts_with("inference.parallel"));
        assert!(refused("[http]\nrequire_key = true").starts_with("http.require_key"));
        assert!(refused("[[http.keys]]\nname='a'\ntoken='short'").starts_with("http.keys[0]"));
        assert!(refused("[[http.keys]]\nname='a'\ntoken='longenough'\nmode='public'").contains("mode"));
        assert!(Config::parse("[inference]\nparallel = -1").is_err());
        assert!(Config::parse("mode = 'everywhere'").is_err());
        assert!(Config::parse("[inference]\nkeep_alive = 'soon'").is_err());
    }
}
