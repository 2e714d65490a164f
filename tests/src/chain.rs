//! A development chain, started as its user starts it: `potluck chain dev`, which runs the real runtime.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Output, Stdio},
    time::Duration,
};

use potluck_chain_client::{Client, Key, Live, Settings, signer::Pace, spec::Clock};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::{data, node, process};

/// Time for the process to end when it is asked to.
const GOODBYE: Duration = Duration::from_secs(20);
/// Time for the client of a test to reach a chain that runs.
const REACH: Duration = Duration::from_secs(30);

/// Where npm has installed chopsticks; says that the running test is skipped where it has not.
pub fn chopsticks() -> Option<PathBuf> {
    let folder = env::var_os("POTLUCK_CHOPSTICKS").map(PathBuf::from);
    if folder.is_none() {
        data::skipped(
            "POTLUCK_CHOPSTICKS names no folder in which npm has installed chopsticks; tests/run does so",
        );
    }
    folder
}

/// A running chain, which makes blocks for transactions and when it is told to. Ends when dropped.
#[derive(Debug)]
pub struct Chain {
    child: Child,
    endpoint: String,
    runtime: Runtime,
    clock: Option<Clock>,
}

impl Chain {
    /// Starts one on which the node of this home ([`node::NodeOptions::home`]) has 10,000 credits and a million tokens.
    /// `None`, and said so, where chopsticks is not installed.
    pub fn start(home: &Path) -> Option<Self> {
        Self::start_on(home, 0)
    }

    /// The same on a given port.
    pub fn start_on(home: &Path, port: u16) -> Option<Self> {
        let folder = chopsticks()?;
        let words = ["chain", "dev", "--json", "--engine", "chopsticks", "--block-time", "0s", "--port"];
        let mut command = node::command(home, words);
        command.arg(port.to_string()).arg("--chopsticks").arg(folder);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the program runs");
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        out.read_line(&mut line).expect("it prints UTF-8");
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|error| {
            let _ = child.kill();
            panic!("the chain does not start ({error}): {line}")
        });
        let endpoint = ready["endpoint"].as_str().expect("an endpoint").to_owned();
        Some(Self { child, endpoint, runtime: runtime(), clock: None })
    }

    /// Where it serves.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The port of that.
    pub fn port(&self) -> u16 {
        self.endpoint.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    /// Where futures of this chain's clients run.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Makes so many blocks.
    pub fn blocks(&mut self, count: u32) {
        let clock = self.clock.take().unwrap_or_else(|| {
            self.runtime.block_on(Clock::connect(&self.endpoint)).expect("the chain answers")
        });
        self.runtime.block_on(clock.make_blocks(count)).expect("the chain makes blocks");
        self.clock = Some(clock);
    }

    /// Makes a block every so often until what is returned is dropped.
    pub fn ticking(&self, every: Duration) -> Ticking {
        let (endpoint, (stop, stopped)) = (self.endpoint.clone(), std::sync::mpsc::sync_channel::<()>(0));
        let ticker = std::thread::spawn(move || {
            let runtime = runtime();
            let clock = runtime.block_on(Clock::connect(&endpoint)).expect("the chain answers");
            while stopped.recv_timeout(every) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                // A chain that ends ends its blocks.
                if runtime.block_on(clock.make_blocks(1)).is_err() {
                    return;
                }
            }
        });
        Ticking { stop: Some(stop), ticker: Some(ticker) }
    }

    /// Does something with the chain as the owner of a key, whose files lie in a folder that is gone afterwards.
    pub fn with<T>(&self, key: Key, act: impl AsyncFnOnce(&Live) -> T) -> T {
        let folder = tempfile::tempdir().expect("a temporary folder");
        self.runtime.block_on(async {
            let pace = Pace { poll: Duration::from_millis(200), ..Pace::default() };
            let (endpoint, folder) = (self.endpoint.clone(), folder.path().to_path_buf());
            let client = Client::bind(Settings { endpoint, folder, key, pace });
            let live = client.handle().reached(REACH).await.expect("the chain answers");
            let told = act(&live).await;
            client.shutdown().await;
            told
        })
    }

    /// Ends it as Ctrl-C or a supervisor does; panics unless it ends by itself.
    pub fn stop(mut self) {
        assert!(self.end(), "the chain ignored SIGTERM for {GOODBYE:?}");
    }

    fn end(&mut self) -> bool {
        let _ = rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM);
        process::eventually(GOODBYE, || self.child.try_wait().is_ok_and(|status| status.is_some()))
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) && !self.end() {
            let _ = self.child.kill();
        }
    }
}

/// Blocks that are made from time to time.
#[derive(Debug)]
pub struct Ticking {
    stop: Option<std::sync::mpsc::SyncSender<()>>,
    ticker: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Ticking {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(ticker) = self.ticker.take() {
            let _ = ticker.join();
        }
    }
}

/// Threads for a client of the chain or a proxy before it.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

/// Makes the node of this home the owner of an account of the development chain: alice, bob, carol, dave.
pub fn own(home: &Path, name: &str) {
    let folder = home.join("node");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).expect("a folder");
    let seed = potluck_primitives::blake2_256(&[b"potluck development ", name.as_bytes()]);
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(folder.join("node.key"));
    std::io::Write::write_all(&mut file.expect("no key yet"), &seed).expect("it can be written");
}

/// Credits as the program writes them, in millionths.
pub fn micros(value: &Value) -> u128 {
    let text = value.as_str().unwrap_or_else(|| panic!("no amount: {value}"));
    let (whole, rest) = text.split_once('.').unwrap_or_else(|| panic!("no amount: {text}"));
    assert_eq!(rest.len(), 6, "{text}");
    format!("{whole}{rest}").parse().unwrap_or_else(|_| panic!("no amount: {text}"))
}

/// What a command with `--json` prints.
pub fn told(output: &Output) -> Value {
    let text = node::succeeded(output);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
