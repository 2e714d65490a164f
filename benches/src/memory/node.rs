//! The node under test: one started for this run in a home of its own, or a running one.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{RecvTimeoutError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tempfile::TempDir;

use super::client::Client;

/// Longest time to the line `ready …`.
const READY: Duration = Duration::from_secs(120);

/// Which node is asked.
#[derive(Args, Clone, Debug, Default)]
pub struct NodeArgs {
    /// Ask this running node instead of starting one (http://host:port). What is put in stays there.
    #[arg(long, global = true)]
    pub url: Option<String>,
    /// The key for that node.
    #[arg(long, global = true, env = "POTLUCK_API_KEY", requires = "url")]
    pub token: Option<String>,
    /// The program to start; without it the one built beside this.
    #[arg(long, global = true, env = "POTLUCK_BIN")]
    pub program: Option<PathBuf>,
    /// A further argument for `potluck up` (repeatable), such as --node-arg=--device=gpu.
    #[arg(long = "node-arg", global = true, allow_hyphen_values = true)]
    pub args: Vec<OsString>,
    /// The folder with the embedder's files (config.json, tokenizer.json, model.safetensors); without it the node
    /// pulls the embedder itself.
    #[arg(long, global = true, env = "POTLUCK_TEST_MINILM", value_name = "FOLDER")]
    pub embedder: Option<PathBuf>,
    /// Recall by words alone: the node is started offline and in an account without models.
    #[arg(long, global = true)]
    pub words_only: bool,
}

/// A node and how to reach it. One that was started here ends, and its home goes, when this is dropped.
#[derive(Debug)]
pub struct Node {
    url: String,
    token: Option<String>,
    started: Option<Started>,
}

#[derive(Debug)]
struct Started {
    child: Child,
    home: TempDir,
}

/// Puts the embedder into a home: a copy of the files named, or what a pull fetches.
fn install_embedder(args: &NodeArgs, program: &Path, home: &Path) -> Result<()> {
    if let Some(from) = &args.embedder {
        let folder = home.join("models/embedder");
        fs::create_dir_all(&folder)?;
        for file in ["config.json", "tokenizer.json", "model.safetensors"] {
            fs::copy(from.join(file), folder.join(file))
                .with_context(|| format!("{file} of the embedder in {}", from.display()))?;
        }
        return Ok(());
    }
    let pull = Command::new(program).args(["pull", "embedder"]).env("POTLUCK_HOME", home).output()?;
    if !pull.status.success() {
        bail!("the embedder cannot be pulled: {}", String::from_utf8_lossy(&pull.stderr).trim());
    }
    Ok(())
}

impl Node {
    /// The running node that is named, or a fresh one.
    ///
    /// # Errors
    /// When the program is missing or does not come up; with its own words.
    pub fn open(args: &NodeArgs) -> Result<Self> {
        match &args.url {
            Some(url) => Ok(Self { url: url.clone(), token: args.token.clone(), started: None }),
            None => Self::start(args),
        }
    }

    fn start(args: &NodeArgs) -> Result<Self> {
        let program = program(args)?;
        let home = tempfile::Builder::new().prefix("potluck-bench-").tempdir()?;
        let log = home.path().join("node.log");
        let mut command = Command::new(&program);
        command.env("POTLUCK_HOME", home.path().join("node"));
        if args.words_only {
            let user = home.path().join("user");
            fs::create_dir_all(&user)?;
            for (name, _) in env::vars_os() {
                let text = name.to_string_lossy();
                if ["HF_", "HUGGING", "OLLAMA_", "LLAMA_", "XDG_"].iter().any(|start| text.starts_with(start))
                {
                    command.env_remove(&name);
                }
            }
            command.env("HOME", user).env("POTLUCK_OFFLINE", "true");
        } else {
            install_embedder(args, &program, &home.path().join("node"))?;
        }
        command.args(["up", "--listen", "127.0.0.1:0"]).args(&args.args).env_remove("POTLUCK_JSON");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(fs::File::create(&log)?);
        let child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        // From here on the child ends whatever happens.
        let mut started = Started { child, home };
        let out = started.child.stdout.take().context("no stdout")?;
        let Some(url) = ready(out) else {
            let said = fs::read_to_string(&log).unwrap_or_default();
            bail!("{} did not come up:\n{said}", program.display());
        };
        Ok(Self { url, token: None, started: Some(started) })
    }

    /// A client of it.
    ///
    /// # Errors
    /// When its address is none.
    pub fn client(&self) -> Result<Client> {
        Client::new(&self.url, self.token.clone())
    }

    /// Whether it was started here, and may be thrown away.
    pub const fn is_ours(&self) -> bool {
        self.started.is_some()
    }

    /// Resident memory now and at its highest, in bytes; `None` for a node elsewhere.
    pub fn resident(&self) -> Option<(u64, u64)> {
        let pid = self.started.as_ref()?.child.id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
        };
        Some((field("VmRSS:")?, field("VmHWM:")?))
    }

    /// Bytes that its home takes on the disk; `None` for a node elsewhere.
    pub fn on_disk(&self) -> Option<u64> {
        Some(allocated(&self.started.as_ref()?.home.path().join("node")))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program(args: &NodeArgs) -> Result<PathBuf> {
    let path = match &args.program {
        Some(path) => path.clone(),
        None => env::current_exe()?.with_file_name(format!("potluck{}", env::consts::EXE_SUFFIX)),
    };
    if !path.is_file() {
        bail!(
            "there is no {}; build it (cargo build --release --bin potluck) or give --program",
            path.display()
        );
    }
    Ok(path)
}

/// Waits for the line that says where the node serves, and keeps its output flowing afterwards.
fn ready(out: impl Read + Send + 'static) -> Option<String> {
    let (send, receive) = sync_channel(16);
    thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            let _ = send.try_send(line);
        }
    });
    let until = Instant::now() + READY;
    loop {
        match receive.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if let Some(url) = line.strip_prefix("ready ") {
                    return Some(url.trim().to_owned());
                }
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// Bytes on the disk below a folder; a file with holes counts without them.
fn allocated(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => allocated(&entry.path()),
        Ok(meta) => blocks(&meta),
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(size).sum()
}

#[cfg(unix)]
fn blocks(meta: &fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    meta.blocks() * 512
}

#[cfg(not(unix))]
fn blocks(meta: &fs::Metadata) -> u64 {
    meta.len()
}

/// The machine, in words: its processor, cores and memory.
pub fn machine() -> String {
    let line = |file: &str, name: &str| -> Option<String> {
        let text = fs::read_to_string(file).ok()?;
        let found = text.lines().find(|line| line.starts_with(name))?;
        Some(found.split_once(':')?.1.trim().to_owned())
    };
    let cpu = line("/proc/cpuinfo", "model name").unwrap_or_else(|| env::consts::ARCH.to_owned());
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let kib = line("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    let memory = kib.map_or_else(String::new, |kib| format!(", {} GiB", kib.div_ceil(1 << 20)));
    format!("{cpu}, {cores} cores{memory}, {}", env::consts::OS)
}

/// The version of the sources, as git names it.
pub fn version() -> String {
    let folder = env!("CARGO_MANIFEST_DIR");
    let output = Command::new("git").args(["-C", folder, "describe", "--always", "--dirty"]).output();
    let text = output.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    let text = text.map(|text| String::from_utf8_lossy(&text).trim().to_owned());
    text.unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_is_found_among_others() {
        let lines = "hello\nready http://127.0.0.1:1234\nmore\n";
        assert_eq!(ready(std::io::Cursor::new(lines)).as_deref(), Some("http://127.0.0.1:1234"));
        assert_eq!(ready(std::io::Cursor::new("nothing\n")), None);
    }

    #[test]
    fn a_missing_program_is_said() {
        let args = NodeArgs { program: Some("/nowhere/potluck".into()), ..NodeArgs::default() };
        assert!(Node::open(&args).unwrap_err().to_string().contains("/nowhere/potluck"));
    }

    #[test]
    fn machine_and_version_say_something() {
        assert!(machine().contains("cores"));
        assert!(!version().is_empty());
    }
}
